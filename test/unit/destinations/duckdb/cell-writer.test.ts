import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { CellWriter, FLUSH_BYTES, fitsDecimal, isExactFloat } from '../../../../src/destinations/duckdb/cell-writer.ts'
import { CELL_NULL, CELL_TEXT, CELL_UNCHANGED, type TupleView } from '../../../../src/model/change.ts'
import { createTupleView } from '../../../../src/postgres/pgoutput/tuple.ts'
import { encodingFor, mapType } from '../../../../src/destinations/duckdb/type-mapping.ts'
import type { TypeShape } from '../../../../src/model/table-schema.ts'

const base = (name: string, typeModifier = -1): TypeShape => ({ tag: 'base', oid: 1, name, typeModifier })
const arrayOf = (element: TypeShape): TypeShape => ({ tag: 'array', oid: 2, element, delimiter: ',' })

/** What one cell is staged as; null where it does not fit. */
function stage(shape: TypeShape, text: string): string | null {
  const bytes = Buffer.from(text)
  const writer = new CellWriter(16)
  writer.reserve(bytes.length * 2 + 64)
  return writer.cell(mapType(shape).encoding, bytes, 0, bytes.length) ? writer.buffer.toString('utf8', 0, writer.position) : null
}

describe('text cells', () => {
  it('go through as they are when they hold no separator', () => {
    expect(stage(base('text'), 'a, "b" \t {c} \\N é😀')).toBe('a, "b" \t {c} \\N é😀')
  })

  it('are quoted when empty, so that they are not NULL', () => {
    expect(stage(base('text'), '')).toBe('\x1e\x1e')
  })

  it('are quoted when they hold line ends or the separators themselves', () => {
    expect(stage(base('text'), 'a\nb')).toBe('\x1ea\nb\x1e')
    expect(stage(base('text'), 'a\x1fb\x1ec')).toBe('\x1ea\x1fb\x1e\x1ec\x1e')
    expect(stage(base('text'), '\r')).toBe('\x1e\r\x1e')
  })

  it('are the same bytes, quoted where they must be, of whatever length and at whatever place these stand', () => {
    const bytes = fc.array(fc.oneof(fc.constantFrom(0x09, 0x0a, 0x0d, 0x1e, 0x1f, 0x20, 0x21, 0x7f, 0x80, 0xff), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 90 })
    fc.assert(fc.property(bytes, fc.nat(9), (cell, before) => {
      const source = Buffer.from([...Array.from({ length: before }, () => 0x0a), ...cell, 0x0a])
      const writer = new CellWriter(cell.length * 2 + 64)
      writer.cell(mapType(base('text')).encoding, source, before, before + cell.length)
      const mustQuote = cell.some((byte) => [0x0a, 0x0d, 0x1e, 0x1f].includes(byte))
      const expected = mustQuote ? [0x1e, ...cell.flatMap((byte) => (byte === 0x1e ? [0x1e, 0x1e] : [byte])), 0x1e] : cell
      expect([...writer.buffer.subarray(0, writer.position)]).toEqual(expected)
    }))
  })
})

describe('numeric cells', () => {
  const fits = (text: string, precision: number, scale: number): boolean => fitsDecimal(Buffer.from(text), 0, text.length, precision, scale)

  it('fit by digits before and after the point, trailing zeros apart', () => {
    expect(fits('0', 1, 0)).toBe(true)
    expect(fits('0.5', 1, 1)).toBe(true)
    expect(fits('-99.9900', 4, 2)).toBe(true)
    expect(fits('99.991', 4, 2)).toBe(false)
    expect(fits('100', 4, 2)).toBe(false)
    expect(fits('0.00', 2, 2)).toBe(true)
  })

  it('do not fit when they are no numbers', () => {
    for (const text of ['NaN', 'Infinity', '-Infinity']) expect(fits(text, 38, 9)).toBe(false)
  })

  it('fit exactly when a decimal of that shape has the same value', () => {
    fc.assert(
      fc.property(fc.bigInt(-(10n ** 12n), 10n ** 12n), fc.nat(8), fc.nat(6), (unscaled, digits, zeros) => {
        const sign = unscaled < 0n ? '-' : ''
        const all = String(unscaled < 0n ? -unscaled : unscaled).padStart(digits + 1, '0')
        const text = sign + all.slice(0, all.length - digits) + (digits + zeros > 0 ? `.${all.slice(all.length - digits)}${'0'.repeat(zeros)}` : '')
        const isExact = unscaled % 10n ** BigInt(Math.max(0, digits - 4)) === 0n
        const isShort = (unscaled < 0n ? -unscaled : unscaled) / 10n ** BigInt(digits) < 10n ** 6n
        expect(fits(text, 10, 4)).toBe(isExact && isShort)
      }),
    )
  })
})

