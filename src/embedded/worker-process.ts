import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { projectRoot } from './project-directory.ts'
import { Supervisor, type ProcessExit } from './supervisor.ts'

/** How to start the worker beside development servers. */
export interface WorkerProcessOptions {
  /** Added to this process's environment: `REPLICATION_CONFIG`, `TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE` … */
  readonly env: Readonly<Record<string, string>>
  /** Each line that the worker writes, from both outputs. */
  readonly onLine: (line: string) => void
  /** Default 60 s. */
  readonly readyTimeoutMs?: number
}

/** A worker in a process of its own, that ends with this one. */
export interface WorkerProcess {
  readonly pid: number
  readonly exited: Promise<ProcessExit>
  /** SIGTERM: the worker drains and exits. Idempotent. */
  stop(): Promise<ProcessExit>
  /** SIGKILL, as a crash would. */
  kill(): Promise<void>
}

/** The line by which a worker says that it polls its task queues. */
const readyText = 'worker ready'

/**
 * Starts `src/worker.ts` as `npm start` does and resolves when it polls.
 *
 * Throws, with the worker's last lines, when it ends before that or takes longer than `readyTimeoutMs`.
 */
export async function startWorkerProcess(options: WorkerProcessOptions): Promise<WorkerProcess> {
  const supervisor = await Supervisor.open()
  try {
    return await startSupervised(options, supervisor)
  } catch (error) {
    await supervisor.close()
    throw error
  }
}

async function startSupervised(options: WorkerProcessOptions, supervisor: Supervisor): Promise<WorkerProcess> {
  const lastLines: string[] = []
  let sayReady: () => void = () => undefined
  const ready = new Promise<'ready'>((resolve) => {
    sayReady = () => resolve('ready')
  })
  for (const stream of [supervisor.output.stdout, supervisor.output.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      options.onLine(line)
      lastLines.push(line)
      if (lastLines.length > 10) lastLines.shift()
      if (line.includes(readyText)) sayReady()
    })
  }
  const worker = await supervisor.run({
    command: process.execPath,
    // One process, where the tsx command would be two: signals reach the worker itself.
    args: ['--import', import.meta.resolve('tsx'), join(projectRoot, 'src', 'worker.ts')],
    cwd: projectRoot,
    env: { ...process.env, ...options.env },
    stopSignals: [{ signal: 'SIGTERM', graceMs: 30_000 }],
    output: { tag: 'inherit' },
  })
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<'timeout'>((resolve) => {
    timer = setTimeout(() => resolve('timeout'), options.readyTimeoutMs ?? 60_000)
  })
  const outcome = await Promise.race([ready, worker.exited, timeout])
  clearTimeout(timer)
  if (outcome !== 'ready') {
    const what = outcome === 'timeout' ? 'was not ready in time' : `ended (${describeExit(outcome)})`
    throw new Error(`the worker ${what}; its last lines:\n${lastLines.join('\n')}`)
  }
  const stop = async (): Promise<ProcessExit> => {
    const exit = await worker.stop()
    await supervisor.close()
    return exit
  }
  return {
    pid: worker.pid,
    exited: worker.exited,
    stop,
    kill: async () => {
      worker.signal('SIGKILL')
      await supervisor.whileReferenced(worker.exited)
      await supervisor.close()
    },
  }
}

/** `exit code 1` or the signal's name. */
export function describeExit(exit: ProcessExit): string {
  return exit.signal ?? `exit code ${exit.code ?? 'unknown'}`
}
