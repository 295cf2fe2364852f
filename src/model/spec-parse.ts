import { z } from 'zod'
import { DomainError } from './errors.ts'
import { nearestName } from './nearest-name.ts'
import { shellWord } from './remedy.ts'
import { APPROVE_FIELDS, DROP_FIELDS, OPTIONS_FIELDS, REMOVE_FIELDS, RESYNC_FIELDS, RETRY_FIELDS, SLOT_FIELDS, SPEC_FIELDS, TABLES_FIELDS, toSpec, toXminSpec, VERIFY_FIELDS, XMIN_FIELDS } from './spec-parse-fields.ts'
import { holdsSecret, looksLikeSecret } from './spec-parse-secrets.ts'
import type { OrderedShapes } from './replication.ts'
import type { RunningOptions, UnresolvedSpec, UnresolvedXminSpec } from './spec.ts'

/** Which run holds the input that is parsed: a refused secret stands in its history. */
export interface InputOrigin {
  /** For messages: `replicate`, `update retryFailed`. */
  readonly of: string
  /** null where Temporal does not keep a refused input (a rejected update). */
  readonly storedIn: { readonly workflowId: string; readonly runId: string } | null
}

/** A drop as parsed: the confirmation has been checked. */
export interface DropOrder {
  readonly spec: UnresolvedSpec
  readonly dropDestination: boolean
}

/** A verification as parsed. */
export interface VerifyOrder {
  readonly spec: UnresolvedSpec
  readonly repair: boolean
  readonly maxRowsPerSecond: number | null
}

const specSchema = z.strictObject(SPEC_FIELDS)
const dropSchema = z.strictObject({ ...SPEC_FIELDS, ...DROP_FIELDS })
const verifySchema = z.strictObject({ ...SPEC_FIELDS, ...VERIFY_FIELDS })
const xminSchema = z.strictObject(XMIN_FIELDS)
const retrySchema = z.strictObject(RETRY_FIELDS)
const tablesSchema = z.strictObject(TABLES_FIELDS)
const resyncSchema = z.strictObject(RESYNC_FIELDS)
const removeSchema = z.strictObject(REMOVE_FIELDS)
const approveSchema = z.strictObject(APPROVE_FIELDS)
const optionsSchema = z.strictObject(OPTIONS_FIELDS)
const emptySchema = z.strictObject({})

/** More would be noise: mending the first ones often mends the others. */
const MAX_SHOWN_ISSUES = 5

/**
 * Parses the replication spec of a workflow's input. Pure; runs in the workflow sandbox.
 *
 * Throws `InvalidInput` that names every wrong field (an unknown one with its nearest known name) and repeats no value.
 */
export function parseReplicationInput(input: unknown, origin: InputOrigin): UnresolvedSpec {
  const fields = parseObject(specSchema, input, origin)
  const spec = toSpec(fields)
  refuseMeaningless(spec, origin)
  return spec
}

/** Parses the input of `dropReplication`; `confirm` must be the slot's name. Throws as {@link parseReplicationInput} does. */
export function parseDropInput(input: unknown, origin: InputOrigin): DropOrder {
  const { confirm, dropDestination, ...fields } = parseObject(dropSchema, input, origin)
  if (confirm !== fields.slotName) {
    throw invalidInput(`${origin.of}: confirm is not the slot's name`, `set confirm to ${fields.slotName}, if that is the slot to drop`)
  }
  return { spec: toSpec(fields), dropDestination: dropDestination ?? false }
}

/** Parses the input of `verifyReplication`. Throws as {@link parseReplicationInput} does. */
export function parseVerifyInput(input: unknown, origin: InputOrigin): VerifyOrder {
  const { repair, maxRowsPerSecond, ...fields } = parseObject(verifySchema, input, origin)
  if (fields.reset === true) throw invalidInput(`${origin.of}: reset would throw away what is to be compared`, 'leave reset out')
  return { spec: toSpec(fields), repair: repair ?? false, maxRowsPerSecond: maxRowsPerSecond ?? null }
}

