import type { Batch, Departure, Destination, Fence, TableRecord, TargetColumn } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import type { Lsn } from '../model/lsn.ts'
import { isAppendOnly } from '../model/shapes.ts'
import type { CatalogLook, SeenColumn, SeenTable, Source } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { tableKey, type TableSchema } from '../model/table-schema.ts'
import { hasColumns, haveOthersTheirNames, replicatedShape } from '../pipeline/schema-diff.ts'
import { comparePublished, hasOtherFile, hasOtherKey, hasUnsentValues, isRewritten, isSameStorage, isSuspect } from '../pipeline/storage-diff.ts'
import { judgeRename, sameTable, stageRename, targetNameOf } from './names.ts'
import { isAllowed, refusalOf, type SourceChange } from './schema-approval.ts'
import type { TableRuntime } from './table-runtime.ts'

/** A regular look comes so many times its own duration after the last one, so that very many tables do not keep the source busy. */
const REST_PER_LOOK = 100

/** After this time a newcomer that could not join is tried again: its name may be free. */
const IGNORED_MS = 10_000

export interface CatalogWatchOptions {
  readonly spec: ReplicationSpec
  readonly source: Source
  readonly tables: ReadonlyMap<number, TableRuntime>
  readonly appliedLsn: () => Lsn
  /** Stages something at the place of the stream that has been read; `onApplied` is called once it is in force. False while no stream is open. */
  readonly amend: (work: (batch: Batch) => void, onApplied: () => void) => boolean
  readonly destination: Destination
  readonly fence: Fence
  /** Serialises everything that changes records. */
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>
  /** Lets tables of the whole schema join. */
  readonly adopt: (oids: readonly number[]) => Promise<void>
  readonly warn: (warning: string) => void
  /** It may be settled now. */
  readonly onDone: () => void
  /** What looking again will not mend. */
  readonly onFailure: (error: unknown) => void
}

/** What the catalog says of a table that its record does not. */
type Finding =
  | { readonly tag: 'left'; readonly oid: number; readonly departure: Departure }
  | { readonly tag: 'renamed'; readonly oid: number; readonly seen: SeenTable }
  | { readonly tag: 'rewritten'; readonly oid: number; readonly seen: SeenTable }
  /** Its rows tell whether it was rewritten. */
  | { readonly tag: 'suspect'; readonly oid: number; readonly seen: SeenTable }
  | { readonly tag: 'rekeyed'; readonly oid: number; readonly seen: SeenTable }
  | { readonly tag: 'sentOtherwise'; readonly oid: number; readonly seen: SeenTable }
  | { readonly tag: 'stored'; readonly oid: number; readonly seen: SeenTable }
  | { readonly tag: 'new'; readonly oid: number }

/** Findings whose table does not hold, or will not hold, what the source has. */
type WrongRows = Extract<Finding, { readonly tag: keyof typeof WRONG_ROWS }>

/** What is wrong with a table's rows, for people. */
export const WRONG_ROWS = {
  rewritten: 'was rewritten at the source without its rows being sent',
  rekeyed: 'has another key at the source, which its changes do not tell',
  sentOtherwise: 'is published otherwise than before (other operations, another row filter, or taken out for a while)',
} as const

function isWrong(finding: Finding): finding is WrongRows {
  return finding.tag in WRONG_ROWS
}

interface Findings {
  /** Past everything that they tell of. */
  readonly lsn: Lsn
  readonly all: readonly Finding[]
}

/**
 * Finds out what the stream does not say: tables that were dropped, taken out of the publication, renamed without a change since, rewritten
 * without their rows being sent, published otherwise, or moved into the schema with their rows. The catalog is as of now and the stream may be hours behind; so a
 * finding counts only when everything before it has been applied **and** a second look finds the same.
 *
 * States: quiet → (look finds something) → waiting for the stream → (stream is there, looked again, staged) → in flight → (applied) → quiet.
 */
export class CatalogWatch {
  readonly #options: CatalogWatchOptions
  #pending: Findings | null = null
  readonly #inFlight = new Set<number>()
  /** Newcomers that are none of ours, or whose name is taken: until when. */
  readonly #ignored = new Map<number, number>()
  #running: Promise<void> | null = null
  #isClosed = false
  #restsUntilMs = 0
  /** Looks that are owed, and how many of them have been made. */
  #owed = 0
  #made = 0
  /** By oid, the horizon of the last look that saw the file that the record knows. */
  readonly #horizons = new Map<number, string>()
  /** Tables that had stopped when it was looked. */
  #unseen: readonly number[] = []

