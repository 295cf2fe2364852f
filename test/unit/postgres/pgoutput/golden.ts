import { readFileSync } from 'node:fs'

/** What a real walsender sent (see test/support/capture-pgoutput.ts). */
export function readGolden(name: '15' | '18' | 'streamed-15' | 'streamed-18'): Buffer[] {
  const golden = JSON.parse(readFileSync(new URL(`golden-${name}.json`, import.meta.url), 'utf8')) as { readonly messages: readonly string[] }
  return golden.messages.map((hex) => Buffer.from(hex, 'hex'))
}

/** The same with at most `most` messages of one kind in a row. */
export function shortened(messages: readonly Buffer[], most: number): Buffer[] {
  let run = 0
  return messages.filter((message, index) => {
    run = index > 0 && messages[index - 1]?.[0] === message[0] ? run + 1 : 1
    return run <= most
  })
}