/** Parses the input of `syncByXmin`. Throws as {@link parseReplicationInput} does; what means a slot is refused with the reason. */
export function parseXminInput(input: unknown, origin: InputOrigin): UnresolvedXminSpec {
  refuseSecret(input, origin)
  const slotFields = typeof input === 'object' && input !== null ? Object.keys(input).filter((field) => Object.hasOwn(SLOT_FIELDS, field)) : []
  if (slotFields.length > 0) {
    throw invalidInput(
      `${origin.of} takes no ${slotFields.map((field) => `${field} (${SLOT_FIELDS[field] ?? ''})`).join(', no ')}`,
      `leave ${slotFields.join(', ')} out; replication through a slot is replicate or syncChanges`,
    )
  }
  return toXminSpec(parseObject(xminSchema, input ?? {}, origin))
}

/** Parses the input of update `retryFailed`: null = every failed table. */
export function parseRetryInput(input: unknown, origin: InputOrigin): readonly string[] | null {
  return parseObject(retrySchema, input ?? {}, origin).tableNames ?? null
}

/** Parses the input of update `resyncTables`: the tables that are meant, and the shapes that they shall have. */
export function parseResyncInput(input: unknown, origin: InputOrigin): { readonly tableNames: readonly string[]; readonly shapes?: OrderedShapes } {
  const { tableNames, writeMode, deleteMode } = parseObject(resyncSchema, input ?? {}, origin)
  refuseMeaningless({ writeMode: writeMode ?? {}, deleteMode: deleteMode ?? 'hard' }, origin)
  const shapes: OrderedShapes = { ...(writeMode == null ? {} : { writeMode }), ...(deleteMode == null ? {} : { deleteMode }) }
  return { tableNames, ...(Object.keys(shapes).length === 0 ? {} : { shapes }) }
}

/** Parses the input of update `addTables`: the tables that are meant. */
export function parseTablesInput(input: unknown, origin: InputOrigin): readonly string[] {
  return parseObject(tablesSchema, input ?? {}, origin).tableNames
}

/** Parses the input of update `removeTables`. */
export function parseRemoveInput(input: unknown, origin: InputOrigin): { readonly tableNames: readonly string[]; readonly dropDestination: boolean } {
  const { tableNames, dropDestination } = parseObject(removeSchema, input ?? {}, origin)
  return { tableNames, dropDestination: dropDestination ?? false }
}

/** Parses the input of update `approveSchemaChange`: the table that is meant. */
export function parseApproveInput(input: unknown, origin: InputOrigin): string {
  return parseObject(approveSchema, input ?? {}, origin).table
}

/** Parses the input of update `setOptions`: those that it names. Throws as {@link parseReplicationInput} does, and where it names none. */
export function parseOptionsInput(input: unknown, origin: InputOrigin): RunningOptions {
  const fields = parseObject(optionsSchema, input ?? {}, origin)
  const { targetBatchSize, flushSlot, schemaChanges, walBudgetBytes, spoolBudgetBytes } = fields
  const options: RunningOptions = {
    ...(typeof targetBatchSize === 'number' ? { targetBatchSize } : {}),
    ...(typeof flushSlot === 'boolean' ? { flushSlot } : {}),
    ...(typeof schemaChanges === 'string' ? { schemaChanges } : {}),
    ...(typeof walBudgetBytes === 'number' ? { walBudgetBytes } : {}),
    ...(typeof spoolBudgetBytes === 'number' ? { spoolBudgetBytes } : {}),
  }
  if (Object.keys(options).length === 0) throw invalidInput(`${origin.of} names no option`, `give it one or more of ${Object.keys(OPTIONS_FIELDS).join(', ')}`)
  return options
}

/** Checks the input of an update that needs nothing: `{}`, or none. */
export function parseEmptyInput(input: unknown, origin: InputOrigin): void {
  parseObject(emptySchema, input ?? {}, origin)
}

/**
 * Refuses arguments after the first: each workflow and update takes one JSON object, and what nobody reads must not look as if it counted.
 * The first one is parsed elsewhere; here it is only looked at for a credential, which comes before every other complaint.
 */
export function refuseMoreArguments([input, ...more]: readonly unknown[], origin: InputOrigin): void {
  if (more.length === 0) return
  refuseSecret([input, ...more], origin)
  throw invalidInput(`${origin.of} takes one JSON object, not ${more.length + 1} arguments`, 'put all fields into one object')
}

