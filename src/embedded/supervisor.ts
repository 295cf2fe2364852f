import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'

/** A user to run a process as; only root may choose one. */
export interface ProcessUser {
  readonly uid: number
  readonly gid: number
}

/** A program to run under a {@link Supervisor}. */
export interface SupervisedCommand {
  readonly command: string
  readonly args: readonly string[]
  readonly cwd?: string
  /** The whole environment; by default this process's own. */
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly user?: ProcessUser | undefined
  /** Sent in turn by `stop()`, each given its time to work; after the last comes SIGKILL. */
  readonly stopSignals?: readonly { readonly signal: NodeJS.Signals; readonly graceMs: number }[]
  /** A log file (emptied first unless `append`), or the supervisor's own output (see {@link Supervisor.output}). */
  readonly output: { readonly tag: 'file'; readonly path: string; readonly append?: boolean } | { readonly tag: 'inherit' }
}

/** How a supervised process ended: an exit code or the signal that ended it. */
export interface ProcessExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A running program that ends with its supervisor. */
export interface SupervisedProcess {
  readonly pid: number
  /** Resolves (never rejects) when the process has ended. */
  readonly exited: Promise<ProcessExit>
  /** How it ended, once it has. */
  readonly exit: ProcessExit | undefined
  signal(signal: NodeJS.Signals): void
  /** Sends the stop signals in turn and resolves when the process has ended. Idempotent. */
  stop(): Promise<ProcessExit>
}

type Reply =
  | { readonly tag: 'ready' }
  | { readonly tag: 'started'; readonly id: number; readonly pid: number }
  | { readonly tag: 'failed'; readonly id: number; readonly message: string; readonly code?: string }
  | {
      readonly tag: 'exited'
      readonly id: number
      readonly code: number | null
      readonly signal: NodeJS.Signals | null
    }

interface Entry {
  readonly started: (pid: number) => void
  readonly failed: (error: Error) => void
  readonly exited: (exit: ProcessExit) => void
  readonly ended: Promise<ProcessExit>
  pid: number | undefined
}

const defaultStopSignals = [{ signal: 'SIGTERM', graceMs: 5_000 }] as const

/**
 * Runs servers in such a way that none outlives this process, however it ends.
 *
 * A small process in a session of its own (so that Ctrl-C in a terminal does not reach it) starts the servers and holds
 * an IPC channel to this one. When the channel closes, by `close()`, by exit or by `kill -9`, it stops them and removes
 * the paths given to `removeAtEnd`. An open supervisor does not keep this process's event loop alive.
 *
 * States: starting → open → closed. In `closed` every supervised process has ended.
 */
export class Supervisor {
  readonly #child: ChildProcess
  readonly #entries = new Map<number, Entry>()
  #nextId = 1
  #waiting = 0
  #closed: Promise<void> | undefined

  private constructor(child: ChildProcess) {
    this.#child = child
    child.on('message', (message) => this.#receive(message as Reply))
    // Only when somebody killed the supervisor itself: its servers have lost their guard, so end them from here.
    child.once('exit', () => {
      for (const entry of this.#entries.values()) {
        if (entry.pid !== undefined && this.#closed === undefined) killQuietly(entry.pid)
        entry.failed(new Error('the supervising process ended'))
        entry.exited({ code: null, signal: 'SIGKILL' })
      }
      this.#entries.clear()
    })
  }

  /** Starts the supervising process. */
  static async open(): Promise<Supervisor> {
    const child = spawn(process.execPath, [fileURLToPath(new URL('./supervisor-process.mjs', import.meta.url))], {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      cwd: '/',
    })
    const supervisor = new Supervisor(child)
    await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(() => {
        throw new Error('the process that supervises development servers did not start')
      }),
    ])
    supervisor.#unreference()
    return supervisor
  }

