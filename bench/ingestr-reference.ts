import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runProgram, numberIn } from './run-program.ts'

/** A table whose changes it captures. */
export interface CapturedTable {
  readonly slotName: string
  readonly publicationName: string
  readonly tableName: string
}

/** Tables, and how many rows they have together. */
export interface TablesToCopy {
  readonly tableNames: readonly string[]
  readonly rowCount: number
}

/** ingestr with a DuckDB file of its own, in a temporary folder that {@link IngestrReference.close} removes. Seconds are of its own count, from its pipeline's start to its end. */
export class IngestrReference {
  readonly #program: string
  readonly #directory: string

  private constructor(program: string, directory: string) {
    this.#program = program
    this.#directory = directory
  }

  static async open(program: string): Promise<IngestrReference> {
    return new IngestrReference(program, await mkdtemp(join(tmpdir(), 'bench-ingestr-')))
  }

  async close(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true })
  }

  /**
   * Seconds that it takes to bring its file to where the table is: the first time by a snapshot, later by the changes since. The slot is its
   * own, and it makes it the first time.
   */
  async catchUp(url: string, { slotName, publicationName, tableName }: CapturedTable): Promise<number> {
    const source = new URL(url.replace(/^\w+:/, 'postgres+cdc:'))
    source.searchParams.set('publication', publicationName)
    source.searchParams.set('slot', slotName)
    return (await this.#ingest(source.href, tableName)).seconds
  }

  /** Seconds that it takes to copy tables, one after the other. Throws where it says another number of rows. */
  async copy(url: string, { tableNames, rowCount }: TablesToCopy): Promise<number> {
    let [seconds, rows] = [0, 0]
    for (const name of tableNames) {
      const ingested = await this.#ingest(url, name)
      seconds += ingested.seconds
      rows += ingested.rows
    }
    if (rows !== rowCount) throw new Error(`ingestr copied ${rows} rows instead of ${rowCount}`)
    return seconds
  }

  async #ingest(sourceUri: string, tableName: string): Promise<{ readonly seconds: number; readonly rows: number }> {
    const table = `public.${tableName}`
    const destination = `duckdb:///${join(this.#directory, 'reference.duckdb')}`
    const output = await runProgram(this.#program, ['ingest', '--source-uri', sourceUri, '--source-table', table, '--dest-uri', destination, '--dest-table', table, '--yes', '--progress', 'json'], {
      ...process.env,
      INGESTR_DISABLE_TELEMETRY: 'true',
      DISABLE_TELEMETRY: 'true',
    })
    return { seconds: numberIn(output, /"event":"end".*"duration_sec":([\d.e-]+)/, 'ingestr'), rows: numberIn(output, /"event":"end".*"rows":(\d+)/, 'ingestr') }
  }
}
