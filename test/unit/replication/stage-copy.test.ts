import { describe, expect, it } from 'vitest'
import type { ChunkStage } from '../../../src/model/destination.ts'
import { stageCopy } from '../../../src/replication/stage-copy.ts'

const FORMAT = { delimiter: ',', quote: '"' }

/** Notes what it is asked for; `refuses` is the number of the call that finds a value without a place. */
function copyAndStage(given: { readonly takesBinary: boolean; readonly hasLines: boolean; readonly refuses?: number }): { run: () => Promise<void>; calls: string[] } {
  const calls: string[] = []
  const offered = (call: string): boolean => calls.push(call) !== given.refuses
  const stage = {
    takesBinary: given.takesBinary,
    lineFormat: given.hasLines ? FORMAT : null,
    add: () => calls.push('add'),
    addLines: () => calls.push('addLines'),
    addBinaryRows: () => offered('addBinaryRows'),
    endBinaryRows: () => offered('endBinaryRows'),
  } as unknown as ChunkStage
  const give = (on: (given: never) => unknown) => async (): Promise<number> => Promise.resolve(on(undefined as never)).then(() => 1)
  const copy = {
    rows: async (onRow: (tuple: never) => unknown) => give(onRow)(),
    lines: async (_format: unknown, onLines: (lines: never) => unknown) => give(onLines)(),
    binaryRows: async (onRows: (rows: never) => unknown) => {
      for (let read = 0; read < 3; read++) await give(onRows)()
      return 3
    },
  }
  return { run: async () => stageCopy(copy, stage), calls }
}

describe('stageCopy', () => {
  it.each([
    ['in binary form where the stage takes it', { takesBinary: true, hasLines: true }, ['addBinaryRows', 'addBinaryRows', 'addBinaryRows', 'endBinaryRows']],
    ['as lines where it does not', { takesBinary: false, hasLines: true }, ['addLines']],
    ['row by row where it takes neither', { takesBinary: false, hasLines: false }, ['add']],
    ['again as lines where a value has no place in binary form, and gives no binary row after it', { takesBinary: true, hasLines: true, refuses: 2 }, ['addBinaryRows', 'addBinaryRows', 'addLines']],
    ['again where that shows at the end', { takesBinary: true, hasLines: false, refuses: 4 }, ['addBinaryRows', 'addBinaryRows', 'addBinaryRows', 'endBinaryRows', 'add']],
  ])('gives rows %s', async (_, given, expected) => {
    const { run, calls } = copyAndStage(given)
    await run()
    expect(calls).toEqual(expected)
  })
})
