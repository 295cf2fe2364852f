import { describe, expect, it } from 'vitest'
import type { PublishedAs, TableStorage } from '../../../src/model/table-schema.ts'
import { comparePublished, isRewritten, isSameStorage, isSuspect } from '../../../src/pipeline/storage-diff.ts'

const table: TableStorage = { isPartitioned: false, files: { 7: 100 }, attached: [], columns: { 1: '700', 2: '700' }, labels: { 50: 'low', 51: 'high' } }
const tree: TableStorage = { isPartitioned: true, files: { 8: 200, 9: 201 }, attached: [9], joined: { 8: '690', 9: '695' }, columns: { 1: '700' }, labels: {} }

describe('storage of a table', () => {
  it.each([
    ['nothing', {}, false],
    ['a new file alone: VACUUM FULL, CLUSTER, TRUNCATE', { files: { 7: 101 } }, false],
    ['a column defined anew alone: SET NOT NULL, SET STATISTICS', { columns: { 1: '700', 2: '705' } }, false],
    ['a new file and a column defined anew: ALTER TYPE', { files: { 7: 101 }, columns: { 1: '700', 2: '705' } }, true],
    ['a new file and a new column: a volatile default', { files: { 7: 101 }, columns: { 1: '700', 2: '700', 3: '705' } }, true],
    ['a label that was renamed', { labels: { 50: 'small', 51: 'high' } }, true],
    ['a label that was added', { labels: { 50: 'low', 52: 'middle', 51: 'high' } }, false],
    ['a new file after a column was dropped', { files: { 7: 101 }, columns: { 1: '700' } }, false],
  ] as const)('%s', (_, change, expected) => {
    expect(isRewritten(table, { ...table, ...change })).toBe(expected)
  })
})

describe('a type that is new to a table', () => {
  const wrap = 2n ** 32n
  it.each([
    ['that nobody has changed', '700', '', false],
    ['that was changed before', '700', '650,699', false],
    ['that was changed since', '700', '650,700', true],
    ['that was changed since, in another epoch', String(5n * wrap + 700n), '701', true],
    ['that was changed since, past the end of 32 bits', String(wrap - 5n), '12', true],
    ['that was changed before, at the end of 32 bits', String(wrap + 10n), String(wrap - 5n), false],
    ['that was made with the database', String(3n * 2n ** 30n), '1,2', false],
    ['where nothing was noted of when it was', undefined, '701', false],
  ])('%s', (_, horizon, writers, expected) => {
    const before = { ...table, ...(horizon === undefined ? {} : { horizon }), shown: { 60: '100' } }
    expect(isRewritten(before, { ...before, shown: { 60: '100', 61: writers } })).toBe(expected)
    expect(isRewritten(before, { ...before, shown: { 60: writers } })).toBe(false)
  })
})

describe('storage of a table that may be UNLOGGED for a while', () => {
  const published: PublishedAs = { publication: 90, version: '700', operations: ['insert'], hasRowFilter: false, memberships: [], isListed: false }
  const listed = { ...published, isListed: true }

  it.each([
    ['another file and TOAST table: SET LOGGED', { toast: 40 }, { files: { 7: 101 }, toast: 41 }, 'rewritten'],
    ['another file: VACUUM FULL', { toast: 40 }, { files: { 7: 101 } }, 'same'],
    ['another file where there is no TOAST table', { toast: 0 }, { files: { 7: 101 } }, 'suspect'],
    ['no other file', { toast: 0 }, {}, 'same'],
    ['another file of a listed table, which is never UNLOGGED', { toast: 40, published: listed }, { files: { 7: 101 }, toast: 41 }, 'same'],
    ['another file of a listed table without a TOAST table', { toast: 0, published: listed }, { files: { 7: 101 } }, 'same'],
    ['another file of a table that is listed now', { toast: 0 }, { files: { 7: 101 }, published: listed }, 'suspect'],
    ['another file of what was noted without a horizon', { toast: 0, horizon: undefined }, { files: { 7: 101 } }, 'same'],
  ] as const)('%s', (_, given, change, expected) => {
    const before = { ...table, published, horizon: '700', ...given } as TableStorage
    const now = { ...before, ...change }
    expect(isRewritten(before, now) ? 'rewritten' : isSuspect(before, now) ? 'suspect' : 'same').toBe(expected)
  })
})

describe('storage of a partition tree', () => {
  it.each([
    ['nothing', {}, false],
    ['a partition that was made as one', { files: { 8: 200, 9: 201, 10: 202 } }, false],
    ['a partition that was attached', { files: { 8: 200, 9: 201, 10: 202 }, attached: [9, 10] }, true],
    ['a partition that is gone', { files: { 8: 200 } }, true],
    ['a partition that was away for a while', { joined: { 8: '705', 9: '695' } }, true],
    ['a new file of a partition, which TRUNCATE of it makes without saying so', { files: { 8: 203, 9: 201 } }, true],
  ] as const)('%s', (_, change, expected) => {
    expect(isRewritten(tree, { ...tree, ...change })).toBe(expected)
  })
})

describe('what the publication sends of a table', () => {
  const published: PublishedAs = { publication: 90, version: '700', operations: ['insert', 'update'], hasRowFilter: false, memberships: [91], schemaEntry: '600' }
  const before: TableStorage = { ...table, published }

  it.each([
    ['nothing', {}, 'same'],
    ['an operation more', { version: '705', operations: ['insert', 'update', 'delete'] }, 'otherwise'],
    ['other operations', { version: '705', operations: ['insert', 'delete'] }, 'otherwise'],
    ['a row written anew that says the same', { version: '705' }, 'altered'],
    ['a membership of another kind beside it', { memberships: [91, 95] }, 'same'],
    ['a membership of another kind beside it, which ends its row filter', { memberships: [91, 95], hasRowFilter: true }, 'otherwise'],
    ['a membership made anew: taken out for a while, or another row filter', { memberships: [92] }, 'otherwise'],
    ['another time of coming to its schema', { schemaEntry: '705' }, 'otherwise'],
    ['another publication of the same name', { publication: 96, memberships: [97] }, 'otherwise'],
  ] as const)('%s', (_, change, expected) => {
    const now = { ...table, published: { ...published, ...change } }
    expect(comparePublished(before, now)).toBe(expected)
    expect(isSameStorage(before, now)).toBe(Object.keys(change).length === 0)
  })

  it('compares nothing with what is not known', () => {
    expect(comparePublished(table, before)).toBe('same')
    expect(comparePublished(before, table)).toBe('same')
  })
})

it('tells whether there is something to note', () => {
  expect(isSameStorage(table, { ...table })).toBe(true)
  expect(isSameStorage(table, { ...table, columns: { 1: '700' } })).toBe(false)
  expect(isSameStorage(table, { ...table, files: { 7: 101 } })).toBe(false)
})
