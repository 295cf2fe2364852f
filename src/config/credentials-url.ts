/** URL parameters that stand for a part of the URL itself, as libpq has it. */
const PARAMETER_ALIASES: Readonly<Record<string, string>> = { user: 'username', dbname: 'database' }

/** libpq's parameters that change nothing here; refusing them would refuse URLs that a provider prints. */
const IGNORED_PARAMETERS: ReadonlySet<string> = new Set([
  ...['client_encoding', 'fallback_application_name', 'gssencmode', 'krbsrvname', 'sslcompression', 'sslnegotiation', 'sslsni'],
  ...['keepalives', 'keepalives_count', 'keepalives_idle', 'keepalives_interval', 'target_session_attrs', 'tcp_user_timeout'],
])

export type ParsedUrl =
  | { readonly ok: true; readonly parts: Readonly<Record<string, string>> }
  | { readonly ok: false; readonly reason: string }

const ENCODE = 'a / ? # % or @ in the user name or password must be written %2F %3F %23 %25 %40'

function refuse(reason: string): ParsedUrl {
  return { ok: false, reason }
}

/**
 * Takes a PostgreSQL connection URL apart into option keys and their text. Its own parser, because `URL` misreads a `#` in a
 * password and repeats the whole input in its errors; reasons never repeat any part of the URL but parameter names.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
 */
export function parseCredentialsUrl(url: string): ParsedUrl {
  // dlt's URLs may name a driver: postgresql+psycopg2://
  const scheme = /^postgres(?:ql)?(?:\+\w+)?:\/\//i.exec(url)
  if (scheme === null) return refuse('is not a URL that begins with postgresql://')
  const afterScheme = url.slice(scheme[0].length)
  const [beforeQuery, query] = splitOnce(afterScheme, '?')
  const [authority, path] = splitOnce(beforeQuery, '/')
  const at = authority.lastIndexOf('@')
  const [username, password] = splitOnce(at < 0 ? '' : authority.slice(0, at), ':')
  const hostAndPort = authority.slice(at + 1)
  if (hostAndPort.includes(',')) return refuse('names several hosts, which is not supported: give one')

  const bracketed = /^\[([^\]]+)\](?::(.*))?$/.exec(hostAndPort)
  const [plainHost, plainPort] = splitOnce(hostAndPort, ':')
  const port = bracketed === null ? plainPort : (bracketed[2] ?? '')
  if (port !== '' && !/^\d+$/.test(port)) return refuse(`has a port that is not a number (${ENCODE})`)

  const parts: Record<string, string> = {}
  const named = { username, password, host: bracketed?.[1] ?? plainHost, port, database: path }
  for (const [key, encoded] of Object.entries(named)) {
    const value = decode(encoded)
    if (value === undefined) return refuse(`has a % that begins no escape in its ${key} (${ENCODE})`)
    if (value !== '') parts[key] = value
  }
  for (const pair of query.split('&').filter((text) => text !== '')) {
    const [encodedName, encodedValue] = splitOnce(pair, '=')
    const name = decode(encodedName)
    const value = decode(encodedValue)
    if (name === undefined || value === undefined) return refuse(`has a % that begins no escape in its parameters (${ENCODE})`)
    if (value !== '' && !IGNORED_PARAMETERS.has(name)) parts[PARAMETER_ALIASES[name] ?? name] = value
  }
  return { ok: true, parts }
}

function splitOnce(text: string, separator: string): readonly [string, string] {
  const at = text.indexOf(separator)
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + separator.length)]
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
