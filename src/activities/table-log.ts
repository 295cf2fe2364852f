import type { Logger } from 'pino'
import type { TableStatus } from '../model/status.ts'

/** Logs what becomes of tables: a line for each change of a state, none for a state that lasts. */
export class TableLog {
  readonly #logger: Logger
  /** By pipeline, the states by table. */
  readonly #states = new Map<string, ReadonlyMap<string, string>>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** `fields` go into each line. What is seen for the first time is logged where it has failed. */
  note(pipeline: string, fields: Readonly<Record<string, string>>, tables: Readonly<Record<string, TableStatus>>): void {
    const before = this.#states.get(pipeline)
    this.#states.set(pipeline, new Map(Object.entries(tables).map(([table, { state }]) => [table, state])))
    for (const [table, { state, error }] of Object.entries(tables)) {
      const former = before?.get(table)
      if (former === state || (former === undefined && state !== 'failed')) continue
      const entry = { ...fields, table, state, ...(former === undefined ? {} : { former }) }
      if (state === 'failed') this.#logger.warn({ ...entry, error: error === undefined ? undefined : { type: error.type, message: error.message } }, `table ${table} has stopped`)
      else this.#logger.info(entry, `table ${table} is ${state}`)
    }
  }

  forget(pipeline: string): void {
    this.#states.delete(pipeline)
  }
}
