import { MultiBar, Presets, type SingleBar } from 'cli-progress'
import Table from 'cli-table3'
import colors from '../terminal-colors.ts'

/** How far one thing is. */
export interface BarState {
  readonly name: string
  readonly value: number
  readonly total: number
  /** Shown behind the figures. */
  readonly note?: string
}

/** Progress of several things at once; `end` leaves the last state standing. */
export interface ProgressDisplay {
  update(states: readonly BarState[]): void
  /** Idempotent. */
  end(): void
}

const PLAIN_INTERVAL_MS = 2_000

/** Bars that move on a terminal; plain lines, two seconds apart, in a pipe or a log. */
export function showProgress(): ProgressDisplay {
  return process.stdout.isTTY ? new MovingBars() : new PlainLines()
}

/** Ends what moves on the terminal now: nothing else can be written there before. */
let endMoving: () => void = () => undefined

class MovingBars implements ProgressDisplay {
  readonly #bars = new Map<string, SingleBar>()
  readonly #display = new MultiBar(
    { format: '  {name} {bar} {percentage}% {note}', barsize: 18, hideCursor: true, clearOnComplete: false, gracefulExit: false, fps: 20 },
    Presets.shades_classic,
  )
  #hasEnded = false

  constructor() {
    endMoving()
    endMoving = () => this.end()
  }

  update(states: readonly BarState[]): void {
    if (this.#hasEnded) return
    for (const { name, value, total, note } of states) {
      const bar = this.#bars.get(name) ?? this.#display.create(Math.max(1, total), 0, { name: name.padEnd(12), note: '' })
      this.#bars.set(name, bar)
      bar.setTotal(Math.max(1, total))
      bar.update(total === 0 ? 1 : Math.min(value, total), { note: note ?? '' })
    }
  }

  end(): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    if (this.#bars.size > 0) this.#display.stop()
  }
}

class PlainLines implements ProgressDisplay {
  readonly #shown = new Map<string, { readonly text: string; readonly isComplete: boolean; readonly atMs: number }>()

  update(states: readonly BarState[]): void {
    for (const { name, value, total, note } of states) {
      const isComplete = value >= total
      const text = `${name.padEnd(12)} ${note ?? ''}`
      const before = this.#shown.get(name)
      if (before?.text === text || (isComplete && before?.isComplete === true)) continue
      if (before !== undefined && !isComplete && performance.now() - before.atMs < PLAIN_INTERVAL_MS) continue
      this.#shown.set(name, { text, isComplete, atMs: performance.now() })
      say(text)
    }
  }

  end(): void {
    this.#shown.clear()
  }
}

/** One line, indented below its heading. */
export function say(text: string): void {
  endMoving()
  console.log(`  ${text}`)
}

/** So that the cursor is there again. */
export function endProgress(): void {
  endMoving()
}

/** The beginning of one act. */
export function heading(text: string): void {
  endMoving()
  console.log(`\n${colors.bold(text)}`)
}

/** A table with right-aligned figures in all columns but the first. */
export function sayTable(head: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
  const table = new Table({
    head: head.map((cell) => colors.bold(cell)),
    style: { head: [], border: [], compact: true },
    colAligns: head.map((_, index) => (index === 0 ? 'left' : 'right')),
  })
  for (const row of rows) table.push(row.map((cell) => (typeof cell === 'number' ? formatCount(cell) : cell)))
  for (const line of table.toString().split('\n')) say(line)
}

/** `12,345` */
export function formatCount(count: number): string {
  return count.toLocaleString('en')
}
