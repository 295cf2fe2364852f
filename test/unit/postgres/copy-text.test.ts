import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readCopyRow } from '../../../src/postgres/copy-text.ts'
import { createTupleView } from '../../../src/postgres/pgoutput/tuple.ts'
import { cellsOf } from './pgoutput/recording.ts'

function parse(text: string, columnCount: number): unknown {
  // Bytes around the row must be neither read nor changed.
  const before = Buffer.from('x\t\\N\n')
  const row = Buffer.from(text)
  const after = Buffer.from('y\tz\n')
  const buffer = Buffer.concat([before, row, after])
  const view = createTupleView(1)
  const isRow = readCopyRow({ buffer, start: before.length, end: before.length + row.length }, view, columnCount)
  expect(buffer.subarray(0, before.length)).toEqual(before)
  expect(buffer.subarray(before.length + row.length)).toEqual(after)
  return isRow ? cellsOf(view) : null
}

/** As COPY TO writes a value. */
function escape(value: string | null): string {
  if (value === null) return '\\N'
  const letters: Readonly<Record<string, string>> = { '\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't', '\v': 'v', '\\': '\\' }
  return value.replace(/[\b\f\n\r\t\v\\]/g, (character) => `\\${letters[character] ?? ''}`)
}

describe('readCopyRow', () => {
  it.each([
    ['plain cells', '1\tone\t\n', ['1', 'one', '']],
    ['NULL apart from empty and from its own letters', '\\N\t\tN\t\\\\N\n', [null, '', 'N', '\\N']],
    ['every escape', 'a\\tb\\nc\\rd\\\\e\\bf\\fg\\vh\t\\\\\n', ['a\tb\nc\rd\\e\bf\fg\vh', '\\']],
    ['a cell that is the end-of-data marker as a value', '\\\\.\n', ['\\.']],
    ['characters of several bytes', '🐘\\nü\t漢\n', ['🐘\nü', '漢']],
    ['carriage returns and quotes as they are', '"a"\'\t\\r\n', ['"a"\'', '\r']],
  ])('reads %s', (_, text, cells) => {
    expect(parse(text, cells.length)).toEqual(cells)
  })

  it('reads a row of no columns', () => {
    expect(parse('\n', 0)).toEqual([])
  })

  it('passes over the end-of-data marker', () => {
    expect(parse('\\.\n', 1)).toBeNull()
  })

  it.each([
    ['too few columns', '1\t2\n', 3, /2 columns instead of 3/],
    ['too many columns', '1\t2\n', 1, /more than 1 columns/],
    ['no newline', '1\t2', 2, /no newline at the end/],
    ['nothing', '', 1, /no newline at the end/],
    ['two rows in one', '1\n2\n', 1, /a newline inside the row/],
    ['an unknown escape', 'a\\x41\n', 1, /unknown escape \(column 0\)/],
    ['a cut escape', 'a\\\n', 1, /unknown escape/],
    ['NULL with something behind it', '\\Nx\n', 1, /unknown escape/],
    ['bytes where there are no columns', 'a\n', 0, /no columns/],
  ])('refuses %s', (_, text, columnCount, message) => {
    expect(() => parse(text, columnCount)).toThrow(message)
  })

  it('gives back whatever was escaped', () => {
    const value = fc.option(fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: fc.constantFrom('\\', 'N', '\t', '\n', '\r', '.', 'b', 'ü') })), { nil: null })
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 6 }), (cells) => {
        const wellFormed = cells.map((cell) => (cell === null ? null : Buffer.from(cell).toString()))
        expect(parse(`${wellFormed.map(escape).join('\t')}\n`, cells.length)).toEqual(wellFormed)
      }),
      { numRuns: 1000 },
    )
  })
})
