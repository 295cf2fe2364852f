import { z } from 'zod'
import { type ColumnHint, defaultWriteMode, OPERATIONS, type UnresolvedSpec, type UnresolvedXminSpec } from './spec.ts'

/** The longest identifier that PostgreSQL holds (NAMEDATALEN − 1), in bytes of UTF-8. */
export const MAX_IDENTIFIER_BYTES = 63

/** Enough for a quoted `schema.table` whose every character is a doubled quote. */
const MAX_TABLE_NAME_BYTES = 300

const DEFAULT_SPOOL_BUDGET_BYTES = 10 * 1024 ** 3

/** Bytes of UTF-8, without `TextEncoder` or `Buffer`: the workflow sandbox and the linter agree on neither. */
export function utf8ByteLength(text: string): number {
  let bytes = 0
  for (const character of text) {
    const codePoint = character.codePointAt(0) ?? 0
    bytes += codePoint < 0x80 ? 1 : codePoint < 0x800 ? 2 : codePoint < 0x1_0000 ? 3 : 4
  }
  return bytes
}

function bounded(schema: z.ZodString, maximumBytes: number) {
  return schema
    .min(1, 'must not be empty')
    .refine((text) => !text.includes('\0'), 'must not hold a NUL character')
    .refine((text) => utf8ByteLength(text) <= maximumBytes, `must have at most ${maximumBytes} bytes`)
}

function name(maximumBytes: number) {
  return bounded(z.string('must be a text'), maximumBytes)
}

const identifier = name(MAX_IDENTIFIER_BYTES)
const tableName = name(MAX_TABLE_NAME_BYTES)
const requiredText = z.string({ error: (issue) => (issue.input === undefined || issue.input === null ? 'is required' : 'must be a text') })

/** One text, or several; each of them checked. null stands for a field that is left out, as form-filling tools send it. */
function oneOrMore<T extends z.ZodType>(schema: T) {
  return z.preprocess(
    (given) => (typeof given === 'string' ? [given] : given),
    z.array(schema, { error: ({ input }) => (input === undefined || input === null ? 'is required' : 'must be a text or a list of texts') }).min(1, 'must not be empty'),
  )
}

/** Names without repetition. Those that differ only in case are refused: the destination does not tell them apart. */
const tableNameList = oneOrMore(tableName)
  .transform((names) => [...new Set(names)])
  .refine((names) => new Set(names.map((text) => text.toLowerCase())).size === names.length, {
    error: 'holds names that differ only in case, which the destination cannot tell apart',
  })

function byTable<T extends z.ZodType>(schema: T) {
  return z.record(tableName, schema, 'must be an object whose keys are table names')
}

const publish = z
  .string('must be a comma-separated text')
  .transform((text) => text.split(',').map((part) => part.trim().toLowerCase()))
  .refine((parts) => parts.every((part) => OPERATIONS.some((operation) => operation === part)), {
    error: `must be a comma-separated list of ${OPERATIONS.join(', ')}`,
  })
  .transform((parts) => OPERATIONS.filter((operation) => parts.includes(operation)))

const positiveInteger = z.int('must be an integer').min(1, 'must be at least 1')
const flag = z.boolean('must be true or false')

function choice<const T extends readonly [string, ...string[]]>(...options: T) {
  return z.enum(options, `must be ${options.join(' or ')}`)
}

const columnHint = z
  .strictObject({
    dataType: z
      .string('must be a text')
      .regex(/^[A-Za-z][A-Za-z0-9_ (),[\]]{0,99}$/, 'must be the name of a DuckDB type, or text, double, bool, timestamp, bigint, …')
      .nullish(),
    precision: positiveInteger.nullish(),
    scale: z.int('must be an integer').min(0, 'must not be negative').nullish(),
  })
  .refine((hint) => (hint.scale ?? 0) <= (hint.precision ?? Infinity), { error: 'scale must not exceed precision' })

const writeMode = choice('merge', 'append', 'scd2')
const xminWriteMode = choice('merge', 'append')

