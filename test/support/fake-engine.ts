import { DomainError } from '../../src/model/errors.ts'
import type {
  ChangeTablesRequest,
  ChangeTablesResult,
  DropRequest,
  InitializeRequest,
  InitializeResult,
  OperationContext,
  ReleaseRequest,
  ReplicationEngine,
  RetryRequest,
  SliceRequest,
  SliceResult,
  SpoolRequest,
  SpoolResult,
  XminRequest,
  XminResult,
} from '../../src/model/replication.ts'
import type { ReplicationSpec } from '../../src/model/spec.ts'
import type { ReplicationProgress, TableState } from '../../src/model/status.ts'
import type { VerifyProgress, VerifyRequest, VerifyResult } from '../../src/model/verification.ts'

/** What the engine was asked, in order. */
export interface EngineCall {
  readonly name: 'initialize' | 'recover' | 'slice' | 'release' | 'retryTables' | 'changeTables' | 'drop' | 'xmin' | 'verify' | 'spool'
  readonly owner: string
  readonly detail?: unknown
  readonly spec?: ReplicationSpec
}

/**
 * An engine without source and destination, for tests of what drives it. It keeps a position, table states and a claim for each slot,
 * as the contract says; a test sets its faults, and how long a slice takes.
 */
export class FakeEngine implements ReplicationEngine {
  readonly calls: EngineCall[] = []
  /** Thrown by the next calls of that name, in order, one each. */
  readonly faults: Partial<Record<EngineCall['name'], Error[]>> = {}
  /** A slice ends after this, even if more was allowed. */
  maxSliceMs = 300
  /** A commit takes this long: an abort is heard only between commits. */
  commitMs = 0
  /** Each call of a verification takes this long, and says how far it has come. */
  verifyMs = 0
  /** Ignores aborts and never ends: a process that hangs. */
  isHung = false
  /** Whether the last call that touched the slot left it held by this process. */
  isHeld = false
  owner: string | null = null
  position = 0x1000
  tables: Record<string, TableState> = { 'public.orders': 'pending', 'public.items': 'pending' }
  running = 0
  maxRunning = 0

  async initialize({ spec }: InitializeRequest, context: OperationContext): Promise<InitializeResult> {
    return this.#prepare('initialize', spec, context)
  }

  async recover({ spec }: InitializeRequest, context: OperationContext): Promise<InitializeResult> {
    return this.#prepare('recover', spec, context)
  }

