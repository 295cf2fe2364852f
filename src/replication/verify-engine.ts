import { setTimeout as sleep } from 'node:timers/promises'
import type { Destination, PipelineKey, PipelineState, TableRecord } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { formatLsn, type Lsn } from '../model/lsn.ts'
import type { OperationContext, SliceRequest, SliceResult } from '../model/replication.ts'
import type { Source } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { NOTHING_VERIFIED, type VerifyProgress, type VerifyRequest, type VerifyResult } from '../model/verification.ts'
import { differentSource } from '../postgres/check-identity.ts'
import type { SourceCredentials } from '../postgres/credentials.ts'
import { createSource } from '../postgres/source.ts'
import { amendmentOf } from './amendment.ts'
import { namedTables } from './named-tables.ts'
import type { SlotSession } from './slot-session.ts'
import { Verification } from './verification.ts'

/** What a verification needs of the engine that it runs in. */
export interface VerifyDependencies {
  readonly credentials: SourceCredentials
  readonly destination: Destination
  readonly key: PipelineKey
  /** The session of the slot in this process, whoever's it is. */
  readonly session: () => SlotSession | undefined
  /** Streams for a while, as the owner of the slot. */
  readonly runSlice: (request: SliceRequest, context: OperationContext) => Promise<SliceResult>
  /** The destination knows nothing of the slot. */
  readonly missingState: () => Promise<DomainError>
}

const ASK_POSITION_MS = 20
/** A destination that another process writes tells its position by its checkpoint. */
const READ_CHECKPOINT_MS = 500
/** How often it is asked whether whoever streams is still there. */
const ASK_OWNER_MS = 5_000
const SLICE_MS = 600_000

/** Nobody streams any more: the next slice does it itself. */
class StreamEnded extends Error {}

/**
 * One slice of a verification. Where an open workflow streams the slot it is left alone: the comparison reads beside it and waits for what it applies. Where
 * none does, the slot is claimed and streamed for as long as the slice lasts: a destination that stands still is not comparable with a source that does not.
 */
export async function verify(dependencies: VerifyDependencies, request: VerifyRequest, context: OperationContext): Promise<VerifyResult> {
  const { destination, key, credentials } = dependencies
  const state = await destination.loadPipeline(key)
  if (state?.appliedLsn == null) throw await dependencies.missingState()
  const isOurs = state.owner === null || state.owner === context.owner || !(await context.isWorkflowOpen(state.owner))
  const source = createSource(credentials, request.spec.publicationName)
  const ended = new AbortController()
  const onAbort = (): void => { ended.abort(context.signal.reason) }
  context.signal.addEventListener('abort', onAbort, { once: true })
  if (context.signal.aborted) onAbort()
  const streaming = isOurs ? stream(dependencies, request.spec, { ...context, signal: ended.signal, report: () => undefined }) : null
  const failed = streaming?.then(async () => new Promise<never>(() => undefined)) ?? new Promise<never>(() => undefined)
  failed.catch(() => undefined)
  let activity = 'starting'
  const begin = async (): Promise<Verification> => {
    const error = differentSource(state.identity, await source.identify())
    if (error !== null) throw error
    const { operations } = await source.look([], null)
    return new Verification(
      {
        source,
        destination,
        pipeline: key,
        operations,
        repair: request.repair,
        maxRowsPerSecond: request.maxRowsPerSecond,
        signal: ended.signal,
        endsAtMs: performance.now() + request.maxMs,
        reach: async (lsn) => { await Promise.race([reach(dependencies, lsn, { source, isOurs, context, signal: ended.signal, say: () => { context.report({ activity: `${activity}; waiting until ${formatLsn(lsn)} is applied` }) } }), failed]) },
        committedLsn: async () => (await source.health(key.slotName)).committedLsn,
        onActivity: (text) => {
          activity = text
          context.report({ activity })
        },
      },
      request.progress ?? NOTHING_VERIFIED,
    )
  }
  let running: Promise<boolean> | null = null
  let progress = (): VerifyProgress => request.progress ?? NOTHING_VERIFIED
  try {
    const verification = await begin()
    progress = () => verification.progress
    running = verification.run(meantTables(state, request.spec))
    const isDone = await Promise.race([running, failed])
    return { ended: isDone ? 'done' : 'time', progress: progress() }
  } catch (error) {
    if (error instanceof StreamEnded) return { ended: 'time', progress: progress() }
    if (context.signal.aborted) return { ended: 'aborted', progress: progress() }
    throw error
  } finally {
    ended.abort()
    context.signal.removeEventListener('abort', onAbort)
    await running?.catch(() => undefined)
    await streaming?.catch(() => undefined)
    await source.close()
  }
}

/**
 * The tables that are named, or all that are replicated: where none is named, and where the input names those that updates have added to or removed from since.
 * Throws `InvalidInput` for one that is not replicated.
 */
function meantTables(state: PipelineState, spec: ReplicationSpec): readonly TableRecord[] {
  const { tableNames, schemaName } = spec
  const live = state.tables.filter((table) => table.state !== 'removed')
  return tableNames === null || amendmentOf(spec, state) === state.amendment ? live : namedTables(live, tableNames, schemaName)
}

/** Streams until it is told to end. */
async function stream({ runSlice }: VerifyDependencies, spec: ReplicationSpec, context: OperationContext): Promise<void> {
  // What was to be thrown away, or made anew, is not a verification's.
  while (!context.signal.aborted) {
    await runSlice({ spec: { ...spec, reset: false }, mode: 'stream', tableNames: null, untilLsn: null, maxBusyMs: SLICE_MS, maxIdleMs: SLICE_MS }, context)
  }
}

async function reach(
  { destination, key, session }: VerifyDependencies,
  lsn: Lsn,
  { source, isOurs, context, signal, say }: { readonly source: Source; readonly isOurs: boolean; readonly context: OperationContext; readonly signal: AbortSignal; readonly say: () => void },
): Promise<void> {
  if (session()?.hasApplied(lsn) === true) return
  // Our own reading writes WAL that is behind the last commit.
  await source.flushWal()
  let readAtMs = performance.now()
  let askAtMs = performance.now() + ASK_OWNER_MS
  for (;;) {
    signal.throwIfAborted()
    if (session()?.hasApplied(lsn) === true) return
    const nowMs = performance.now()
    if (nowMs >= readAtMs) {
      readAtMs = nowMs + READ_CHECKPOINT_MS
      const state = await destination.loadPipeline(key)
      if (state === null) throw gone(key)
      if (state.appliedLsn !== null && state.appliedLsn >= lsn) return
      if (nowMs >= askAtMs) {
        askAtMs = nowMs + ASK_OWNER_MS
        say()
        if (!isOurs && (state.owner === null || !(await context.isWorkflowOpen(state.owner)))) throw new StreamEnded()
      }
    }
    await sleep(ASK_POSITION_MS, undefined, { signal })
  }
}

function gone({ slotName }: PipelineKey): DomainError {
  return new DomainError({ kind: 'InvalidInput', message: `the replication of slot ${slotName} was dropped while it was verified`, remedy: 'start it again, then verify it' })
}