/** A destination schema of the user's: `_replication` holds our checkpoint, the others are the database's own. */
const datasetName = name(255).refine((text) => !['_replication', 'information_schema', 'pg_catalog'].includes(text.toLowerCase()), {
  error: 'is a schema that the replication or the database keeps for itself',
})

/** Every field of the replication spec as users give it; the one place that knows their names and checks. */
export const SPEC_FIELDS = {
  source: name(255).nullish(),
  destination: name(255).nullish(),
  slotName: requiredText.regex(
    /^[a-z0-9_]{1,63}$/,
    'must be 1 to 63 characters of a-z, 0-9 and _ (PostgreSQL allows no others in the name of a replication slot)',
  ),
  publicationName: bounded(requiredText, MAX_IDENTIFIER_BYTES),
  schemaName: identifier.nullish(),
  tableNames: tableNameList.nullish(),
  publish: publish.nullish(),
  includeColumns: byTable(oneOrMore(identifier)).nullish(),
  columns: byTable(z.record(identifier, columnHint, 'must be an object whose keys are column names')).nullish(),
  datasetName: datasetName.nullish(),
  writeMode: z
    .union([writeMode, byTable(oneOrMore(writeMode).refine((modes) => new Set(modes).size === modes.length, { error: 'names a mode twice' }))], 'must be merge, append or scd2 for all tables, or by table name an object of modes or lists of modes, as {"orders": ["merge", "append"]} (a list is for one table)')
    .nullish(),
  deleteMode: choice('hard', 'soft').nullish(),
  snapshotMode: choice('initial', 'persisted', 'never').nullish(),
  schemaChanges: choice('apply', 'ask', 'refuse').nullish(),
  reset: flag.nullish(),
  targetBatchSize: positiveInteger.nullish(),
  flushSlot: flag.nullish(),
  walBudgetBytes: positiveInteger.nullish(),
  spoolBudgetBytes: positiveInteger.nullish(),
} as const

/** What `dropReplication` takes beside the spec. */
export const DROP_FIELDS = { confirm: requiredText, dropDestination: flag.nullish() } as const

/** What `verifyReplication` takes beside the spec. */
export const VERIFY_FIELDS = { repair: flag.nullish(), maxRowsPerSecond: positiveInteger.nullish() } as const

/** What update `setOptions` takes. */
export const OPTIONS_FIELDS = {
  targetBatchSize: SPEC_FIELDS.targetBatchSize,
  flushSlot: SPEC_FIELDS.flushSlot,
  schemaChanges: SPEC_FIELDS.schemaChanges,
  walBudgetBytes: SPEC_FIELDS.walBudgetBytes,
  spoolBudgetBytes: SPEC_FIELDS.spoolBudgetBytes,
} as const

/** What update `retryFailed` takes. */
export const RETRY_FIELDS = { tableNames: tableNameList.nullish() } as const

/** What `syncByXmin` takes: of the spec what needs no slot, the modes that rows without commit times allow, and `deletes`. */
export const XMIN_FIELDS = {
  source: SPEC_FIELDS.source,
  destination: SPEC_FIELDS.destination,
  schemaName: SPEC_FIELDS.schemaName,
  tableNames: SPEC_FIELDS.tableNames,
  includeColumns: SPEC_FIELDS.includeColumns,
  columns: SPEC_FIELDS.columns,
  datasetName: SPEC_FIELDS.datasetName,
  writeMode: z
    .union([xminWriteMode, byTable(xminWriteMode)], 'must be merge or append, or an object of them by table name: a row does not tell when it was committed, which scd2 needs, and its versions in between are not there')
    .nullish(),
  deleteMode: z.literal('hard', 'must be hard: rows do not tell when they were deleted, which soft needs; writeMode append with "deletes": "compare" notes deletes').nullish(),
  schemaChanges: z.enum(['apply', 'refuse'], 'must be apply or refuse: a run ends, so there is nobody to ask').nullish(),
  reset: SPEC_FIELDS.reset,
  targetBatchSize: SPEC_FIELDS.targetBatchSize,
  deletes: choice('ignore', 'compare').nullish(),
} as const

