import { type ChildProcess, fork } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { ReplicationSpec } from '../../src/model/spec.ts'
import type { VerifyProgress, VerifyResult } from '../../src/model/verification.ts'

/** Who owns the slot in every such process. */
export const STREAMER = 'streamer'

/** What the process is told when it is made. */
export interface EngineProcessOptions {
  readonly url: string
  readonly file: string
  readonly spec: ReplicationSpec
  /** Rows of a range of a comparison; absent = as many as ever. */
  readonly chunkRows?: number
}

export type EngineRequest =
  | { readonly tag: 'verify'; readonly id: number; readonly repair: boolean; readonly progress: VerifyProgress | null; readonly maxMs: number }
  /** Run on the destination while it is written. */
  | { readonly tag: 'plant'; readonly id: number; readonly sql: string }

export type EngineAnswer = { readonly id: number; readonly result: VerifyResult | null } | { readonly id: number; readonly error: string }

/** The process was killed before it answered. */
export class EngineKilled extends Error {}

/**
 * An engine in a process of its own, which streams all the time and answers requests beside that. A kill is a SIGKILL: nothing is closed, and what
 * the next process finds is the DuckDB file with its log.
 */
export class EngineProcess {
  readonly #options: EngineProcessOptions
  #child: ChildProcess | null = null
  #exited: Promise<unknown> = Promise.resolve()
  #requests = 0
  readonly #waiting = new Map<number, { readonly resolve: (result: VerifyResult | null) => void; readonly reject: (error: Error) => void }>()

  constructor(options: EngineProcessOptions) {
    this.#options = options
  }

  start(): void {
    const child = fork(fileURLToPath(new URL('./engine-process-main.ts', import.meta.url)), [JSON.stringify(this.#options)], { execArgv: ['--import', import.meta.resolve('tsx')] })
    this.#child = child
    child.on('message', (answer: EngineAnswer) => {
      const waiting = this.#waiting.get(answer.id)
      this.#waiting.delete(answer.id)
      if ('error' in answer) waiting?.reject(new Error(answer.error))
      else waiting?.resolve(answer.result)
    })
    this.#exited = new Promise((resolve) => {
      child.on('exit', (code, signal) => {
        for (const { reject } of this.#waiting.values()) reject(signal === 'SIGKILL' ? new EngineKilled() : new Error(`the engine's process ended: ${String(code ?? signal)}`))
        this.#waiting.clear()
        resolve(null)
      })
    })
  }

  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL')
    await this.#exited
  }

  /** Kills it after a while, and starts the next one. */
  async killAfter(afterMs: number): Promise<void> {
    await sleep(afterMs)
    await this.kill()
    this.start()
  }

  /** Ends it as a worker ends: everything is let go of. */
  async stop(): Promise<void> {
    if (this.#child?.connected === true) this.#child.disconnect()
    await this.#exited
  }

  async verify(request: { readonly repair: boolean; readonly progress: VerifyProgress | null; readonly maxMs: number }): Promise<VerifyResult> {
    const result = await this.#ask((id) => ({ tag: 'verify', id, ...request }))
    if (result === null) throw new Error('a verification without a result')
    return result
  }

  /**
   * Verifies in slices, as the workflow does with long ones; where the process is killed on the way (`killing` is over then), the next one goes on where the last slice had ended.
   * `again`: how often it was asked once more.
   */
  async verifyToEnd({ repair, maxMs, killing }: { readonly repair: boolean; readonly maxMs: number; readonly killing: Promise<void> }): Promise<{ readonly progress: VerifyProgress; readonly again: number }> {
    let progress: VerifyProgress | null = null
    for (let again = 0; ; again++) {
      try {
        const result: VerifyResult = await this.verify({ repair, progress, maxMs })
        progress = result.progress
        if (result.ended !== 'done') continue
        await killing
        return { progress, again }
      } catch (error) {
        if (!(error instanceof EngineKilled)) throw error
        await killing
      }
    }
  }

  async plant(sql: string): Promise<void> {
    await this.#ask((id) => ({ tag: 'plant', id, sql }))
  }

  async #ask(request: (id: number) => EngineRequest): Promise<VerifyResult | null> {
    const id = ++this.#requests
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      this.#child?.send(request(id), (error) => {
        if (error !== null && this.#waiting.delete(id)) reject(new EngineKilled())
      })
    })
  }
}
