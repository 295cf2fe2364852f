import { DEFAULT_METRICS_ADDRESS } from '../model/metrics.ts'

/** How an option's value is read and checked. */
export type OptionKind =
  | { readonly tag: 'text' }
  /** A file or folder: relative to the configuration file; `~/` is the home directory. `literals` are left as they are. */
  | { readonly tag: 'path'; readonly literals: RegExp }
  | { readonly tag: 'integer'; readonly minimum: number; readonly maximum: number }
  | { readonly tag: 'choice'; readonly choices: readonly string[] }
  | { readonly tag: 'pattern'; readonly pattern: RegExp; readonly expected: string }

/** One option of `[sources.*]` or `[destinations.*]`: the only place that knows its name, meaning and check. */
export interface OptionEntry {
  readonly key: string
  readonly kind: OptionKind
  /** One sentence, for the documentation and the starter file. */
  readonly description: string
  /** What holds where it is not given, in words. */
  readonly default: string
  /** A TOML value, for the documentation. */
  readonly example: string
  /** True where the value (or, for a URL, a part of it) must never be shown. */
  readonly isSecret?: true
}

const TEXT: OptionKind = { tag: 'text' }
const NO_LITERALS = /^$/

export const SSL_MODES = ['disable', 'prefer', 'require', 'verify-ca', 'verify-full'] as const
export type SslMode = (typeof SSL_MODES)[number]

export const CHANNEL_BINDINGS = ['disable', 'prefer', 'require'] as const

export const DESTINATION_TYPES = ['duckdb', 'ducklake', 'postgres'] as const
export type DestinationType = (typeof DESTINATION_TYPES)[number]

/** Where nothing else is said. */
export const DEFAULT_HOST = 'localhost'
export const DEFAULT_PORT = 5432
export const DEFAULT_CONNECT_TIMEOUT_SECONDS = 30
export const DEFAULT_APPLICATION_NAME = 'temporal-pg-replication'

/** How a PostgreSQL server is reached: `[sources.*]`, and `[destinations.*]` of type postgres. */
export const CREDENTIAL_OPTIONS: readonly OptionEntry[] = [
  {
    key: 'credentials',
    kind: TEXT,
    description:
      'Connection URL. Its parameters are the options below (libpq\'s names); an option that is given beside it wins over the URL\'s part.',
    default: 'required, unless username is given',
    example: '"postgresql://replicator:secret@db.example:5432/shop?sslmode=require"',
    isSecret: true,
  },
  {
    key: 'host',
    kind: TEXT,
    description: 'Host name, IP address, or the folder of a Unix socket (begins with /).',
    default: DEFAULT_HOST,
    example: '"db.example"',
  },
  {
    key: 'port',
    kind: { tag: 'integer', minimum: 1, maximum: 65_535 },
    description: 'TCP port.',
    default: String(DEFAULT_PORT),
    example: '5432',
  },
  { key: 'database', kind: TEXT, description: 'Database name.', default: 'the username', example: '"shop"' },
  { key: 'username', kind: TEXT, description: 'Role to connect as.', default: 'required without credentials', example: '"replicator"' },
  { key: 'password', kind: TEXT, description: 'Its password.', default: 'none', example: '"secret"', isSecret: true },
  {
    key: 'sslmode',
    kind: { tag: 'choice', choices: SSL_MODES },
    description: `TLS, as libpq means it: ${SSL_MODES.join(', ')}.`,
    default: 'prefer',
    example: '"verify-full"',
  },
  {
    key: 'sslrootcert',
    kind: { tag: 'path', literals: /^system$/ },
    description: 'File of the certificate authorities that the server\'s certificate is checked against; "system" means the system\'s.',
    default: 'none',
    example: '"./certs/root.crt"',
  },
  {
    key: 'sslcert',
    kind: { tag: 'path', literals: NO_LITERALS },
    description: 'File of the client certificate.',
    default: 'none',
    example: '"./certs/client.crt"',
  },
  {
    key: 'sslkey',
    kind: { tag: 'path', literals: NO_LITERALS },
    description: 'File of the client certificate\'s private key.',
    default: 'none',
    example: '"./certs/client.key"',
  },
  {
    key: 'connect_timeout',
    kind: { tag: 'integer', minimum: 0, maximum: 86_400 },
    description: 'Seconds to wait for a connection; 0 waits as long as the operating system does.',
    default: String(DEFAULT_CONNECT_TIMEOUT_SECONDS),
    example: '300',
  },
  {
    key: 'application_name',
    kind: TEXT,
    description: 'Name shown in pg_stat_activity and pg_stat_replication.',
    default: DEFAULT_APPLICATION_NAME,
    example: '"shop-replication"',
  },
  {
    key: 'channel_binding',
    kind: { tag: 'choice', choices: CHANNEL_BINDINGS },
    description: 'SCRAM channel binding where the server offers it over TLS (require is taken as prefer).',
    default: 'disable',
    example: '"require"',
  },
  {
    key: 'options',
    kind: TEXT,
    description: 'Command-line options for the server session, as libpq\'s `options` (some poolers route by it).',
    default: 'none',
    example: '"endpoint=ep-cool-name"',
  },
]

