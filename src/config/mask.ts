import { inspect } from 'node:util'

const MASK = '***'
const SECRET_KEYS: readonly string[] = ['password', 'serveToken']
const SECRET_IN_TEXT = /((?:password|passwd|motherduck_token|token|secret|key)\s*=\s*)('[^']*'|[^\s&;]+)/gi
const USER_INFO = /(:\/\/[^/?\s:@]*):[^\s]*@/g

/** Masks what looks like a secret inside of text: parameters (`password=…`) and passwords of URLs. */
export function maskText(text: string): string {
  return text.replaceAll(USER_INFO, `$1:${MASK}@`).replaceAll(SECRET_IN_TEXT, `$1${MASK}`)
}

/** Makes printing and serialising the object show no secret of it. Returns the same object. */
export function hideSecrets<T extends object>(table: T): T {
  const shown = maskTable(table)
  Object.defineProperty(table, 'toJSON', { value: () => shown })
  Object.defineProperty(table, inspect.custom, { value: () => shown })
  return table
}

/** For showing: as in force, defaults filled in, secrets replaced. JSON-safe. */
export function maskTable(table: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(table).map(([key, value]) => [key, maskValue(key, value)]))
}

function maskValue(key: string, value: unknown): unknown {
  if (typeof value === 'object' && value !== null) return maskTable(value)
  if (typeof value !== 'string') return value
  return SECRET_KEYS.includes(key) ? MASK : maskText(value)
}