/** Fields of the spec that mean a slot or its publication, and why `syncByXmin` does not take them. */
export const SLOT_FIELDS: Readonly<Record<string, string>> = {
  slotName: 'it reads without a slot',
  publicationName: 'it reads without a publication',
  publish: 'it sees rows, not operations; deletes are found by "deletes": "compare"',
  flushSlot: 'it reads without a slot',
  snapshotMode: 'the first run reads every row',
  walBudgetBytes: 'it holds no WAL back',
  spoolBudgetBytes: 'it holds no WAL back',
}

export function toXminSpec(fields: z.output<z.ZodObject<typeof XMIN_FIELDS>>): UnresolvedXminSpec {
  const { writeMode } = fields
  return {
    source: fields.source ?? null,
    destination: fields.destination ?? null,
    schemaName: fields.schemaName ?? 'public',
    tableNames: fields.tableNames ?? null,
    includeColumns: fields.includeColumns ?? {},
    columns: mapValues(fields.columns ?? {}, (hints) => mapValues(hints, withoutNulls)),
    datasetName: fields.datasetName ?? null,
    writeMode: typeof writeMode === 'object' && writeMode !== null ? mapValues(writeMode, (mode) => [mode]) : (writeMode ?? 'merge'),
    schemaChanges: fields.schemaChanges ?? 'apply',
    reset: fields.reset ?? false,
    targetBatchSize: fields.targetBatchSize ?? null,
    deletes: fields.deletes ?? 'ignore',
  }
}

/** What update `addTables` takes. */
export const TABLES_FIELDS = { tableNames: tableNameList } as const

/** What update `resyncTables` takes. */
export const RESYNC_FIELDS = { ...TABLES_FIELDS, writeMode: SPEC_FIELDS.writeMode, deleteMode: SPEC_FIELDS.deleteMode } as const

/** What update `approveSchemaChange` takes. */
export const APPROVE_FIELDS = { table: bounded(requiredText, MAX_TABLE_NAME_BYTES) } as const

/** What update `removeTables` takes. */
export const REMOVE_FIELDS = { ...TABLES_FIELDS, dropDestination: flag.nullish() } as const

type SpecFields = z.output<z.ZodObject<typeof SPEC_FIELDS>>

/** Fills in the defaults of contract §4. */
export function toSpec(fields: SpecFields): UnresolvedSpec {
  const operations = fields.publish ?? OPERATIONS
  return {
    source: fields.source ?? null,
    destination: fields.destination ?? null,
    slotName: fields.slotName,
    publicationName: fields.publicationName,
    schemaName: fields.schemaName ?? 'public',
    tableNames: fields.tableNames ?? null,
    publish: operations,
    includeColumns: fields.includeColumns ?? {},
    columns: mapValues(fields.columns ?? {}, (hints) => mapValues(hints, withoutNulls)),
    datasetName: fields.datasetName ?? null,
    writeMode: fields.writeMode ?? defaultWriteMode(operations),
    deleteMode: fields.deleteMode ?? 'hard',
    snapshotMode: fields.snapshotMode ?? 'initial',
    schemaChanges: fields.schemaChanges ?? 'apply',
    reset: fields.reset ?? false,
    targetBatchSize: fields.targetBatchSize ?? null,
    flushSlot: fields.flushSlot ?? true,
    walBudgetBytes: fields.walBudgetBytes ?? null,
    spoolBudgetBytes: fields.spoolBudgetBytes ?? DEFAULT_SPOOL_BUDGET_BYTES,
  }
}

function mapValues<T, U>(record: Readonly<Record<string, T>>, map: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value)]))
}

function withoutNulls(hint: z.output<typeof columnHint>): ColumnHint {
  return {
    ...(typeof hint.dataType === 'string' ? { dataType: hint.dataType } : {}),
    ...(typeof hint.precision === 'number' ? { precision: hint.precision } : {}),
    ...(typeof hint.scale === 'number' ? { scale: hint.scale } : {}),
  }
}
