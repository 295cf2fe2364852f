import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { nearest } from '../../../src/postgres/nearest.ts'
import { quoteIdentifier } from '../../../src/postgres/sql.ts'
import { findCaseConflicts, formerNamesOf, nearMissRemedy, parseTableName, resolveTableMap, type NameScope } from '../../../src/postgres/table-names.ts'

const scope: NameScope = { schemaName: 'public', schemas: new Set(['public', 'sales', 'has.dot', 'Mixed']) }

describe('table names as users spell them', () => {
  it.each([
    ['orders', 'public', 'orders'],
    ['Order Items', 'public', 'Order Items'],
    ['sales.Order Items', 'sales', 'Order Items'],
    ['"has.dot"."a.b"', 'has.dot', 'a.b'],
    ['"a.b"', 'public', 'a.b'],
    ['sales."a.b"', 'sales', 'a.b'],
    ['"Mixed".orders', 'Mixed', 'orders'],
    ['"say ""hi"""', 'public', 'say "hi"'],
    ['nowhere.orders', 'public', 'nowhere.orders'],
    ['SALES.orders', 'public', 'SALES.orders'],
    ['sales.a.b', 'sales', 'a.b'],
    ['.orders', 'public', '.orders'],
    ['sales.', 'public', 'sales.'],
    ['a"b', 'public', 'a"b'],
    ['Ünïcode ☃', 'public', 'Ünïcode ☃'],
  ])('%s is table %s . %s', (spelling, schema, name) => {
    expect(parseTableName(spelling, scope)).toEqual({ schema, name })
  })

  it.each(['', '"open', '"a"b"', '""', '"a".'])('refuses %j', (spelling) => {
    expect(() => parseTableName(spelling, scope)).toThrow(expect.objectContaining({ kind: 'InvalidInput' }) as Error)
  })

  it('reads every quoted pair of names back', () => {
    const name = fc.string({ minLength: 1, unit: 'grapheme' }).filter((text) => !text.includes('\0'))
    fc.assert(
      fc.property(name, name, (schema, table) => {
        expect(parseTableName(`${quoteIdentifier(schema)}.${quoteIdentifier(table)}`, scope)).toEqual({ schema, name: table })
        expect(parseTableName(quoteIdentifier(table), scope)).toEqual({ schema: 'public', name: table })
      }),
    )
  })

  it('resolves the keys of a map, whatever their spelling', () => {
    const orders = { schema: 'public', name: 'orders' }
    const tables = [orders, { schema: 'sales', name: 'Order Items' }]
    const formerNames = formerNamesOf([{ ...orders, oid: 7 }], [{ schema: 'public', name: 'purchases', oid: 7 }, { schema: 'public', name: 'gone', oid: 8 }])
    expect(resolveTableMap({ purchases: 1 }, 'writeMode', { scope, tables, formerNames })).toEqual(new Map([['public.orders', 1]]))
    expect(resolveTableMap({ orders: 1, 'sales.Order Items': 2 }, 'writeMode', { scope, tables, formerNames })).toEqual(new Map([['public.orders', 1], ['sales.Order Items', 2]]))
    expect(() => resolveTableMap({ oders: 1 }, 'writeMode', { scope, tables, formerNames })).toThrow(expect.objectContaining({ kind: 'InvalidInput', remedy: 'Did you mean "public.orders"?' }) as Error)
    expect(() => resolveTableMap({ oders: 1 }, 'writeMode', { scope, tables, formerNames, isOfOrder: true })).toThrow(
      expect.objectContaining({ message: 'writeMode names "oders", which is not one of the tables of this order: "public.orders", "sales.Order Items"', remedy: 'Name it in tableNames too, or take it out of writeMode.' }) as Error,
    )
    expect(() => resolveTableMap({ orders: 1, 'public.orders': 2 }, 'writeMode', { scope, tables, formerNames })).toThrow('twice')
  })

  it('finds names that differ only in case', () => {
    expect(findCaseConflicts(['a', 'B', 'A', 'b', 'c', 'c'])).toEqual([['a', 'A'], ['B', 'b']])
  })
})

describe('near misses', () => {
  it.each([
    ['oders', 'orders'],
    ['ORDERS', 'orders'],
    ['ordesr', 'orders'],
    ['custmer', 'customers'],
    ['xyz', null],
  ])('%s is near %s', (name, expected) => {
    expect(nearest(name, ['customers', 'orders', 'order_items'])).toBe(expected)
  })

  it('suggests the same table of another schema', () => {
    expect(nearMissRemedy('public.deliveries', ['warehouse_eu.deliveries', 'public.x'])).toBe('Did you mean "warehouse_eu.deliveries"?')
    expect(nearMissRemedy('public.t', [])).toBe('There is none.')
  })
})
