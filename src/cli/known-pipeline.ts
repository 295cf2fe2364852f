import { existsSync } from 'node:fs'

import type { DuckdbDestinationConfig } from '../config.ts'
import { readPipeline } from '../destinations/duckdb/checkpoint.ts'
import { DatabaseSession } from '../destinations/duckdb/database.ts'
import { Watches } from '../destinations/duckdb/watched-rows.ts'
import type { PipelineKey, PipelineState } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { openReadOnly } from './show.ts'

/** What a destination knows of a slot. */
export interface KnownPipeline {
  readonly destinationId: string
  readonly state: PipelineState | null
}

/** Of whichever version: this one's table has all that is asked for. */
const HAS_CHECKPOINTS = "SELECT 1 FROM duckdb_columns() WHERE schema_name = '_replication' AND table_name = 'checkpoints' AND column_name = 'amendment'"

/** Reads it from the DuckDB file, beside no writer. Null where that does not tell: no file, none of ours, or another process has it open. */
export async function readKnownPipeline(destination: DuckdbDestinationConfig, key: PipelineKey): Promise<KnownPipeline | null> {
  if (!destination.isLocalFile || !existsSync(destination.path)) return null
  try {
    const instance = await openReadOnly(destination)
    try {
      const connection = await instance.connect()
      try {
        const session = new DatabaseSession(connection, new Watches())
        if ((await session.rows(HAS_CHECKPOINTS)).length === 0) return null
        const [[id] = []] = await session.rows('SELECT id FROM _replication.destination')
        return typeof id === 'string' ? { destinationId: id, state: await readPipeline(session, key) } : null
      } finally {
        connection.closeSync()
      }
    } finally {
      instance.closeSync()
    }
  } catch (error) {
    // The destination's own checks tell why.
    if (error instanceof DomainError) return null
    throw error
  }
}
