import { describe, expect, it } from 'vitest'
import type { TableStorage } from '../../../src/model/table-schema.ts'
import { isRewritten, isSameStorage } from '../../../src/pipeline/storage-diff.ts'

const table: TableStorage = { isPartitioned: false, files: { 7: 100 }, attached: [], columns: { 1: '700', 2: '700' }, labels: { 50: 'low', 51: 'high' } }
const tree: TableStorage = { isPartitioned: true, files: { 8: 200, 9: 201 }, attached: [9], columns: { 1: '700' }, labels: {} }

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

describe('storage of a partition tree', () => {
  it.each([
    ['nothing', {}, false],
    ['a partition that was made as one', { files: { 8: 200, 9: 201, 10: 202 } }, false],
    ['a partition that was attached', { files: { 8: 200, 9: 201, 10: 202 }, attached: [9, 10] }, true],
    ['a partition that is gone', { files: { 8: 200 } }, true],
    ['a new file of a partition, which TRUNCATE of it makes without saying so', { files: { 8: 203, 9: 201 } }, true],
  ] as const)('%s', (_, change, expected) => {
    expect(isRewritten(tree, { ...tree, ...change })).toBe(expected)
  })
})

it('tells whether there is something to note', () => {
  expect(isSameStorage(table, { ...table })).toBe(true)
  expect(isSameStorage(table, { ...table, columns: { 1: '700' } })).toBe(false)
  expect(isSameStorage(table, { ...table, files: { 7: 101 } })).toBe(false)
})
