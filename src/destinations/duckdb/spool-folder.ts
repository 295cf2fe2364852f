import { join, resolve } from 'node:path'
import type { PipelineKey } from '../../model/destination.ts'

/** Where the spools of a pipeline are kept that is served into the DuckDB file at `path`. */
export function spoolFolderOf(path: string, { source, slotName }: PipelineKey): string {
  return join(`${resolve(path)}.spool`, `${encodeURIComponent(source)}.${slotName}`)
}