describe('pinned float cells', () => {
  it('are exact when the float shows the same digits', () => {
    for (const text of ['0.1', '1e+22', '-0', '100', '1.50', 'NaN', '-Infinity', '123456789012345680000']) expect(isExactFloat(text, false)).toBe(true)
    for (const text of ['0.12345678901234567890', '9007199254740993', '1e400']) expect(isExactFloat(text, false)).toBe(false)
    expect(isExactFloat('0.1', true)).toBe(true)
    expect(isExactFloat('16777217', true)).toBe(false)
  })
})

describe('temporal cells', () => {
  it('say BC the way DuckDB reads it', () => {
    expect(stage(base('date'), '0044-03-15 BC')).toBe('0044-03-15 (BC)')
    expect(stage(base('timestamptz'), '0044-03-15 01:02:03.5+00 BC')).toBe('0044-03-15 (BC) 01:02:03.5+00')
  })

  it('hold infinity, and years that the type can hold', () => {
    expect(stage(base('timestamp'), '-infinity')).toBe('-infinity')
    expect(stage(base('timestamp'), '294246-12-31 23:59:59.999999')).toBe('294246-12-31 23:59:59.999999')
    expect(stage(base('timestamp'), '294276-12-31 23:59:59.999999')).toBe(null)
    expect(stage(base('date'), '5874897-12-31')).toBe('5874897-12-31')
  })

  // Cause: read_csv makes NULL of a TIMESTAMPTZ that it cannot read (DuckDB 1.5.5).
  it('refuse a date that a hint makes a timestamp where no timestamp can be it', () => {
    const encoding = encodingFor({ shape: base('date'), type: 'TIMESTAMPTZ', isPinned: true })
    const writes = (text: string): boolean => new CellWriter().cell(encoding, Buffer.from(text), 0, text.length)
    expect([writes('300000-01-01'), writes('12345-01-01'), writes('0044-03-15 BC')]).toEqual([false, true, true])
  })

  it('keep months, days and microseconds of an interval apart', () => {
    expect(stage(base('interval'), '1 year 2 mons -3 days +04:05:06.789')).toBe('14 months -3 days 14706789000 microseconds')
    expect(stage(base('interval'), '-1 years -2 mons +3 days -04:05:06.789')).toBe('-14 months 3 days -14706789000 microseconds')
    expect(stage(base('interval'), '00:00:00')).toBe('0 months 0 days 0 microseconds')
    expect(stage(base('interval'), 'infinity')).toBe(null)
  })
})

describe('array cells', () => {
  it('become JSON, with quotes, backslashes and control characters kept', () => {
    expect(stage(arrayOf(base('text')), '{a,NULL,"b c","","NULL","q\\"\\\\"}')).toBe('["a",null,"b c","","NULL","q\\"\\\\"]')
    expect(stage(arrayOf(base('text')), '{"a\nb"}')).toBe('["a\\u000ab"]')
    expect(stage(arrayOf(base('int4')), '{}')).toBe('[]')
    expect(stage(arrayOf(base('date')), '{"0044-03-15 BC"}')).toBe('["0044-03-15 (BC)"]')
  })

  it('do not fit with several dimensions, other lower bounds, or elements that do not fit', () => {
    expect(stage(arrayOf(base('int4')), '{{1,2},{3,4}}')).toBe(null)
    expect(stage(arrayOf(base('int4')), '[0:1]={1,2}')).toBe(null)
    expect(stage(arrayOf(base('numeric')), '{1,NaN}')).toBe(null)
  })
})

describe('the type mapping', () => {
  it('takes numeric by its type modifier', () => {
    const typmod = (precision: number, scale: number): number => ((precision << 16) | (scale & 0x7ff)) + 4
    expect(mapType(base('numeric')).type).toBe('DECIMAL(38,9)')
    expect(mapType(base('numeric', typmod(12, 2))).type).toBe('DECIMAL(12,2)')
    expect(mapType(base('numeric', typmod(2, 4))).type).toBe('DECIMAL(4,4)')
    expect(mapType(base('numeric', typmod(5, -2))).type).toBe('DECIMAL(7,0)')
    expect(mapType(base('numeric', typmod(1000, 10))).type).toBe('VARCHAR')
  })

  it('keeps what it does not know as text, arrays of it too', () => {
    expect(mapType(base('inet')).type).toBe('VARCHAR')
    expect(mapType({ tag: 'other', oid: 3 }).type).toBe('VARCHAR')
    expect(mapType(arrayOf(base('inet'))).type).toBe('VARCHAR')
    expect(mapType(arrayOf({ tag: 'enum', oid: 4 })).type).toBe('VARCHAR[]')
  })

  it('stages a widened column as text: a number without its scale, which the values before it have lost, but not where a hint asks for text', () => {
    expect(encodingFor({ shape: base('numeric'), type: 'VARCHAR', isPinned: false }).fromCsv('c')).toContain('regexp_replace')
    expect(encodingFor({ shape: base('numeric'), type: 'VARCHAR', isPinned: true }).fromCsv('c')).toBe('c')
    expect(encodingFor({ shape: base('text'), type: 'VARCHAR', isPinned: false }).fromCsv('c')).toBe('c')
  })
})