  async #prepare(name: 'initialize' | 'recover', spec: ReplicationSpec, context: OperationContext): Promise<InitializeResult> {
    return this.#call({ name, owner: context.owner, detail: { reset: spec.reset } }, async () => {
      await this.#claim(context)
      return {
        slotName: spec.slotName,
        publicationName: spec.publicationName,
        consistentPoint: lsn(this.position),
        created: { slot: true, publication: true },
        tables: Object.fromEntries(Object.keys(this.tables).map((table) => [table, { key: ['id'], replicaIdentity: 'default' }])),
        warnings: [name === 'recover' ? 'a warning of recovery' : 'a warning of init'],
        progress: this.#progress(),
      }
    })
  }

  async runSlice(request: SliceRequest, context: OperationContext): Promise<SliceResult> {
    return this.#call({ name: 'slice', owner: context.owner, detail: { mode: request.mode, reset: request.spec.reset }, spec: request.spec }, async () => {
      await this.#claim(context)
      const from = this.position
      const copied: Record<string, { rows: number }> = {}
      for (const [table, state] of Object.entries(this.tables)) {
        if (state === 'pending') {
          this.tables[table] = 'streaming'
          copied[table] = { rows: 10 }
        }
      }
      const isBounded = request.mode === 'copy' || request.untilLsn !== null
      const endsAt = Date.now() + (isBounded ? 0 : Math.min(this.maxSliceMs, request.maxIdleMs))
      while (this.isHung || (Date.now() < endsAt && !context.signal.aborted)) await pause(5)
      await pause(this.commitMs)
      this.position += 0x10
      const result: SliceResult = {
        progress: this.#progress(),
        ended: isBounded ? 'done' : context.signal.aborted ? 'aborted' : 'time',
        hasTablesToCopy: false,
        transactions: 1,
        changes: {},
        copied,
        fromLsn: lsn(from),
        toLsn: lsn(this.position),
        untilLsn: request.untilLsn === null ? null : lsn(this.position),
        hasWalBudget: request.spec.walBudgetBytes !== null,
      }
      return result
    })
  }

  async release({ owner, keepClaim }: ReleaseRequest): Promise<void> {
    return this.#call({ name: 'release', owner, detail: { keepClaim: keepClaim ?? false } }, async () => {
      this.isHeld = false
      if (keepClaim !== true && this.owner === owner) this.owner = null
    })
  }

  async retryTables({ owner, tableNames }: RetryRequest): Promise<void> {
    return this.#call({ name: 'retryTables', owner, detail: tableNames }, async () => {
      for (const name of tableNames ?? []) {
        if (!(`public.${name}` in this.tables)) {
          throw new DomainError({ kind: 'InvalidInput', message: `there is no table ${name}`, remedy: 'name a replicated table' })
        }
      }
      for (const [table, state] of Object.entries(this.tables)) if (state === 'failed') this.tables[table] = 'pending'
    })
  }

  async changeTables({ order }: ChangeTablesRequest, context: OperationContext): Promise<ChangeTablesResult> {
    return this.#call({ name: 'changeTables', owner: context.owner, detail: order }, async () => {
      await this.#claim(context)
      await pause(this.commitMs)
      for (const name of order.tableNames) {
        if (name === 'nowhere') throw new DomainError({ kind: 'InvalidInput', message: `there is no table ${name}`, remedy: 'Did you mean "orders"?' })
        this.tables[`public.${name}`] = order.tag === 'remove' ? 'removed' : 'pending'
      }
      return { tables: this.#progress().tables, warnings: [`a warning of ${order.tag}`] }
    })
  }

  async spool({ spec, maxMs }: SpoolRequest, context: OperationContext): Promise<SpoolResult> {
    return this.#call({ name: 'spool', owner: context.owner, detail: { maxMs }, spec }, async () => {
      const { asOf, confirmedFlushLsn, sourceLsn } = this.#progress()
      const known = { asOf, confirmedFlushLsn, sourceLsn, retainedWalBytes: 77, warnings: ['a warning of the spool'] }
      if (spec.walBudgetBytes === null) return { ...known, ended: 'noBudget' }
      const endsAt = Date.now() + Math.min(this.maxSliceMs, maxMs)
      while (Date.now() < endsAt && !context.signal.aborted) await pause(5)
      return { ...known, ended: context.signal.aborted ? 'aborted' : 'time' }
    })
  }

  async drop(request: DropRequest, context: OperationContext): Promise<{ readonly dropped: readonly string[] }> {
    return this.#call({ name: 'drop', owner: context.owner, detail: request }, async () => {
      this.owner = null
      return { dropped: [`slot ${request.slotName}`, `publication ${request.publicationName}`] }
    })
  }

  async syncByXmin(request: XminRequest, context: OperationContext): Promise<XminResult> {
    return this.#call({ name: 'xmin', owner: context.owner, detail: request.spec }, async () =>
      Promise.resolve({ ended: 'done', tables: { 'public.orders': { rows: 10, watermark: '733' } }, failed: {}, warnings: ['deletes are not seen'] }),
    )
  }

  async verify(request: VerifyRequest, context: OperationContext): Promise<VerifyResult> {
    const { spec, repair, maxRowsPerSecond, progress } = request
    return this.#call({ name: 'verify', owner: context.owner, detail: { repair, maxRowsPerSecond, isFirst: progress === null }, spec }, async () => {
      const table = { compared: 10, different: 1, repaired: repair ? 1 : 0 }
      const differences = [{ kind: 'changed', key: ['7'] }] as const
      const compared: VerifyProgress = { lsn: lsn(this.position), tables: { 'public.orders': table }, differences: { 'public.orders': differences }, notCompared: { 'public.items': 'it has stopped' }, warnings: ['a warning of it'], done: [1], current: null }
      context.report({ activity: `comparing public.orders: 5 of about 10 rows, ${progress === null ? '0' : '1'} differ, about 3 s left` })
      await pause(this.verifyMs)
      return Promise.resolve({ ended: progress === null ? 'time' : 'done', progress: compared })
    })
  }

  /** Names of the calls since the beginning, without slices, for comparing. */
  namesOf(name: EngineCall['name']): readonly EngineCall[] {
    return this.calls.filter((call) => call.name === name)
  }

  async #call<T>(call: EngineCall, run: () => Promise<T>): Promise<T> {
    this.calls.push(call)
    this.running += 1
    this.maxRunning = Math.max(this.maxRunning, this.running)
    try {
      const fault = this.faults[call.name]?.shift()
      if (fault !== undefined) throw fault
      return await run()
    } finally {
      this.running -= 1
    }
  }

  async #claim(context: OperationContext): Promise<void> {
    if (this.owner !== null && this.owner !== context.owner && (await context.isWorkflowOpen(this.owner))) {
      throw new DomainError({
        kind: 'AlreadyReplicating',
        message: `workflow ${this.owner} replicates this slot`,
        remedy: 'stop it first',
      })
    }
    this.owner = context.owner
    this.isHeld = true
    context.report({ activity: 'claimed', progress: this.#progress() })
  }

  #progress(): ReplicationProgress {
    return {
      asOf: new Date().toISOString(),
      appliedLsn: lsn(this.position),
      confirmedFlushLsn: lsn(this.position),
      sourceLsn: lsn(this.position),
      lagBytes: 0,
      lagMs: 0,
      retainedWalBytes: 0,
      tables: Object.fromEntries(
        Object.entries(this.tables).map(([table, state]) => [
          table,
          {
            ...{ state, snapshotRows: 10, inserts: this.position - 0x1000, updates: 0, deletes: 0, truncates: 0, lastCommitLsn: null },
            ...(state === 'failed' ? { error: { type: 'UnrepresentableValue', message: 'a value does not fit', remedy: 'widen it' } as const } : {}),
          },
        ]),
      ),
      warnings: ['a warning of the stream'],
    }
  }
}

/** A fault that time mends. */
export function sourceDown(): DomainError {
  return new DomainError({ kind: 'SourceUnavailable', message: 'the source refuses connections', remedy: 'start it' })
}

/** A fault that somebody must mend. */
export function slotLost(): DomainError {
  return new DomainError({ kind: 'SlotLost', message: 'slot shop_slot has lost its WAL', remedy: 'update recover' })
}

function lsn(position: number): string {
  return `0/${position.toString(16).toUpperCase()}`
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
