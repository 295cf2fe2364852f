import { mkdir, mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Connection } from '@temporalio/client'
import { readLogTail } from './log-tail.ts'
import { findFreePorts, isPortFree, loopbackHost } from './ports.ts'
import type { OnProgress } from './project-directory.ts'
import { Supervisor, type SupervisedProcess } from './supervisor.ts'
import { temporalProgramSources } from './temporal-downloads.ts'
import { findTemporalProgram, type TemporalProgram } from './temporal-program.ts'

/** Which Temporal server to use or start, and how. */
export interface TemporalOptions {
  /** A server that runs already; it is used as it is. Everything else but `namespace` is then ignored. */
  readonly address?: string | undefined
  /** Default `default`; made when a server is started. */
  readonly namespace?: string | undefined
  /** Use what answers on the standard port 7233 of this machine; default true. Tests want a server of their own. */
  readonly reuseRunning?: boolean | undefined
  /** Keeps workflows in this file, over restarts. Omitted: in memory, gone when the server stops. */
  readonly databaseFile?: string | undefined
  /** Without the web UI; default false. */
  readonly headless?: boolean | undefined
  /** Ports to take when they are free; else any. */
  readonly port?: number | undefined
  readonly uiPort?: number | undefined
  readonly onProgress?: OnProgress | undefined
}

