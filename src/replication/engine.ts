import type { Destination, PipelineKey, PipelineState } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { parseLsn } from '../model/lsn.ts'
import type {
  ChangeTablesRequest, ChangeTablesResult, DropRequest, InitializeRequest, InitializeResult, LiveProgress, OperationContext, RecoverRequest, ReleaseRequest, ReplicationEngine, RetryRequest,
  SliceRequest, SliceResult, SlotFigures, SpoolRequest, SpoolResult, XminRequest, XminResult,
} from '../model/replication.ts' // prettier-ignore
import { withoutJoined, withoutTables } from '../model/settled-warnings.ts'
import type { CatalogLook, Source } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { tableKey } from '../model/table-schema.ts'
import type { VerifyRequest, VerifyResult } from '../model/verification.ts'
import type { SourceCredentials } from '../postgres/credentials.ts'
import { canKeepSlot } from '../postgres/check-slot.ts'
import { dropSource } from '../postgres/drop.ts'
import { foreseeInit, initializeSource } from '../postgres/initialize.ts'
import { readNotedDestination } from '../postgres/note-lookup.ts'
import { preflightSource } from '../postgres/preflight.ts'
import type { SourceRequest } from '../postgres/source-request.ts'
import { createSource } from '../postgres/source.ts'
import { amendmentOf } from './amendment.ts'
import { fenceOf, requireOwner } from './owner.ts'
import { progressOf, transactionHolders } from './progress.ts'
import { behindGap, canBeDecoded, inspectLostSlot, recoveryWarnings } from './recover.ts'
import { notInitialized, notThere, isSlotWhole, requireSameSource, requireSlot, slotLost } from './refusals.ts'
import { adoptTable, closeGaps, registerTables, registrationsOf } from './registration.ts'
import { tablesToRetry, toGoOn } from './retry.ts'
import { findPipelineElsewhere, type Destinations } from './served-elsewhere.ts'
import { slotFiguresOf, SpoolSlice } from './spool-slice.ts'
import { sourceRequestOf } from './source-request-of.ts'
import { Spools } from './spools.ts'
import { SlotSession } from './slot-session.ts'
import { verify } from './verify-engine.ts'
import { syncByXmin } from './xmin-engine.ts'
import { carryOut } from './table-orders.ts'

/** What the composition root gives the engine: names become connections here, and nowhere else. */
export interface EngineDependencies extends Destinations {
  /** Throws `InvalidInput` for an unknown name. The same object while they are the same: others make sessions connect anew. */
  readonly credentialsOf: (sourceName: string) => SourceCredentials
  /** Are slots at that source made as failover slots? No by default. */
  readonly makesFailoverSlots?: (sourceName: string) => boolean
  /** As the destination's own, without opening it. */
  readonly spoolFolder: (destinationName: string, key: PipelineKey) => string
  /** The most that a stopped table's changes may take; by default 1 GiB. */
  readonly tableSpoolBytes?: number
}

/** Stands for a destination that is not there yet: a slot that is served into any other must not be taken. */
const NO_DESTINATION = 'none'

/** The engine of one worker process: see the contract in model/replication.ts. Sessions live from slice to slice, as a cache. */
export function createEngine(dependencies: EngineDependencies): ReplicationEngine {
  return new Engine(dependencies)
}

class Engine implements ReplicationEngine {
  readonly #dependencies: EngineDependencies
  readonly #sessions = new Map<string, SlotSession>()
  /** What each has connected with. */
  readonly #credentials = new WeakMap<SlotSession, SourceCredentials>()
  /** Warnings of init, shown as long as this process lives; the workflow keeps them beyond. */
  readonly #warnings = new Map<string, readonly string[]>()

  constructor(dependencies: EngineDependencies) {
    this.#dependencies = dependencies
  }