/** `[sources.*]`: how it is reached, and how slots are made there. */
export const SOURCE_OPTIONS: readonly OptionEntry[] = [
  ...CREDENTIAL_OPTIONS,
  {
    key: 'failoverSlots',
    kind: { tag: 'choice', choices: ['off', 'on'] },
    description: 'Make slots as failover slots, which standbys that synchronise slots keep too: off, on (PostgreSQL 17 or later, a primary).',
    default: 'off',
    example: '"on"',
  },
]

export const TYPE_OPTION: OptionEntry = {
  key: 'type',
  kind: { tag: 'choice', choices: DESTINATION_TYPES },
  description: 'What it is: duckdb; ducklake and postgres are recognised but not yet supported.',
  default: 'duckdb',
  example: '"duckdb"',
}

const TASK_QUEUE_OPTION: OptionEntry = {
  key: 'taskQueue',
  kind: TEXT,
  description: 'Temporal task queue of the activities that write this destination: a local file belongs to the worker that has it.',
  default: '`<REPLICATION_TASK_QUEUE>-<destination name>` for a local file, else `REPLICATION_TASK_QUEUE`',
  example: '"pg-replication-warehouse"',
}

const MEMORY = /^\d+(\.\d+)?\s*([KMGT]i?B|B|%)$/i

/** Options by destination type, without `type` itself. */
export const DESTINATION_OPTIONS: Readonly<Record<DestinationType, readonly OptionEntry[]>> = {
  duckdb: [
    {
      key: 'path',
      kind: { tag: 'path', literals: /^(md|motherduck):/ },
      description: 'The database file, made when it is missing; "md:…" (MotherDuck) is not yet supported.',
      default: 'required',
      example: '"./data/warehouse.duckdb"',
    },
    {
      key: 'threads',
      kind: { tag: 'integer', minimum: 1, maximum: 1_024 },
      description: 'DuckDB\'s threads. 1 is best where PostgreSQL shares few cores.',
      default: '1',
      example: '2',
    },
    {
      key: 'memoryLimit',
      kind: { tag: 'pattern', pattern: MEMORY, expected: 'an amount such as "2GB", "512MiB" or "50%"' },
      description: 'DuckDB\'s memory limit; beyond it, it spills to tempDirectory.',
      default: '2GB',
      example: '"2GB"',
    },
    {
      key: 'tempDirectory',
      kind: { tag: 'path', literals: NO_LITERALS },
      description: 'Where DuckDB spills.',
      default: '`<path>.tmp`',
      example: '"/var/tmp/duckdb"',
    },
    TASK_QUEUE_OPTION,
    {
      key: 'serve',
      kind: { tag: 'pattern', pattern: /^quack:.+/, expected: 'an address such as "quack:localhost:9494"' },
      description: 'Address where others query live while the worker writes. Not yet supported.',
      default: 'off',
      example: '"quack:localhost:9494"',
    },
    { key: 'serveToken', kind: TEXT, description: 'Token that readers of `serve` present.', default: 'none', example: '"…"', isSecret: true },
  ],
  ducklake: [
    {
      key: 'catalog',
      kind: { tag: 'path', literals: /^(postgres|sqlite|mysql|duckdb|md):/ },
      description: 'The catalog: "postgres:…", "sqlite:…", or a DuckDB file.',
      default: 'required',
      example: '"postgres:dbname=lake host=db.example"',
      isSecret: true,
    },
    {
      key: 'dataPath',
      kind: { tag: 'path', literals: /^[a-z][a-z0-9]+:\/\// },
      description: 'Folder or bucket of the Parquet files.',
      default: 'required',
      example: '"s3://bucket/lake/"',
    },
    TASK_QUEUE_OPTION,
  ],
  postgres: [...CREDENTIAL_OPTIONS, TASK_QUEUE_OPTION],
}

/** Environment variables that are not an override of a file's key. */
export const ENVIRONMENT_VARIABLES = [
  {
    name: 'REPLICATION_CONFIG',
    description: 'Path of the configuration file. Relative paths in it are relative to its folder.',
    default: '`replication.toml` in the current folder',
  },
  {
    name: 'REPLICATION_TASK_QUEUE',
    description: 'Temporal task queue of the workflows and of the activities that write no local file.',
    default: '`pg-replication`',
  },
  {
    name: 'REPLICATION_METRICS_ADDRESS',
    description: 'Where the worker serves `/metrics` for Prometheus: IP address and port (`0.0.0.0:9464` for scraping from elsewhere), a port on loopback, or `off`.',
    default: `\`${DEFAULT_METRICS_ADDRESS}\`; off where that port is taken`,
  },
] as const

export const DEFAULT_CONFIG_FILE = 'replication.toml'
export const DEFAULT_TASK_QUEUE = 'pg-replication'
