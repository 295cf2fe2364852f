import type { SliceResult, SlotFigures } from '../model/replication.ts'
import type { Source, SourceHealth } from '../model/source.ts'
import type { ReplicationSpec } from '../model/spec.ts'
import { endsWithin } from '../postgres/ends-within.ts'
import { LagClock, type Position } from './lag-clock.ts'
import { kindsOf, slotFiguresOf, walBudgetOf, walWarnings } from './spool-slice.ts'
import type { Spools } from './spools.ts'

const LOOK_LIMIT_MS = 3_000

/** What is known of a slot and its server, by looking now and then. */
export class SlotHealth {
  readonly #source: Source
  readonly #spec: ReplicationSpec
  readonly #spools: Spools
  readonly #lag = new LagClock()
  #newest: SourceHealth | null = null
  #looking: Promise<void> | null = null
  #spoolBytes = 0
  #toldKinds = kindsOf([])

  constructor({ source, spec, spools }: { readonly source: Source; readonly spec: ReplicationSpec; readonly spools: Spools }) {
    this.#source = source
    this.#spec = spec
    this.#spools = spools
  }

  /** Null before the first look. */
  get newest(): SourceHealth | null {
    return this.#newest
  }

  get figures(): SlotFigures | null {
    return this.#newest === null ? null : slotFiguresOf(this.#newest, this.#spoolBytes)
  }

  /** The slot's part of a slice's result. */
  tell(): Pick<SliceResult, 'hasWalBudget' | 'slotWarnings'> {
    const slotWarnings = this.warnings
    this.#toldKinds = kindsOf(slotWarnings)
    return { hasWalBudget: this.#newest !== null && walBudgetOf(this.#spec, this.#newest) !== null, slotWarnings }
  }

  /** False where a warning has come or gone since {@link tell}: the workflow's status must not keep what is over, nor lack what has begun. */
  get isTold(): boolean {
    return kindsOf(this.warnings) === this.#toldKinds
  }

  get warnings(): readonly string[] {
    return this.#newest === null ? [] : walWarnings(this.#spec, this.#newest)
  }

  /** See {@link LagClock.lagMs}. */
  lagMs(position: Position): number | null {
    return this.#lag.lagMs(position)
  }

  /** Never throws, and waits for {@link LOOK_LIMIT_MS} at most: the stream tells when the source is gone, and the figures may be old until then. */
  async look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => { this.#looking = null })
    await endsWithin(this.#looking, LOOK_LIMIT_MS)
  }

  async #look(): Promise<void> {
    try {
      this.#newest = await this.#source.health(this.#spec.slotName)
      this.#lag.note(this.#newest.currentLsn, Date.now())
      this.#spoolBytes = this.#spools.byteCount
    } catch {
      // As it was.
    }
  }
}
