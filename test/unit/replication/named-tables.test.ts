import { expect, it } from 'vitest'
import type { TableRecord } from '../../../src/model/destination.ts'
import { namedTables } from '../../../src/replication/named-tables.ts'

let oid = 0

function table(schema: string, name: string, formerNames: TableRecord['formerNames'] = []): TableRecord {
  const record: Pick<TableRecord, 'oid' | 'source' | 'formerNames' | 'state'> = { oid: ++oid, source: { schema, name }, formerNames, state: 'streaming' }
  return record as TableRecord
}

const orders = table('public', 'orders')
const sold = table('sales', 'orders')
const items = table('public', 'Order Items', [{ schema: 'public', name: 'items' }, { schema: 'archive', name: 'items' }])
const dotted = table('has.dot', 'a.b')
const all = [orders, sold, items, dotted]

it.each([
  [['orders'], [orders]],
  [['sales.orders', 'public.orders', '"orders"'], [sold, orders]],
  [['Order Items', '"public"."Order Items"'], [items]],
  [['"has.dot"."a.b"'], [dotted]],
])('finds the tables that %j means, by every spelling that a start takes', (names, found) => {
  expect(namedTables(all, names, 'public')).toEqual(found)
})

it('knows a table by the names that it had, while no other has them', () => {
  expect(namedTables(all, ['items', 'archive.items'], 'public')).toEqual([items])
  const successor = table('public', 'items')
  expect(namedTables([...all, successor], ['items'], 'public')).toEqual([successor])
})

it('refuses a name that no table has, and takes no table of another schema for it', () => {
  expect(() => namedTables(all, ['ordres'], 'public')).toThrow(expect.objectContaining({ kind: 'InvalidInput', remedy: 'Did you mean "public.orders"?' }))
  expect(() => namedTables([sold], ['orders'], 'public')).toThrow(expect.objectContaining({ kind: 'InvalidInput', message: expect.stringContaining('"orders"') as string }))
})