  constructor(options: CatalogWatchOptions) {
    this.#options = options
  }

  /** Nothing that has been found waits, and no look is owed. */
  get isSettled(): boolean {
    return !this.#isOwed && this.#pending === null && this.#inFlight.size === 0 && this.#running === null
  }

  /** A regular look, unless the last one took so long that it is too early. */
  pollRegularly(): void {
    if (performance.now() >= this.#restsUntilMs) this.poll()
  }

  /** Polls where there is something to do now that does not wait for the next regular look. */
  pollIfDue(): void {
    const isDue = this.#pending === null ? this.#isOwed : this.#options.appliedLsn() >= this.#pending.lsn
    if (isDue) this.poll()
  }

  /** Looks, or acts on what was found when its time has come. One at a time. */
  poll(): void {
    const { onDone, onFailure } = this.#options
    const onError = (error: unknown): void => {
      // Where the source is gone the stream tells; then it is looked again.
      if (!(error instanceof DomainError && error.isRetryable)) onFailure(error)
    }
    this.#running ??= this.#poll()
      .finally(() => {
        this.#running = null
      })
      .then(onDone, onError)
  }

  get #isOwed(): boolean {
    return this.#made < this.#owed || this.#unseen.some((oid) => this.#options.tables.get(oid)?.record.quarantine === null)
  }

  /** Nothing is written from now on. */
  close(): void {
    this.#isClosed = true
  }

  /** From now on nothing is settled until it has been looked again. */
  oweLook(): void {
    this.#owed++
  }

  async #poll(): Promise<void> {
    if (this.#pending === null) {
      this.#pending = await this.#look()
      return
    }
    if (this.#options.appliedLsn() < this.#pending.lsn) return
    const before = new Map(this.#pending.all.map((finding) => [nameOf(finding), finding]))
    const again = await this.#look()
    const confirmed = (again?.all ?? []).filter((finding) => before.has(nameOf(finding)))
    const judged: Finding[] = []
    const rest = again?.all.filter((finding) => !confirmed.includes(finding)) ?? []
    for (const finding of confirmed) {
      const told = finding.tag === 'suspect' ? await this.#judgeSuspect(finding) : finding
      // What is noted is as it was when the stream had not come so far: the rows that the second look is ahead of are still to come.
      const first = before.get(nameOf(finding))
      if (told === null) rest.push(finding)
      else judged.push('seen' in told && first !== undefined && 'seen' in first ? { ...told, seen: first.seen } : told)
    }
    await this.#act(judged)
    this.#pending = again === null || rest.length === 0 ? null : { ...again, all: rest }
  }

  async #look(): Promise<Findings | null> {
    const { source, spec, tables } = this.#options
    const owed = this.#owed
    const live = [...tables.values()].filter(({ record }) => record.state !== 'removed')
    const startMs = performance.now()
    const look = await source.look(live.map(({ record }) => record.oid), spec.tableNames === null ? spec.schemaName : null)
    const endMs = performance.now()
    this.#restsUntilMs = endMs + REST_PER_LOOK * (endMs - startMs)
    this.#made = owed
    this.#unseen = live.filter(({ record }) => record.quarantine !== null).map(({ record }) => record.oid)
    const all = this.#compare(look, live).filter(({ oid }) => !this.#inFlight.has(oid))
    return all.length === 0 ? null : { lsn: look.lsn, all }
  }

