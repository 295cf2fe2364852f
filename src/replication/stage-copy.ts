import type { ChunkStage } from '../model/destination.ts'
import type { ChunkCopy } from '../model/source.ts'

/** Puts all rows of a copy into a chunk's stage: as the server's own lines where the stage takes them, else row by row. */
export async function stageCopy(copy: Pick<ChunkCopy, 'rows' | 'lines'>, stage: ChunkStage): Promise<void> {
  if (stage.lineFormat === null) {
    await copy.rows((tuple) => {
      stage.add(tuple)
      return undefined
    })
  } else {
    await copy.lines(stage.lineFormat, (lines) => {
      stage.addLines(lines)
    })
  }
}
