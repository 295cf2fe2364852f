/** Control characters, and those that turn the direction in which text is shown: what a terminal obeys instead of showing it. */
const OBEYED = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu

/** Text of a database for a terminal: whatever it would obey is written as `\u001b`. */
export function printable(text: string): string {
  return text.replace(OBEYED, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** The same as a JSON string. */
export function printableString(text: string): string {
  return printable(JSON.stringify(text))
}