  #compare(look: CatalogLook, tables: readonly TableRuntime[]): readonly Finding[] {
    const seen = new Map(look.tables.map((table) => [table.oid, table]))
    const known = tables.flatMap((table) => this.#compareTable(table, seen.get(table.record.oid)))
    const nowMs = performance.now()
    return [...known, ...look.newcomers.filter((oid) => (this.#ignored.get(oid) ?? 0) <= nowMs).map((oid) => ({ tag: 'new', oid }) as const)]
  }

  #compareTable({ record, name }: TableRuntime, seen: SeenTable | undefined): readonly Finding[] {
    const { oid } = record
    // What is kept of a stopped table's changes comes first; once it has taken them it is looked at.
    if (record.quarantine !== null) return []
    if (seen?.isPublished !== true) return [{ tag: 'left', oid, departure: seen === undefined ? 'dropped' : 'unpublished' }]
    if (record.state === 'failed') return []
    const findings: Finding[] = []
    if (!sameTable(seen, name) || !sameTable(record.target, targetNameOf(this.#options.spec, seen))) findings.push({ tag: 'renamed', oid, seen })
    const isOther = (record.storage !== null && isRewritten(record.storage, seen.storage)) || hasUnsentValues(record, seen.storage) || haveOthersTheirNames(record.columns, seen.columns)
    const published = record.storage === null ? 'same' : comparePublished(record.storage, seen.storage)
    if (record.storage !== null && seen.storage.horizon !== undefined && !hasOtherFile(record.storage, seen.storage)) this.#horizons.set(oid, seen.storage.horizon)
    if (isOther) findings.push({ tag: 'rewritten', oid, seen })
    else if (record.storage !== null && !isAppendOnly(record) && hasOtherKey(record.storage, seen.storage)) findings.push({ tag: 'rekeyed', oid, seen })
    // A copy that is to be planned takes the publication as it is then.
    else if (published === 'otherwise' && record.state !== 'pending') findings.push({ tag: 'sentOtherwise', oid, seen })
    else if (record.storage !== null && isSuspect(record.storage, seen.storage)) findings.push({ tag: 'suspect', oid, seen })
    else if (record.storage === null || !isSameStorage(record.storage, seen.storage)) findings.push({ tag: 'stored', oid, seen })
    return findings
  }

  /** Null while its rows cannot be looked at (somebody has locked it): the others do not wait for it. */
  async #judgeSuspect({ oid, seen }: Extract<Finding, { readonly tag: 'suspect' }>): Promise<Finding | null> {
    const table = this.#options.tables.get(oid)
    const horizon = laterOf(this.#horizons.get(oid), table?.record.storage?.horizon)
    try {
      const isSent = horizon !== undefined && (await this.#options.source.hasSentRows(seen, { horizon, truncatedBy: table?.truncatedBy ?? null }))
      return { tag: isSent ? 'stored' : 'rewritten', oid, seen }
    } catch (error) {
      if (error instanceof DomainError && error.isRetryable) return null
      throw error
    }
  }

  async #act(findings: readonly Finding[]): Promise<void> {
    const { source, adopt, tables, spec } = this.#options
    const wrong = findings.filter(isWrong)
    const stored = findings.filter((finding) => finding.tag === 'stored')
    const isKept = ({ oid, tag }: WrongRows): boolean => {
      const record = tables.get(oid)?.record
      return record !== undefined && (isAppendOnly(record) || (tag === 'sentOtherwise' && spec.snapshotMode === 'never'))
    }
    const kept = wrong.filter(isKept)
    const noted = [...stored, ...kept].map(({ seen }) => seen)
    for (const seen of noted) this.#warnOfPublication(seen)
    if (noted.length > 0) await this.#note(noted)
    for (const { oid, tag } of kept) if (tag === 'rewritten') this.#warnOf(oid, `${WRONG_ROWS.rewritten}: what its history holds of them stays as it was sent`)
    const copied = wrong.filter((finding) => !isKept(finding))
    const reasons = new Map(copied.map(({ oid, tag }) => [oid, WRONG_ROWS[tag]]))
    const schemas = await source.describeTables(copied.map(({ oid }) => oid))
    const names = findings.filter((finding) => finding.tag === 'renamed' || finding.tag === 'left')
    const oids = [...names, ...schemas].map(({ oid }) => oid)
    const refusals = new Map<number, DomainError>()
    for (const finding of names) await this.#judge(finding.oid, refusals, async (table) => (finding.tag === 'renamed' ? judgeRename(this.#options, table, finding.seen) : null))
    for (const schema of schemas) await this.#judge(schema.oid, refusals, async (table) => this.#judgeCopy(table, schema))
    if (oids.length > 0) this.#stage(oids, (batch) => { this.#stageAll(batch, names, { schemas, reasons, refusals }) })
    const newcomers = findings.filter(({ tag }) => tag === 'new').map(({ oid }) => oid)
    if (newcomers.length === 0 || spec.tableNames !== null) return
    await adopt(newcomers)
    for (const oid of newcomers) {
      if ((tables.get(oid)?.record.state ?? 'removed') === 'removed') this.#ignored.set(oid, performance.now() + IGNORED_MS)
      else this.#ignored.delete(oid)
    }
  }

  /** Writes what nothing in the stream changes. */
  async #note(seen: readonly SeenTable[]): Promise<void> {
    const { tables, destination, fence, exclusive } = this.#options
    await exclusive(async () => {
      // The destination may be closed by now.
      if (this.#isClosed) return
      for (const { oid, storage, columns } of seen) {
        const table = tables.get(oid)
        if (table === undefined) continue
        const isExchanged = haveOthersTheirNames(table.record.columns, columns)
        const record: TableRecord = { ...table.record, storage, ...(isExchanged ? { columns: numberedAnew(table.record.columns, columns) } : {}) }
        await destination.saveTables(fence, [record])
        if (isExchanged) table.reshape(record)
        else table.update(record)
      }
    })
  }

  #stage(oids: readonly number[], work: (batch: Batch) => void): void {
    const isStaged = this.#options.amend(work, () => {
      for (const oid of oids) this.#inFlight.delete(oid)
    })
    if (isStaged) for (const oid of oids) this.#inFlight.add(oid)
  }

  async #judge(oid: number, refusals: Map<number, DomainError>, judge: (table: TableRuntime) => Promise<DomainError | null>): Promise<void> {
    const table = this.#options.tables.get(oid)
    const refusal = table === undefined ? null : await judge(table)
    if (refusal !== null) refusals.set(oid, refusal)
  }

  /** Rows that were written anew under the same columns are no change of the schema: they are wrong until they are copied. */
  async #judgeCopy(table: TableRuntime, schema: TableSchema): Promise<DomainError | null> {
    const { spec } = this.#options
    const { record } = table
    const change: SourceChange = { tag: 'copy', schema: replicatedShape(record, schema) }
    return hasColumns(change.schema, { columns: record.columns.filter(({ isDropped }) => !isDropped) }, record.hasColumnList) || isAllowed(spec, change, (fingerprint) => table.takeApproval(fingerprint)) ? null : refusalOf(this.#options, record, change)
  }

  #stageAll(batch: Batch, names: readonly Finding[], found: { readonly schemas: readonly TableSchema[]; readonly reasons: ReadonlyMap<number, string>; readonly refusals: ReadonlyMap<number, DomainError> }): void {
    const { tables, spec, warn } = this.#options
    const { schemas, reasons, refusals } = found
    for (const finding of names) {
      const table = tables.get(finding.oid)
      if (table === undefined) continue
      if (finding.tag === 'left') {
        batch.remove(table.batchTable, finding.departure)
        table.leave()
      } else if (finding.tag === 'renamed') stageRename(batch, table, { spec, name: finding.seen, warn, refusal: refusals.get(finding.oid) ?? null })
    }
    for (const schema of schemas) {
      const table = tables.get(schema.oid)
      const refusal = refusals.get(schema.oid)
      if (table !== undefined && refusal !== undefined) batch.fail(table.batchTable, refusal)
      if (table === undefined || refusal !== undefined) continue
      table.replaceSchema(batch, schema)
      this.#warnOf(schema.oid, `${reasons.get(schema.oid) ?? ''}: it is copied again`)
    }
  }

