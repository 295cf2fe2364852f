import type { ChunkStage } from '../model/destination.ts'
import type { ChunkCopy } from '../model/source.ts'

/**
 * Puts all rows of a copy into a chunk's stage: in binary form where the stage takes it, else as the server's own lines, else row by row. A value without a place in
 * binary form has the rows read again, from the same snapshot.
 */
export async function stageCopy(copy: Pick<ChunkCopy, 'rows' | 'lines' | 'binaryRows'>, stage: ChunkStage): Promise<void> {
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

async function stageBinary(copy: Pick<ChunkCopy, 'binaryRows'>, stage: ChunkStage): Promise<boolean> {
  const refused = { isSo: false }
  await copy.binaryRows((rows) => {
    refused.isSo ||= !stage.addBinaryRows(rows)
  })
  return !refused.isSo && stage.endBinaryRows()
}
