/** One line of a Prometheus exposition. */
export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

/** Reads a `/metrics` endpoint. */
export async function scrape(address: string): Promise<readonly Sample[]> {
  const response = await fetch(`http://${address}/metrics`)
  if (!response.ok) throw new Error(`/metrics answers ${String(response.status)}`)
  return parseExposition(await response.text())
}

/** Samples of the text format; throws at a line that is none of it. */
export function parseExposition(text: string): readonly Sample[] {
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#')).map((line) => {
    const [, name, labels = '', value] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
    if (name === undefined || value === undefined) throw new Error(`no line of an exposition: ${line}`)
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key = '', text = '']): [string, string] => [key, text])
    return { name, labels: Object.fromEntries(pairs), value: value === '+Inf' ? Infinity : Number(value) }
  })
}

/** The sum of the samples of that name whose labels have these values; null where there is none. */
export function valueOf(samples: readonly Sample[], name: string, labels: Readonly<Record<string, string>> = {}): number | null {
  const found = samples.filter((sample) => sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value))
  return found.length === 0 ? null : found.reduce((sum, { value }) => sum + value, 0)
}