  /** Of a table that goes on as it is. */
  #warnOfPublication({ oid, storage }: SeenTable): void {
    const record = this.#options.tables.get(oid)?.record
    if (record?.storage == null || record.state === 'pending') return
    const { spec, warn } = this.#options
    const published = comparePublished(record.storage, storage)
    if (published === 'altered') {
      warn(`publication ${JSON.stringify(spec.publicationName)} was altered and sends the same operations as before: if it sent others for a while, what was written then is missing; let its tables be copied anew (resyncTables)`)
    } else if (published === 'otherwise') {
      this.#warnOf(oid, `${WRONG_ROWS.sentOtherwise}: ${isAppendOnly(record) ? 'what was not sent is not in its history' : 'what was not sent is missing; let it be copied anew (resyncTables)'}`)
    }
  }

  #warnOf(oid: number, text: string): void {
    const table = this.#options.tables.get(oid)
    if (table !== undefined) this.#options.warn(`${tableKey(table.name)} ${text}`)
  }
}

function laterOf(a: string | undefined, b: string | undefined): string | undefined {
  return a === undefined || (b !== undefined && BigInt(b) > BigInt(a)) ? b : a
}

/** The columns under their names, with the attribute numbers that these have now. */
function numberedAnew(columns: readonly TargetColumn[], present: readonly SeenColumn[]): readonly TargetColumn[] {
  const numbers = new Map(present.map(({ name, attributeNumber }) => [name, attributeNumber]))
  return columns.map((column) => (column.isDropped ? column : { ...column, attributeNumber: numbers.get(column.name) ?? column.attributeNumber }))
}

function nameOf(finding: Finding): string {
  const detail = finding.tag === 'renamed' ? tableKey(finding.seen) : finding.tag === 'left' ? finding.departure : ''
  return `${finding.tag} ${String(finding.oid)} ${detail}`
}
