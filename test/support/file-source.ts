import type pg from 'pg'
import { afterAll, beforeAll, expect, inject } from 'vitest'
import { destinationRows, differences, NO_DIFFERENCES, readFile, sourceRows } from './comparison.ts'
import { createDatabase, type TestDatabase } from './servers.ts'
import { sourcePool } from './source-pool.ts'

/** A database for the tests of one file, at the run's server, and connections to it; from before its first test until after its last. */
export class FileSource {
  #database: TestDatabase | null = null
  #pool: pg.Pool | null = null

  constructor() {
    beforeAll(async () => {
      this.#database = await createDatabase(inject('postgresUrl'))
      this.#pool = sourcePool({ connectionString: this.database.url, max: 4 })
    })
    afterAll(async () => {
      await this.#pool?.end()
      await this.#database?.drop()
    })
  }

  get database(): TestDatabase {
    if (this.#database === null) throw new RangeError('asked before the first test')
    return this.#database
  }

  get pool(): pg.Pool {
    if (this.#pool === null) throw new RangeError('asked before the first test')
    return this.#pool
  }

  /** A table of schema `public` is row by row as in a DuckDB file that nobody has open. */
  async expectEqual(file: string, table: string): Promise<void> {
    const rows = await readFile(file, async (query) => destinationRows(query, table, 'public'))
    const client = await this.pool.connect()
    try {
      expect(differences(rows, await sourceRows(client, table))).toEqual(NO_DIFFERENCES)
    } finally {
      client.release()
    }
  }
}
