/** Texts that hold a credential, or could: a false alarm costs a rename, a miss stands in Temporal's history for years. */
const SECRET_TEXT: readonly RegExp[] = [
  // A URL with user information: scheme://user:password@host
  /[a-z][a-z0-9+.-]*:\/\/[^\s/?#]*@/i,
  /\bpostgres(?:ql)?:\/\//i,
  // password=…, "api_key": "…", PGPASSWORD=…, motherduck_token=…
  /(?:password|passwd|passphrase|pwd|secret|token|credential|api_?key|access_?key|private_?key)\w*["']?\s*[=:]\s*\S/i,
  // A libpq connection string: host=… dbname=…
  /\b(?:host|hostaddr)\s*=\s*\S[^]*\b(?:user|dbname|port)\s*=|\b(?:user|dbname|port)\s*=\s*\S[^]*\b(?:host|hostaddr)\s*=/i,
  /-----BEGIN [A-Z ]*PRIVATE KEY/,
  /\bAKIA[0-9A-Z]{16}\b/,
]

const SECRET_KEY = /password|passwd|passphrase|secret|credential|token|apikey|accesskey|privatekey|connectionstring|connectionur[il]|databaseurl|^dsn$|^pwd$/

/** Fields whose keys are names of tables: `includeColumns: { secrets: "id" }` is a table called secrets. */
const KEYED_BY_TABLE: ReadonlySet<string> = new Set(['includeColumns', 'writeMode'])

/** Whether a text looks like a connection string, or holds a password. */
export function looksLikeSecret(text: string): boolean {
  return SECRET_TEXT.some((pattern) => pattern.test(text))
}

function isSecretKey(key: string): boolean {
  return SECRET_KEY.test(key.toLowerCase().replaceAll(/[-_ .]/g, ''))
}

/**
 * Whether a credential seems to stand anywhere in a workflow's or update's input, in keys as in values. Says only that, never
 * where: what is found must be repeated nowhere.
 */
export function holdsSecret(input: unknown): boolean {
  return holdsSecretAt(input, [])
}

function holdsSecretAt(value: unknown, path: readonly string[]): boolean {
  if (typeof value === 'string') return looksLikeSecret(value)
  if (Array.isArray(value)) return value.some((item) => holdsSecretAt(item, path))
  if (typeof value !== 'object' || value === null) return false
  return Object.entries(value).some(
    ([key, child]) => looksLikeSecret(key) || isCredentialField(key, child, path) || holdsSecretAt(child, [...path, key]),
  )
}

/** A field called `password` that holds something; but a column or table of that name is none. */
function isCredentialField(key: string, value: unknown, path: readonly string[]): boolean {
  if (!isSecretKey(key) || value === null || value === '') return false
  const [field] = path
  if (field === undefined) return true
  if (path.length === 1 && KEYED_BY_TABLE.has(field)) return false
  return typeof value === 'string' || typeof value === 'number'
}