/** A Temporal server to develop against. */
export interface TemporalServer {
  /** `host:port` of the gRPC service. */
  readonly address: string
  readonly namespace: string
  /** The web UI's root URL; undefined when there is none or it is not known. */
  readonly uiUrl: string | undefined
  /** Whether this object started the server; if not, `stop` does nothing and `kill` and `restart` throw. */
  readonly owned: boolean
  /** The Temporal CLI that the server was started with. */
  readonly program: TemporalProgram | undefined
  readonly logFile: string | undefined
  readonly pid: number | undefined
  stop(): Promise<void>
  /** Ends the server at once, as a crash would. */
  kill(): Promise<void>
  /** Starts it again on the same ports (with its workflows, if it has a `databaseFile`). */
  restart(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** Where a Temporal server listens unless told otherwise. */
export const standardTemporalPort = 7233
export const standardTemporalUiPort = 8233

const readyTimeoutMs = 60_000

/**
 * Finds or starts a Temporal server and waits until it answers: the given address, else what answers on port 7233, else
 * a development server of its own, on loopback and free ports, with the first Temporal CLI that
 * {@link temporalProgramSources} has. It ends with this process, however that ends.
 *
 * Throws one error that lists what was tried and says what to do.
 */
export async function startTemporal(options: TemporalOptions = {}): Promise<TemporalServer> {
  const namespace = options.namespace ?? 'default'
  if (options.address !== undefined) return foundServer(options.address, namespace, undefined)
  if (options.reuseRunning !== false) {
    const address = `${loopbackHost}:${standardTemporalPort}`
    if (!(await isPortFree(standardTemporalPort)) && (await answers(address, namespace))) {
      options.onProgress?.(`Temporal: using the server that runs on ${address}`)
      return foundServer(address, namespace, await findStandardUi())
    }
  }
  const onProgress = options.onProgress ?? (() => undefined)
  const program = await findTemporalProgram(await temporalProgramSources(), onProgress)
  const supervisor = await Supervisor.open()
  try {
    const server = new OwnTemporalServer({
      supervisor,
      program,
      namespace,
      options,
      logFile: await chooseLogFile(supervisor, options),
    })
    await server.start()
    onProgress(`Temporal: server ${program.serverVersion} ready on ${server.address}`)
    return server
  } catch (error) {
    await supervisor.close()
    throw error
  }
}

interface OwnTemporalParts {
  readonly supervisor: Supervisor
  readonly program: TemporalProgram
  readonly namespace: string
  readonly options: TemporalOptions
  readonly logFile: string
}

/** States: down --start--> up --kill--> down --restart--> up …; `stop` also ends the supervisor, for good. */
class OwnTemporalServer implements TemporalServer {
  readonly #parts: OwnTemporalParts
  #process: SupervisedProcess | undefined
  #ports: readonly [grpc: number, ui: number] | undefined
  readonly owned = true

  constructor(parts: OwnTemporalParts) {
    this.#parts = parts
  }

  get address(): string {
    return `${loopbackHost}:${this.#ports?.[0] ?? 0}`
  }
  get namespace(): string {
    return this.#parts.namespace
  }
  get uiUrl(): string | undefined {
    return this.#parts.options.headless === true ? undefined : `http://${loopbackHost}:${this.#ports?.[1] ?? 0}`
  }
  get program(): TemporalProgram {
    return this.#parts.program
  }
  get logFile(): string {
    return this.#parts.logFile
  }
  get pid(): number | undefined {
    return this.#process?.exit === undefined ? this.#process?.pid : undefined
  }

  /** Starts the server, three times at most: another program may take a free port first. */
  async start(): Promise<void> {
    const fixedPorts = this.#ports
    const { namespace, logFile } = this.#parts
    for (let attempt = 1; ; attempt++) {
      this.#ports = fixedPorts ?? (await choosePorts(this.#parts.options))
      const server = await this.#spawn(this.#ports)
      this.#process = server
      const deadline = Date.now() + readyTimeoutMs
      while (server.exit === undefined && Date.now() < deadline) {
        if (await answers(this.address, namespace)) return
        await delay(50)
      }
      await server.stop()
      if (attempt === 3) {
        throw new Error(`the Temporal server did not start on ${this.address}; its log (${logFile}) ends:\n${await readLogTail(logFile)}`)
      }
    }
  }

  async stop(): Promise<void> {
    await this.#process?.stop()
    await this.#parts.supervisor.close()
  }

  async kill(): Promise<void> {
    const running = this.#process
    if (running === undefined || running.exit !== undefined) return
    running.signal('SIGKILL')
    await this.#parts.supervisor.whileReferenced(running.exited)
  }

  async restart(): Promise<void> {
    await this.#process?.stop()
    await this.start()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  async #spawn([port, uiPort]: readonly [number, number]): Promise<SupervisedProcess> {
    const { supervisor, program, namespace, options, logFile } = this.#parts
    // TEMPORAL_* of the user are about the servers that they connect to, not about this one.
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TEMPORAL_')))
    return await supervisor.run({
      command: program.path,
      args: [
        ...['server', 'start-dev', '--ip', loopbackHost, '--port', String(port), '--namespace', namespace],
        ...['--log-level', 'error'],
        ...(options.headless === true ? ['--headless'] : ['--ui-port', String(uiPort)]),
        ...(options.databaseFile === undefined ? [] : ['--db-filename', options.databaseFile]),
      ],
      env,
      stopSignals: [{ signal: 'SIGTERM', graceMs: 5_000 }],
      output: { tag: 'file', path: logFile },
    })
  }
}

async function chooseLogFile(supervisor: Supervisor, options: TemporalOptions): Promise<string> {
  if (options.databaseFile !== undefined) {
    await mkdir(dirname(options.databaseFile), { recursive: true })
    return `${options.databaseFile}.log`
  }
  const directory = await mkdtemp(join(tmpdir(), 'pg-replication-temporal-'))
  supervisor.removeAtEnd(directory)
  return join(directory, 'temporal.log')
}

async function choosePorts(options: TemporalOptions): Promise<readonly [number, number]> {
  const [free = 0, freeUi = 0] = await findFreePorts(2)
  const pick = async (wanted: number | undefined, other: number): Promise<number> =>
    wanted !== undefined && (await isPortFree(wanted)) ? wanted : other
  return [await pick(options.port, free), await pick(options.uiPort, freeUi)]
}

/** Whether a Temporal server with that namespace answers there now. */
async function answers(address: string, namespace: string): Promise<boolean> {
  let connection: Connection | undefined
  try {
    connection = await Connection.connect({ address, connectTimeout: 1_500 })
    const open = connection
    await open.withDeadline(Date.now() + 3_000, async () => await open.workflowService.describeNamespace({ namespace }))
    return true
  } catch {
    return false
  } finally {
    await connection?.close()
  }
}

async function findStandardUi(): Promise<string | undefined> {
  const url = `http://${loopbackHost}:${standardTemporalUiPort}`
  try {
    const response = await fetch(`${url}/api/v1/settings`, { signal: AbortSignal.timeout(1_000) })
    return response.ok ? url : undefined
  } catch {
    return undefined
  }
}

function foundServer(address: string, namespace: string, uiUrl: string | undefined): TemporalServer {
  const refuse = async (): Promise<never> => {
    throw new Error('this Temporal server was not started here, so it is not stopped here either')
  }
  return {
    address,
    namespace,
    uiUrl,
    owned: false,
    program: undefined,
    logFile: undefined,
    pid: undefined,
    stop: async () => undefined,
    kill: refuse,
    restart: refuse,
    [Symbol.asyncDispose]: async () => undefined,
  }
}
