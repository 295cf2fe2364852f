import { describe, expect, it } from 'vitest'
import { debeziumProperties } from '../../../bench/debezium-reference.ts'

const URL_TEXT = 'postgresql://bench%20user:p%40ss@127.0.0.1:5433/bench_w1_1?sslmode=disable'

describe("Debezium's configuration", () => {
  it('finds the server by what the URL says, decoded', () => {
    const properties = debeziumProperties(URL_TEXT, { tag: 'changes', slotName: 's', publicationName: 'p', endLsn: '0/1', recordCount: 1 })
    expect(properties).toMatchObject({ 'database.hostname': '127.0.0.1', 'database.port': '5433', 'database.user': 'bench user', 'database.password': 'p@ss', 'database.dbname': 'bench_w1_1' })
  })

  it('drains a slot and publication that are there, without a row of the tables', () => {
    const properties = debeziumProperties(URL_TEXT, { tag: 'changes', slotName: 'twin', publicationName: 'published', endLsn: '0/1', recordCount: 1 })
    expect(properties).toMatchObject({ 'snapshot.mode': 'no_data', 'slot.name': 'twin', 'publication.name': 'published', 'publication.autocreate.mode': 'disabled' })
  })

  it('copies the tables that are named and then ends', () => {
    const properties = debeziumProperties(URL_TEXT, { tag: 'snapshot', tableNames: ['items', 'wide'], recordCount: 2 })
    expect(properties).toMatchObject({ 'snapshot.mode': 'initial_only', 'table.include.list': 'public.items,public.wide' })
    expect(properties).not.toHaveProperty('slot.name')
  })
})
