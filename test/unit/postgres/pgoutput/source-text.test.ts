import { describe, expect, it } from 'vitest'
import type { TupleView } from '../../../../src/model/change.ts'
import { CELL_NULL, CELL_TEXT } from '../../../../src/model/change.ts'
import { SourceText } from '../../../../src/postgres/pgoutput/source-text.ts'

/** LATIN1, but that 0x81 is no character. */
const TABLE = Array.from({ length: 128 }, (_, index) => (index === 1 ? null : Buffer.from(String.fromCharCode(0x80 + index), 'utf8')))

function tupleOf(...cells: readonly (string | null)[]): TupleView {
  const bytes = cells.map((cell) => Buffer.from(cell ?? '', 'latin1'))
  const ends = bytes.map((_, index) => 3 + bytes.slice(0, index + 1).reduce((sum, { length }) => sum + length, 0))
  return {
    buffer: Buffer.concat([Buffer.from('...'), ...bytes, Buffer.from('...')]),
    columnCount: cells.length,
    kinds: Uint8Array.from(cells, (cell) => (cell === null ? CELL_NULL : CELL_TEXT)),
    starts: Uint32Array.from(bytes, ({ length }, index) => (ends[index] ?? 0) - length),
    ends: Uint32Array.from(ends),
  }
}

const cellsOf = ({ buffer, columnCount, kinds, starts, ends }: TupleView): (string | null)[] =>
  Array.from({ length: columnCount }, (_, index) => (kinds[index] === CELL_NULL ? null : buffer.toString('utf8', starts[index], ends[index])))

describe('text of a server that does not convert it', () => {
  it('converts each cell and name of a single-byte encoding', () => {
    const text = new SourceText()
    text.use(TABLE)
    const every = String.fromCharCode(...Array.from({ length: 255 }, (_, index) => index + 1).filter((code) => code !== 0x81))
    const cells = ['plain', null, every, '', 'é']
    const tuple = tupleOf(...cells)
    text.convert(tuple)
    expect(cellsOf(tuple)).toEqual(cells)
    expect(text.string(Buffer.from('xété', 'latin1'), 1, 4)).toBe('été')
  })

  it('keeps the old and the new tuple of a change apart, however large each is', () => {
    const text = new SourceText()
    text.use(TABLE)
    const cells = (round: number): string[] => [`é${String(round)}`, 'ü'.repeat(round * 100)]
    const old = tupleOf(...cells(1))
    text.convert(old)
    for (const round of [3, 1, 9]) {
      const now = tupleOf(...cells(round))
      text.convert(now)
      expect(cellsOf(now)).toEqual(cells(round))
    }
    expect(cellsOf(old)).toEqual(cells(1))
  })

  it('makes a byte that is no character one that no UTF-8 text has', () => {
    const text = new SourceText()
    text.use(TABLE)
    const tuple = tupleOf('a\x81\x81')
    text.convert(tuple)
    expect(tuple.buffer.subarray(tuple.starts[0], tuple.ends[0])).toEqual(Buffer.of(0x61, 0xff, 0xff))
  })

  it('leaves everything as it is where the server converts', () => {
    const tuple = tupleOf('é')
    const { buffer } = tuple
    new SourceText().convert(tuple)
    expect(tuple.buffer).toBe(buffer)
  })
})
