import { existsSync } from 'node:fs'
import { acquireDatabase, closeIdleDatabases } from '../../src/destinations/duckdb/database.ts'
import { openDuckDbDestination } from '../../src/destinations/duckdb/destination.ts'
import { spoolFolderOf } from '../../src/destinations/duckdb/spool-folder.ts'
import type { OperationContext } from '../../src/model/replication.ts'
import type { VerifyResult } from '../../src/model/verification.ts'
import { parseCredentials } from '../../src/postgres/credentials.ts'
import { createEngine } from '../../src/replication/engine.ts'
import { type EngineAnswer, type EngineProcessOptions, type EngineRequest, STREAMER } from './engine-process.ts'

/** The other end of {@link EngineProcess}. Ends with its parent. */
const { url, file, spec, chunkRows } = JSON.parse(process.argv[2] ?? '') as EngineProcessOptions
/** The session is let go of after every second slice, as when another worker takes over. */
const SLICE_MS = 3_000

const credentials = parseCredentials(url)
const engine = createEngine({
  credentialsOf: () => credentials,
  destinationNames: () => ['warehouse'],
  hasDestination: () => existsSync(file),
  spoolFolder: (_name, key) => spoolFolderOf(file, key),
  openDestination: async () => {
    const destination = await openDuckDbDestination({ path: file })
    if (chunkRows !== undefined) Object.defineProperty(destination, 'chunkRows', { value: chunkRows })
    return destination
  },
})
const ended = new AbortController()
let slice = new AbortController()

function context(owner: string, isOpen: boolean, signal: AbortSignal): OperationContext {
  return { signal, owner, isWorkflowOpen: async () => Promise.resolve(isOpen), report: () => undefined, observe: () => undefined }
}

async function stream(): Promise<void> {
  for (let count = 0; !ended.signal.aborted; count++) {
    slice = new AbortController()
    const current = slice
    const timer = setTimeout(() => { current.abort() }, SLICE_MS)
    const request = { spec, mode: 'stream', tableNames: null, untilLsn: null, maxBusyMs: 60_000, maxIdleMs: 60_000 } as const
    await engine.runSlice(request, context(STREAMER, false, current.signal)).catch((error: unknown) => {
      // Told to end before it had connected.
      if (!current.signal.aborted) throw error
    })
    clearTimeout(timer)
    if (count % 2 === 0) await engine.release({ spec, owner: STREAMER, keepClaim: true })
  }
}

async function answer(request: EngineRequest): Promise<VerifyResult | null> {
  if (request.tag === 'verify') {
    const { repair, progress, maxMs } = request
    return engine.verify({ spec, repair, maxRowsPerSecond: null, progress, maxMs }, context('verifier', true, ended.signal))
  }
  const handle = await acquireDatabase({ path: file })
  try {
    await handle.database.transaction(async (session) => session.run(request.sql))
  } finally {
    handle.release()
  }
  return null
}

process.on('message', (request: EngineRequest) => {
  const send = (message: EngineAnswer): void => { process.send?.(message) }
  answer(request).then(
    (result) => { send({ id: request.id, result }) },
    (error: unknown) => { send({ id: request.id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) }) },
  )
})
const streaming = stream()
streaming.catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? '') : String(error)}\n`)
  process.exit(1)
})
process.on('disconnect', () => {
  ended.abort()
  slice.abort()
  streaming
    .then(async () => engine.release({ spec, owner: STREAMER }))
    .then(async () => closeIdleDatabases())
    .then(() => process.exit(0), () => process.exit(1))
})