describe('whole rows', () => {
  /** A tuple with these cells, all in one buffer; undefined = left unchanged. */
  function tupleOf(cells: readonly (string | null | undefined)[]): TupleView {
    const view = createTupleView(cells.length)
    view.buffer = Buffer.from(cells.map((cell) => cell ?? '').join(''))
    view.columnCount = cells.length
    let at = 0
    for (const [place, cell] of cells.entries()) {
      view.kinds[place] = cell === undefined ? CELL_UNCHANGED : cell === null ? CELL_NULL : CELL_TEXT
      view.starts[place] = at
      at += Buffer.byteLength(cell ?? '')
      view.ends[place] = at
    }
    return view
  }

  const shapes = [base('int8'), base('text'), base('timestamptz'), base('jsonb'), base('numeric', ((12 << 16) | 2) + 4), arrayOf(base('text')), base('interval')]
  const encodings = shapes.map((shape) => mapType(shape).encoding)
  const text = fc.string({ unit: fc.oneof({ weight: 9, arbitrary: fc.constantFrom('a', 'b', 'c', ' ', ',', '"', 'é', 'ß', '漢', '😀') }, { weight: 1, arbitrary: fc.constantFrom('\n', '\r', '\t', '\u0001', '\x1e', '\x1f') }), maxLength: 40 })
  const cells = [
    fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }).map(String),
    text,
    fc.constantFrom('2026-01-11 00:00:00.123456+00', '0044-03-15 00:00:00+00 BC', 'infinity'),
    text.map((value) => JSON.stringify(value)),
    fc.constantFrom('1.50', '-0.01', '99999999.99'),
    fc.array(fc.constantFrom('a', '"b \\"c"', 'NULL')).map((items) => `{${items.join(',')}}`),
    fc.constantFrom('1 year 2 mons 3 days 04:05:06.789', '00:00:00'),
  ].map((cell) => fc.oneof({ weight: 5, arbitrary: cell }, { weight: 1, arbitrary: fc.constantFrom(null, undefined) }))
  const row = fc.tuple(...cells)

  it('are the same as their cells one by one, a delimiter before each, whatever the columns\' order', () => {
    const order = fc.shuffledSubarray(shapes.map((_, place) => place), { minLength: shapes.length })
    fc.assert(fc.property(row, row, order, (given, old, places) => {
      const writer = new CellWriter(16)
      const isWhole = writer.cells(places.map((place) => encodings[place] ?? encodingFor({ shape: base('text'), type: 'VARCHAR', isPinned: false })), Int32Array.from(places), tupleOf(given), tupleOf(old)) < 0
      expect(isWhole).toBe(true)
      const single = places.map((place) => {
        const cell = given[place] === undefined ? old[place] : given[place]
        return cell == null ? '' : stage(shapes[place] ?? base('text'), cell)
      })
      expect(writer.buffer.toString('utf8', 0, writer.position)).toBe(single.map((cell) => `\x1f${String(cell)}`).join(''))
    }))
  })

  it('name the first column whose value does not fit, and leave columns out that the tuple does not have', () => {
    const writer = new CellWriter(16)
    expect(writer.cells(encodings.slice(3, 5), Int32Array.of(0, 1), tupleOf(['{}', '1.234']), null)).toBe(1)
    writer.position = 0
    expect(writer.cells(encodings.slice(0, 2), Int32Array.of(-1, 0), tupleOf(['x']), null)).toBe(-1)
    expect(writer.buffer.toString('utf8', 0, writer.position)).toBe('\x1f\x1fx')
  })

  it('have whole numbers digit by digit', () => {
    fc.assert(fc.property(fc.maxSafeNat(), (value) => {
      const writer = new CellWriter(1)
      writer.integer(value)
      expect(writer.buffer.toString('latin1', 0, writer.position)).toBe(String(value))
    }))
  })

  it('go on in memory of their own where a released buffer is another writer\'s by now', () => {
    const [first, second] = [new CellWriter(16), new CellWriter(16)]
    first.reserve(FLUSH_BYTES)
    const { buffer } = first
    first.release()
    second.reserve(FLUSH_BYTES)
    expect(second.buffer).toBe(buffer)
    second.ascii('second')
    first.ascii('first')
    expect(second.buffer.toString('latin1', 0, second.position)).toBe('second')
    expect(first.buffer.toString('latin1', 0, first.position)).toBe('first')
  })
})
