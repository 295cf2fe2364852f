import type { ChunkStage } from '../model/destination.ts'
import type { ChunkCopy } from '../model/source.ts'

/** The ways in which a copy gives its rows. */
export type RowsCopy = Pick<ChunkCopy, 'rows' | 'lines' | 'binaryRows'>

/**
 * Puts all rows of a copy into a chunk's stage: in binary form where the stage takes it, else as the server's own lines, else row by row. A value without a place in
 * binary form has the rows read again, from the same snapshot.
 */
export async function stageCopy(copy: RowsCopy, stage: ChunkStage): Promise<void> {
  if (stage.takesBinary && (await stageBinary(copy, stage))) return
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

async function stageBinary(copy: Pick<RowsCopy, 'binaryRows'>, stage: ChunkStage): Promise<boolean> {
  let isRefused = false as boolean
  await copy.binaryRows((rows) => {
    isRefused ||= !stage.addBinaryRows(rows)
  })
  return !isRefused && stage.endBinaryRows()
}
