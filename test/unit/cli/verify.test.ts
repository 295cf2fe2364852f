import { describe, expect, it } from 'vitest'
import { printable, printableString } from '../../../src/cli/printable.ts'
import { verifyText, waitNoteOf } from '../../../src/cli/verify.ts'

const NOTHING = { lsn: '0/1', tables: {}, differences: {}, notCompared: {}, warnings: [] }

describe('verifyText', () => {
  it('names the rows that differ by kind and key', () => {
    const text = verifyText({
      ...NOTHING,
      tables: { 'public.orders': { compared: 5_000_000, different: 3, repaired: 0 } },
      differences: { 'public.orders': [{ kind: 'changed', key: ['7', 'café'] }, { kind: 'extra', key: ['8', null] }] },
    })
    expect(text).toContain('3 rows differ')
    expect(text).toContain('5,000,000')
    expect(text.split('\n').slice(-4)).toEqual(['public.orders:', '  changed 7, café', '  extra 8, NULL', '  and 1 more'])
  })

  // Cause: where everything had been put right the first line said no more than "equal".
  it('says at once how many rows were put right', () => {
    expect(verifyText({ ...NOTHING, tables: { 'public.orders': { compared: 10, different: 3, repaired: 3 } } }).split('\n')[0]).toBe('equal, 3 rows repaired at LSN 0/1')
    expect(verifyText({ ...NOTHING, tables: { 'public.orders': { compared: 10, different: 3, repaired: 1 } } }).split('\n')[0]).toBe('2 rows differ at LSN 0/1')
    expect(verifyText({ ...NOTHING, tables: { 'public.orders': { compared: 10, different: 0, repaired: 0 } } }).split('\n')[0]).toBe('equal at LSN 0/1')
  })

  // Cause: rows that nobody knows of were a warning below the word "equal".
  it('does not say equal without a condition where rows were not decided', () => {
    const undecided = { compared: 10, different: 0, repaired: 0, undecided: 2 }
    expect(verifyText({ ...NOTHING, tables: { 'public.orders': undecided } }).split('\n')[0]).toBe('equal, as far as was compared at LSN 0/1')
    expect(verifyText({ ...NOTHING, tables: { 'public.orders': { ...undecided, different: 3, repaired: 3 } } }).split('\n')[0]).toBe('equal, as far as was compared, 3 rows repaired at LSN 0/1')
  })

  // Cause: a key is what any client of the source wrote; the list showed it as it is, and a terminal obeys what it is shown.
  it('shows keys, names and reasons without anything that a terminal obeys', () => {
    const text = verifyText({
      ...NOTHING,
      tables: { 'public.a\u001b[2J': { compared: 1, different: 1, repaired: 0 } },
      differences: { 'public.a\u001b[2J': [{ kind: 'missing', key: ['\u001b]0;title\u0007\r\nequal', '\u009b31m\u202egpj'] }] },
      notCompared: { 'public.b\b': 'its \u001b[31m' },
      warnings: ['public.c\u2028\u007f'],
    })
    // The colors of the report itself are off where it is no terminal.
    expect(text.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\u2028\u202e]/u)
    expect(text).toContain('  missing \\u001b]0;title\\u0007\\u000d\\u000aequal, \\u009b31m\\u202egpj')
    expect(text).toContain('public.a\\u001b[2J:')
  })
})

describe('printable', () => {
  it('leaves what is shown as it is', () => {
    expect(printable('naïve — 日本 🎉 \\u001b')).toBe('naïve — 日本 🎉 \\u001b')
    expect(printableString('a"b\n\u0085')).toBe('"a\\"b\\n\\u0085"')
  })
})

describe('waitNoteOf', () => {
  it('says what lets a comparison go on that waits, and nothing where none waits', () => {
    expect(waitNoteOf('replicate-shop', 'paused')).toContain('npm run cli -- resume replicate-shop')
    expect(waitNoteOf('replicate-shop', 'failed')).toContain('npm run cli -- retry replicate-shop')
    for (const phase of ['initializing', 'snapshotting', 'streaming', 'stopped'] as const) expect(waitNoteOf('replicate-shop', phase)).toBe('')
  })
})