function parseObject<T extends z.ZodObject>(schema: T, input: unknown, origin: InputOrigin): z.output<T> {
  // First: no message below may repeat a part of an input that holds a credential.
  refuseSecret(input, origin)
  if (typeof input !== 'object' || input === null || Array.isArray(input)) {
    throw invalidInput(`${origin.of} takes one JSON object, not ${describeType(input)}`, `give it ${sampleOf(schema)}`)
  }
  const result = schema.safeParse(input)
  if (result.success) return result.data
  const problems = result.error.issues.flatMap((issue) => describeIssue(issue, schema))
  const shown = problems.slice(0, MAX_SHOWN_ISSUES)
  const more = problems.length - shown.length
  throw invalidInput(
    `${origin.of}: ${shown.join('; ')}${more > 0 ? `; and ${more} more` : ''}`,
    origin.of.startsWith('update ') ? 'correct the input and send the update again: nothing has changed' : 'correct the input and start again',
  )
}

function describeType(input: unknown): string {
  if (input === null || input === undefined) return 'nothing'
  if (Array.isArray(input)) return 'a list'
  return typeof input === 'string' ? 'a text' : `a ${typeof input}`
}

/** The least that the schema asks for, as it is typed. */
function sampleOf(schema: z.ZodObject): string {
  const required = Object.entries(schema.shape).filter(([, field]) => !z.safeParse(field, undefined).success)
  return required.length === 0 ? '{}' : `{${required.map(([name]) => `"${name}": "…"`).join(', ')}}`
}

function refuseSecret(input: unknown, origin: InputOrigin): void {
  if (!holdsSecret(input)) return
  const { storedIn } = origin
  const instead = "put credentials into the worker's replication.toml ([sources.*], [destinations.*]) and give only the section's name"
  throw invalidInput(
    `the input of ${origin.of} holds what looks like a connection string or a password` +
      (storedIn === null ? '' : ", and Temporal has stored this run's input"),
    storedIn === null ? instead : `delete the run, and the schedule if one started it: ${deleteCommand(storedIn)}; then ${instead}`,
  )
}

function deleteCommand({ workflowId, runId }: { readonly workflowId: string; readonly runId: string }): string {
  const shownId = looksLikeSecret(workflowId) ? '<workflow id>' : shellWord(workflowId)
  return `temporal workflow delete --workflow-id ${shownId} --run-id ${runId}`
}

function describeIssue(issue: z.core.$ZodIssue, schema: z.ZodObject): readonly string[] {
  const place = issue.path.map((part) => shownKey(String(part))).join('.')
  if (issue.code === 'unrecognized_keys') {
    const known = issue.path.length === 0 ? Object.keys(schema.shape) : ['dataType', 'precision', 'scale']
    return issue.keys.map((key) => {
      const near = nearestName(key, known)
      const hint = near === undefined ? (known.length === 0 ? '; there are none' : '') : `; the nearest known one is ${near}`
      return `${place === '' ? '' : `${place}.`}${shownKey(key)} is not a known field${hint}`
    })
  }
  if (issue.code === 'invalid_key') return [`${place} ${issue.issues[0]?.message ?? 'is not a name'}`]
  if (issue.code === 'invalid_union') {
    // The deepest complaint is about the form that the user had in mind.
    const deepest = issue.errors.flat().toSorted((a, b) => b.path.length - a.path.length)[0]
    if (deepest !== undefined && deepest.path.length > 0) return describeIssue({ ...deepest, path: [...issue.path, ...deepest.path] }, schema)
  }
  return [`${place === '' ? 'the input' : place} ${issue.message}`]
}

/** Names of fields and tables are shown, at a length that fits a line. */
function shownKey(key: string): string {
  return key.length <= 80 ? key : `${key.slice(0, 80)}…`
}

/** Options that have nothing to act on: whoever gives one expects something of it. */
function refuseMeaningless({ deleteMode, writeMode }: Pick<UnresolvedSpec, 'deleteMode' | 'writeMode'>, origin: InputOrigin): void {
  if (deleteMode !== 'soft' || typeof writeMode !== 'string' || writeMode === 'merge') return
  throw invalidInput(
    `${origin.of}: deleteMode soft marks the rows of merge tables, and writeMode is ${writeMode}`,
    `leave deleteMode out (${writeMode} keeps deleted rows anyway), or set writeMode to merge`,
  )
}

function invalidInput(message: string, remedy: string): DomainError {
  return new DomainError({ kind: 'InvalidInput', message, remedy })
}