  /** What commands with `output: { tag: "inherit" }` write: their standard output and standard error. */
  get output(): { readonly stdout: Readable; readonly stderr: Readable } {
    const { stdout, stderr } = this.#child
    if (stdout === null || stderr === null) throw new Error('the supervising process has no output pipes')
    return { stdout, stderr }
  }

  /** The supervising process's own id. */
  get pid(): number | undefined {
    return this.#child.pid
  }

  /** Removes a file or folder after the last process has ended, even if this process is killed first. */
  removeAtEnd(path: string): void {
    this.#child.send({ tag: 'removeAtEnd', path })
  }

  /** Starts a program; rejects when it cannot be executed. */
  async run(command: SupervisedCommand): Promise<SupervisedProcess> {
    if (this.#closed !== undefined || !this.#child.connected) throw new Error('the supervisor is closed')
    const id = this.#nextId++
    let exit: ProcessExit | undefined
    let settleExit: (value: ProcessExit) => void = () => undefined
    const exited = new Promise<ProcessExit>((resolve) => {
      settleExit = resolve
    })
    const started = new Promise<number>((resolve, reject) => {
      this.#entries.set(id, {
        pid: undefined,
        ended: exited,
        started: resolve,
        failed: reject,
        exited: (value) => {
          exit = value
          settleExit(value)
        },
      })
    })
    this.#child.send({
      tag: 'run',
      id,
      command: command.command,
      args: command.args,
      cwd: command.cwd ?? process.cwd(),
      env: command.env ?? process.env,
      uid: command.user?.uid,
      gid: command.user?.gid,
      stopSignals: command.stopSignals ?? defaultStopSignals,
      output: command.output,
    })
    const pid = await this.whileReferenced(started)
    return {
      pid,
      exited,
      get exit() {
        return exit
      },
      signal: (signal) => {
        if (exit === undefined && this.#child.connected) this.#child.send({ tag: 'signal', id, signal })
      },
      stop: async () => {
        if (exit === undefined && this.#child.connected) this.#child.send({ tag: 'stop', id })
        return await this.whileReferenced(exited)
      },
    }
  }

  /** Keeps the event loop alive until the promise settles; without it Node would end while awaiting a supervised process. */
  async whileReferenced<T>(promise: Promise<T>): Promise<T> {
    this.#waiting++
    this.#child.ref()
    this.#child.channel?.ref()
    try {
      return await promise
    } finally {
      if (--this.#waiting === 0) this.#unreference()
    }
  }

  /** Stops every supervised process, removes what was to be removed, and ends the supervising process. Idempotent. */
  async close(): Promise<void> {
    this.#closed ??= this.#close()
    await this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.ref()
    if (this.#child.connected) {
      // Stopped one by one first: once the channel is closed nobody would tell how they ended.
      const endings = [...this.#entries].map(async ([id, entry]) => {
        this.#child.send({ tag: 'stop', id })
        await entry.ended
      })
      await this.whileReferenced(Promise.all(endings))
      this.#child.ref()
      this.#disconnect()
    }
    await exited
  }

  #disconnect(): void {
    if (this.#child.connected) this.#child.disconnect()
  }

  #unreference(): void {
    this.#child.unref()
    this.#child.channel?.unref()
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      // The pipes are sockets; their declared type does not say so.
      ;(stream as Socket | null)?.unref()
    }
  }

  #receive(reply: Reply): void {
    if (reply.tag === 'ready') return
    const entry = this.#entries.get(reply.id)
    if (entry === undefined) return
    switch (reply.tag) {
      case 'started':
        entry.pid = reply.pid
        entry.started(reply.pid)
        break
      case 'failed':
        this.#entries.delete(reply.id)
        entry.failed(Object.assign(new Error(reply.message), { code: reply.code }))
        break
      case 'exited':
        this.#entries.delete(reply.id)
        entry.exited({ code: reply.code, signal: reply.signal })
        break
      default:
        reply satisfies never
    }
  }
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended already.
  }
}