  async initialize({ spec }: InitializeRequest, context: OperationContext): Promise<InitializeResult> {
    const key = keyOf(spec)
    const credentials = this.#dependencies.credentialsOf(spec.source)
    // A first look with nothing created at all; a destination that is there knows more, and is asked below.
    if (!this.#dependencies.hasDestination(spec.destination)) {
      await this.#requireNotServedElsewhere(spec, context)
      await preflightSource(credentials, { ...this.#requestOf(spec, null, null), destinationId: NO_DESTINATION })
    }
    const destination = await this.#dependencies.openDestination(spec.destination)
    try {
      const before = await destination.loadPipeline(key)
      await requireOwner(before, context)
      if (before?.appliedLsn == null) await this.#requireNotServedElsewhere(spec, context)
      // Only now: a refused start changes nothing, not even for a moment.
      await this.#closeSession(spec)
      const inspection = await preflightSource(credentials, this.#requestOf(spec, destination, before))
      if (!spec.reset && before?.appliedLsn != null && inspection.slot === null) throw slotLost(spec, 'does not exist any more')
      // What the destination refuses, too, is refused before anything is made or thrown away.
      const foreseen = foreseeInit(inspection, this.#requestOf(spec, destination, before))
      await destination.check(key, registrationsOf(spec, { ...foreseen, otherTables: amendmentOf(spec, spec.reset ? null : before).removed }, before?.tables ?? []), { startsAnew: spec.reset })
      let state = await destination.claim(key, context.owner, before?.owner ?? null)
      if (spec.reset) {
        await destination.dropPipeline(key, true)
        state = await destination.claim(key, context.owner, null)
      }
      const gaps = spec.reset ? [] : await closeGaps({ destination, fence: fenceOf(key, state), spec, tables: state.tables, inspection })
      if (gaps.length > 0) state = { ...state, tables: state.tables.map((table) => gaps.find(({ oid }) => oid === table.oid) ?? table) }
      const copiedAgain = gaps.map(({ source }) => `${tableKey(source)} was not in the publication any more: it is published again and copied anew`)
      return await this.#register({ spec, destination, state, request: this.#requestOf(spec, destination, state), warningsOf: () => copiedAgain }, context)
    } finally {
      await destination.close()
    }
  }

  async recover({ spec: given, onlySourceDiffered = false }: RecoverRequest, context: OperationContext): Promise<InitializeResult> {
    const spec = { ...given, reset: false }
    return (await this.#recoverLost(spec, onlySourceDiffered, context)) ?? this.initialize({ spec }, context)
  }

  /** Null where the slot is not lost: nothing is changed then. */
  async #recoverLost(spec: ReplicationSpec, onlySourceDiffered: boolean, context: OperationContext): Promise<InitializeResult | null> {
    const key = keyOf(spec)
    const credentials = this.#dependencies.credentialsOf(spec.source)
    if (!this.#dependencies.hasDestination(spec.destination)) throw await this.#missingState(spec, null)
    return this.#withDestination(spec.destination, async (destination) => {
      const before = await destination.loadPipeline(key)
      if (before?.appliedLsn == null) throw await this.#missingState(spec, destination)
      await requireOwner(before, context)
      await this.#closeSession(spec)
      if (await this.#isWhole(spec, destination, { state: before, onlySourceDiffered })) return null
      const anew = { ...this.#requestOf(spec, destination, before), recovers: true }
      const inspection = await preflightSource(credentials, anew)
      const lost = await withSource(credentials, spec, async (source) => inspectLostSlot(source, spec, before))
      const request = { ...anew, keepsSlot: onlySourceDiffered && !lost.isSameSource && canKeepSlot(inspection, lost.fromLsn) }
      const foreseen = foreseeInit(inspection, request)
      const oids = new Set(lost.strangers.map(({ oid }) => oid))
      const registrations = registrationsOf(spec, { ...foreseen, otherTables: amendmentOf(spec, before).removed }, before.tables)
      await destination.check(key, registrations.filter(({ source }) => !oids.has(source.oid)), { startsAnew: false })
      const claimed = await destination.claim(key, context.owner, before.owner)
      const fence = fenceOf(key, claimed)
      for (const table of claimed.tables) if (table.state !== 'removed' && oids.has(table.oid)) await destination.removeTable(fence, table, 'dropped')
      // Before the slot, and long before the position: a table that goes on must be known as one that misses something.
      await destination.saveTables(fence, claimed.tables.filter(({ oid }) => !oids.has(oid)).map((table) => behindGap(table, { ...lost, schemas: foreseen.tables })))
      const state = (await destination.loadPipeline(key)) ?? claimed
      return this.#register({ spec, destination, state, request, warningsOf: (consistentPoint) => recoveryWarnings(lost, before.tables, { consistentPoint, keepsSlot: request.keepsSlot, snapshotMode: spec.snapshotMode }) }, context)
    })
  }

  /** See {@link isSlotWhole} and {@link canBeDecoded}; a slot without its publication is lost, too. */
  async #isWhole(spec: ReplicationSpec, destination: Destination, { state, onlySourceDiffered }: { readonly state: PipelineState; readonly onlySourceDiffered: boolean }): Promise<boolean> {
    const credentials = this.#dependencies.credentialsOf(spec.source)
    const isWhole = await withSource(credentials, spec, async (source) =>
      isSlotWhole(source, spec, { state, spools: new Spools(destination.spoolFolder(keyOf(spec)), await source.identify()), onlySourceDiffered }))
    if (!isWhole) return false
    return preflightSource(credentials, this.#requestOf(spec, destination, state)).then((inspection) => canBeDecoded(inspection, state, onlySourceDiffered), (error: unknown) => {
      if (error instanceof DomainError && error.kind === 'SlotLost') return false
      throw error
    })
  }

  /** Makes what is missing at the source, then brings the destination to it: records and, behind a new slot, the position. */
  async #register(
    { spec, destination, state, request, warningsOf }: { readonly spec: ReplicationSpec; readonly destination: Destination; readonly state: PipelineState; readonly request: SourceRequest; readonly warningsOf: (consistentPoint: string) => readonly string[] },
    context: OperationContext,
  ): Promise<InitializeResult> {
    const key = keyOf(spec)
    const credentials = this.#dependencies.credentialsOf(spec.source)
    const init = await initializeSource(credentials, request, {
      onWaiting: (pids, prepared) => {
        context.report({ activity: `creating the slot waits for transactions to end: ${transactionHolders(pids, prepared)}` })
      },
      signal: context.signal,
    })
    const registered = await registerTables({ destination, fence: fenceOf(key, state), spec, init, state, isRecovery: request.recovers === true, look: async (oids) => lookOnce(credentials, spec, oids) })
    const warnings = [...init.warnings, ...registered.warnings, ...warningsOf(init.consistentPoint)]
    this.#warnings.set(JSON.stringify(key), warnings)
    const appliedLsn = request.recovers === true ? null : state.appliedLsn
    return {
      slotName: spec.slotName,
      publicationName: spec.publicationName,
      consistentPoint: init.consistentPoint,
      created: init.created,
      tables: Object.fromEntries(init.tables.map((table) => [tableKey(table), { key: table.key, replicaIdentity: table.replicaIdentity }])),
      warnings,
      progress: progressOf(registered.records, { appliedLsn: appliedLsn ?? parseLsn(init.consistentPoint), health: null, lagMs: null, warnings }),
    }
  }

  async runSlice(request: SliceRequest, context: OperationContext): Promise<SliceResult> {
    const name = JSON.stringify(keyOf(request.spec))
    let session = this.#sessions.get(name)
    if (session !== undefined && (session.isClosed || session.fence.owner !== context.owner)) {
      if (!session.isClosed) await requireOwner({ key: keyOf(request.spec), owner: session.fence.owner }, context)
      await session.close()
      session = undefined
    }
    const credentials = this.#dependencies.credentialsOf(request.spec.source)
    if (session !== undefined && (!session.hasOptionsOf(request.spec) || this.#credentials.get(session) !== credentials)) {
      await this.#closeSession(request.spec)
      session = undefined
    }
    if (session === undefined) {
      session = await this.#openSession(request.spec, context)
      this.#sessions.set(name, session)
      this.#credentials.set(session, credentials)
      context.observe({ tag: 'sessionOpened' })
    }
    const { warnings: known = [] } = request
    const withKnown = ({ progress, ...live }: LiveProgress): LiveProgress =>
      progress === undefined ? live : { ...live, progress: { ...progress, warnings: [...new Set([...withoutJoined(known, progress.tables), ...progress.warnings])] } }
    return session.run(request, { ...context, report: (live) => { context.report(withKnown(live)) } })
  }

  async #openSession(spec: ReplicationSpec, context: OperationContext): Promise<SlotSession> {
    const key = keyOf(spec)
    const source = createSource(this.#dependencies.credentialsOf(spec.source), spec.publicationName)
    let destination: Destination | null = null
    let spools: Spools | null = null
    try {
      if (!this.#dependencies.hasDestination(spec.destination)) throw await this.#missingState(spec, null)
      destination = await this.#dependencies.openDestination(spec.destination)
      const before = await destination.loadPipeline(key)
      if (before?.appliedLsn == null) throw await this.#missingState(spec, destination)
      await requireOwner(before, context)
      const identity = await source.identify()
      requireSameSource(before, identity)
      spools = new Spools(destination.spoolFolder(key), identity, this.#dependencies.tableSpoolBytes)
      await requireSlot(source, spec, { state: before, spools })
      const state = await destination.claim(key, context.owner, before.owner)
      const fence = fenceOf(key, state)
      const open = destination
      const lost = spools.open(state.tables)
      if (lost.length > 0) await destination.saveTables(fence, lost)
      return new SlotSession({
        spec,
        source,
        destination,
        fence,
        state: { ...state, tables: state.tables.map((table) => lost.find(({ oid }) => oid === table.oid) ?? table) },
        spools,
        adoptTable: async (schema, tables) => adoptTable({ destination: open, source, fence, spec, identity: before.identity, schema, tables, removedTables: amendmentOf(spec, before).removed }),
        warnings: this.#warnings.get(JSON.stringify(key)) ?? [],
      })
    } catch (error) {
      await source.close()
      spools?.close()
      await destination?.close()
      throw error
    }
  }

  /** The destination knows nothing of the slot: was it never initialized, or is this not the destination that the source's note names any more? */
  async #missingState(spec: ReplicationSpec, destination: Destination | null): Promise<DomainError> {
    const request = { ...this.#requestOf(spec, destination, null), reset: false, destinationId: destination?.id ?? 'none' }
    await preflightSource(this.#dependencies.credentialsOf(spec.source), request)
    return notInitialized(spec)
  }

  async release({ spec, owner, keepClaim }: ReleaseRequest): Promise<void> {
    if (this.#sessionOf(spec)?.fence.owner === owner) await this.#closeSession(spec)
    if (keepClaim === true || !this.#dependencies.hasDestination(spec.destination)) return
    await this.#withDestination(spec.destination, async (destination) => destination.release(keyOf(spec), owner))
  }

  async retryTables({ spec, owner, tableNames }: RetryRequest): Promise<void> {
    await this.#withDestination(spec.destination, async (destination) => {
      const key = keyOf(spec)
      const before = await destination.loadPipeline(key)
      if (before === null || (before.owner !== null && before.owner !== owner)) return
      const order = { tableNames, schemaName: spec.schemaName }
      if (tablesToRetry(before.tables, order).length === 0) return
      await this.#closeSession(spec)
      const state = await destination.claim(key, owner, before.owner)
      await destination.saveTables(fenceOf(key, state), tablesToRetry(state.tables, order).map(toGoOn))
    })
  }

  async changeTables({ spec, order }: ChangeTablesRequest, context: OperationContext): Promise<ChangeTablesResult> {
    const credentials = this.#dependencies.credentialsOf(spec.source)
    if (!this.#dependencies.hasDestination(spec.destination)) throw await this.#missingState(spec, null)
    return this.#withDestination(spec.destination, async (destination) => {
      const key = keyOf(spec)
      const state = await destination.loadPipeline(key)
      if (state?.appliedLsn == null) throw await this.#missingState(spec, destination)
      await requireOwner(state, context)
      const result = await carryOut(order, {
        spec,
        credentials,
        destination,
        state,
        request: this.#requestOf(spec, destination, state),
        context,
        takeOver: async () => {
          await this.#closeSession(spec)
          const claimed = await destination.claim(key, context.owner, state.owner)
          return { state: claimed, fence: fenceOf(key, claimed) }
        },
        look: async (oids) => lookOnce(credentials, spec, oids),
      })
      const name = JSON.stringify(key)
      this.#warnings.set(name, withoutTables(this.#warnings.get(name) ?? [], result.about ?? []))
      return result
    })
  }

  async spool(request: SpoolRequest, context: OperationContext): Promise<SpoolResult> {
    const { spec } = request
    const key = keyOf(spec)
    const session = this.#sessionOf(spec)
    if (session !== undefined) await requireOwner({ key, owner: session.fence.owner }, context)
    await this.#closeSession(spec)
    // A destination that is not where it should be may be on a disk that is not there: files beside it would be of no use.
    if (!this.#dependencies.hasDestination(spec.destination)) throw notThere(spec)
    const source = createSource(this.#dependencies.credentialsOf(spec.source), spec.publicationName)
    try {
      const folder = this.#dependencies.spoolFolder(spec.destination, key)
      const spools = new Spools(folder, await source.identify())
      const live: { activity: string; slot?: SlotFigures } = { activity: 'watching the slot' }
      const report = (): void => { context.report({ ...live }) }
      return await new SpoolSlice(request, {
        source,
        spool: spools.stream,
        stagingFolder: folder,
        signal: context.signal,
        onActivity: (activity) => { live.activity = activity; report() },
        onLook: (health) => { live.slot = slotFiguresOf(health, spools.byteCount); report() },
      }).run()
    } finally {
      await source.close()
    }
  }

  async drop(request: DropRequest, context: OperationContext): Promise<{ readonly dropped: readonly string[] }> {
    const key = { source: request.source, slotName: request.slotName }
    const credentials = this.#dependencies.credentialsOf(request.source)
    if (!this.#dependencies.hasDestination(request.destination)) {
      await this.#requireNotServedElsewhere(request, context)
      return { dropped: await dropSource(credentials, request) }
    }
    return this.#withDestination(request.destination, async (destination) => {
      const state = await destination.loadPipeline(key)
      await requireOwner(state, context)
      if (state === null) await this.#requireNotServedElsewhere(request, context)
      requirePublication(state, request)
      await this.#closeSession(request)
      const dropped = [...(await dropSource(credentials, request))]
      dropped.push(...(await destination.dropPipeline(key, request.dropDestination)))
      return { dropped }
    })
  }

  async verify(request: VerifyRequest, context: OperationContext): Promise<VerifyResult> {
    const { spec } = request
    const credentials = this.#dependencies.credentialsOf(spec.source)
    if (!this.#dependencies.hasDestination(spec.destination)) throw await this.#missingState(spec, null)
    return this.#withDestination(spec.destination, async (destination) =>
      verify(
        {
          credentials,
          destination,
          key: keyOf(spec),
          session: () => this.#sessionOf(spec),
          runSlice: async (slice, sliceContext) => this.runSlice(slice, sliceContext),
          missingState: async () => this.#missingState(spec, destination),
        },
        request,
        context,
      ),
    )
  }

  async syncByXmin(request: XminRequest, context: OperationContext): Promise<XminResult> {
    return syncByXmin(this.#dependencies, request, context)
  }

  /** The slot may be served into another destination, by a workflow that is open and paused: nothing at the source shows that. */
  async #requireNotServedElsewhere(spec: Pick<ReplicationSpec, 'source' | 'destination' | 'slotName'>, context: OperationContext): Promise<void> {
    const key = keyOf(spec)
    const destinationId = await readNotedDestination(this.#dependencies.credentialsOf(spec.source), spec.slotName)
    if (destinationId === null) return
    await requireOwner(await findPipelineElsewhere(this.#dependencies, { key, destinationId, except: spec.destination }), context)
  }

  async #withDestination<T>(name: string, work: (destination: Destination) => Promise<T>): Promise<T> {
    const destination = await this.#dependencies.openDestination(name)
    try {
      return await work(destination)
    } finally {
      await destination.close()
    }
  }

  #requestOf(spec: ReplicationSpec, destination: Destination | null, state: PipelineState | null): SourceRequest {
    return { ...sourceRequestOf(spec, destination?.id ?? null, state), makesFailoverSlot: this.#dependencies.makesFailoverSlots?.(spec.source) === true }
  }

  #sessionOf(spec: Pick<ReplicationSpec, 'source' | 'slotName'>): SlotSession | undefined {
    return this.#sessions.get(JSON.stringify(keyOf(spec)))
  }

  async #closeSession(spec: Pick<ReplicationSpec, 'source' | 'slotName'>): Promise<void> {
    const name = JSON.stringify(keyOf(spec))
    const session = this.#sessions.get(name)
    this.#sessions.delete(name)
    await session?.close()
  }
}

async function lookOnce(credentials: SourceCredentials, spec: ReplicationSpec, oids: readonly number[]): Promise<CatalogLook> {
  return withSource(credentials, spec, async (source) => source.look(oids, null))
}

async function withSource<T>(credentials: SourceCredentials, spec: ReplicationSpec, work: (source: Source) => Promise<T>): Promise<T> {
  const source = createSource(credentials, spec.publicationName)
  try {
    return await work(source)
  } finally {
    await source.close()
  }
}

function keyOf(spec: Pick<ReplicationSpec, 'source' | 'slotName'>): PipelineKey {
  return { source: spec.source, slotName: spec.slotName }
}

/** Half of a replication would stay behind under the right name, and nobody would know of it. */
function requirePublication(state: PipelineState | null, { slotName, publicationName }: DropRequest): void {
  const known = state?.publicationName ?? null
  if (known === null || known === publicationName) return
  throw new DomainError({
    kind: 'InvalidInput',
    message: `slot ${slotName} is served through publication ${JSON.stringify(known)}, not ${JSON.stringify(publicationName)}: nothing was dropped`,
    remedy: `set publicationName to ${JSON.stringify(known)}`,
  })
}
