import { describe, expect, it } from 'vitest'
import { DomainError } from '../../../src/model/errors.ts'
import {
  type InputOrigin,
  parseDropInput,
  parseEmptyInput,
  parseReplicationInput,
  parseRemoveInput,
  parseResyncInput,
  parseRetryInput,
  parseTablesInput,
  parseXminInput,
  refuseMoreArguments,
} from '../../../src/model/spec-parse.ts'

const origin: InputOrigin = { of: 'replicate', storedIn: { workflowId: 'shop', runId: 'run-1' } }
const minimal = { slotName: 'shop_slot', publicationName: 'shop_publication' }

/** The refusal of an input, which must be one; its texts together. */
function refusal(run: () => unknown): { readonly text: string; readonly error: DomainError } {
  try {
    run()
  } catch (error) {
    if (error instanceof DomainError) return { error, text: `${error.message} ${error.remedy}` }
    throw error
  }
  throw new Error('was not refused')
}

const parse = (input: unknown) => parseReplicationInput(input, origin)
const refuse = (input: unknown) => refusal(() => parse(input))

describe('defaults', () => {
  it('fills in every default of the contract', () => {
    expect(parse(minimal)).toEqual({
      source: null,
      destination: null,
      slotName: 'shop_slot',
      publicationName: 'shop_publication',
      schemaName: 'public',
      tableNames: null,
      publish: ['insert', 'update', 'delete', 'truncate'],
      includeColumns: {},
      columns: {},
      datasetName: null,
      writeMode: 'merge',
      deleteMode: 'hard',
      snapshotMode: 'initial',
      schemaChanges: 'apply',
      reset: false,
      targetBatchSize: null,
      flushSlot: true,
      walBudgetBytes: null,
      spoolBudgetBytes: 10 * 1024 ** 3,
    })
  })

  it('takes null for a field that is left out', () => {
    const nulls = Object.fromEntries(Object.keys(parse(minimal)).map((key) => [key, null]))
    expect(parse({ ...nulls, ...minimal })).toEqual(parse(minimal))
  })

  it('is JSON-safe and stands for itself when parsed from JSON', () => {
    const spec = parse({ ...minimal, tableNames: ['a'], columns: { a: { b: { dataType: 'DECIMAL(10, 2)', precision: 10, scale: 2 } } } })
    expect(JSON.parse(JSON.stringify(spec))).toEqual(spec)
  })
})

describe('accepted spellings', () => {
  it.each([
    ['one table as a text', { tableNames: 'orders' }, { tableNames: ['orders'] }],
    ['the same table twice', { tableNames: ['orders', 'orders'] }, { tableNames: ['orders'] }],
    ['names of any kind', { tableNames: ['Order Items', '"has.dot"."a.b"', 'sales.x'] }, { tableNames: ['Order Items', '"has.dot"."a.b"', 'sales.x'] }],
    ['publish with any spacing, case and order', { publish: ' DELETE,insert ,  update' }, { publish: ['insert', 'update', 'delete'] }],
    ['inserts only: append', { publish: 'insert' }, { publish: ['insert'], writeMode: 'append' }],
    ['inserts only, merge wanted', { publish: 'insert', writeMode: 'merge' }, { publish: ['insert'], writeMode: 'merge' }],
    ['a mode by table', { writeMode: { orders: 'append', items: ['merge'] } }, { writeMode: { orders: ['append'], items: ['merge'] } }],
    ['columns as a text', { includeColumns: { orders: 'id' } }, { includeColumns: { orders: ['id'] } }],
    ['a table and a column called password', { includeColumns: { secrets: ['password'] } }, { includeColumns: { secrets: ['password'] } }],
    ['a mode of a table called credentials', { writeMode: { credentials: 'merge' } }, { writeMode: { credentials: ['merge'] } }],
    [
      'a hint for a column called password',
      { columns: { users: { password: { dataType: 'text' } } } },
      { columns: { users: { password: { dataType: 'text' } } } },
    ],
    ['a publication name of 63 bytes', { publicationName: 'ü'.repeat(31) + 'a' }, { publicationName: 'ü'.repeat(31) + 'a' }],
    ['schemaChanges refuse', { schemaChanges: 'refuse' }, { schemaChanges: 'refuse' }],
    ['schemaChanges ask', { schemaChanges: 'ask' }, { schemaChanges: 'ask' }],
    ['budgets', { walBudgetBytes: 5, spoolBudgetBytes: 6 }, { walBudgetBytes: 5, spoolBudgetBytes: 6 }],
    ['a batch size', { targetBatchSize: 1 }, { targetBatchSize: 1 }],
  ])('%s', (_what, given, expected) => {
    expect(parse({ ...minimal, ...given })).toEqual({ ...parse(minimal), ...expected })
  })
})

describe('refusals', () => {
  it.each([
    ['no object: text', 'orders', 'one JSON object'],
    ['no object: list', [minimal], 'one JSON object'],
    ['no object: nothing', undefined, 'one JSON object'],
    ['no slot name', { publicationName: 'p' }, 'slotName is required'],
    ['no publication name', { slotName: 's' }, 'publicationName is required'],
    ['a slot name of other characters', { ...minimal, slotName: 'Shop' }, 'slotName must be 1 to 63 characters'],
    ['a slot name too long', { ...minimal, slotName: 'a'.repeat(64) }, 'slotName must be 1 to 63 characters'],
    ['a publication name of 64 bytes', { ...minimal, publicationName: 'ü'.repeat(32) }, 'publicationName must have at most 63 bytes'],
    ['an empty publication name', { ...minimal, publicationName: '' }, 'publicationName must not be empty'],
    ['a NUL in a name', { ...minimal, schemaName: 'a\0b' }, 'schemaName must not hold a NUL'],
    ["dlt's own spelling", { ...minimal, slot_name: 'x' }, 'slot_name is not a known field; the nearest known one is slotName'],
    ['a mistyped field', { ...minimal, tableName: 'x' }, 'tableName is not a known field; the nearest known one is tableNames'],
    ['a mistyped hint', { ...minimal, columns: { t: { c: { data_type: 'text' } } } }, 'columns.t.c.data_type is not a known field; the nearest known one is dataType'],
    ['no tables', { ...minimal, tableNames: [] }, 'tableNames must not be empty'],
    ['tables that differ only in case', { ...minimal, tableNames: ['Orders', 'orders'] }, 'differ only in case'],
    ['a table that is no text', { ...minimal, tableNames: [1] }, 'tableNames.0 must be a text'],
    ['an unknown operation', { ...minimal, publish: 'insert, upsert' }, 'publish must be a comma-separated list of insert, update, delete, truncate'],
    ['an empty publish', { ...minimal, publish: '' }, 'publish must be a comma-separated list'],
    ['an unknown mode', { ...minimal, writeMode: 'upsert' }, 'writeMode must be merge, append or scd2'],
    ['an unknown mode of a table', { ...minimal, writeMode: { orders: 'upsert' } }, 'writeMode.orders.0 must be merge or append or scd2'],
    ['a mode that is named twice', { ...minimal, writeMode: { orders: ['merge', 'merge'] } }, 'writeMode.orders names a mode twice'],
    ['an unknown delete mode', { ...minimal, deleteMode: 'none' }, 'deleteMode must be hard or soft'],
    ['a batch size of 0', { ...minimal, targetBatchSize: 0 }, 'targetBatchSize must be at least 1'],
    ['a fraction of a batch', { ...minimal, targetBatchSize: 1.5 }, 'targetBatchSize must be an integer'],
    ['a batch size as text', { ...minimal, targetBatchSize: '5' }, 'targetBatchSize must be an integer'],
    ['a flag as text', { ...minimal, reset: 'true' }, 'reset must be true or false'],
    ['a scale beyond the precision', { ...minimal, columns: { t: { c: { precision: 2, scale: 3 } } } }, 'scale must not exceed precision'],
    ['SQL in a type', { ...minimal, columns: { t: { c: { dataType: 'INT; DROP TABLE t' } } } }, 'columns.t.c.dataType must be the name of a DuckDB type'],
    ['our own destination schema', { ...minimal, datasetName: '_replication' }, 'keeps for itself'],
  ])('%s', (_what, input, message) => {
    const { error } = refuse(input)
    expect(error.kind).toBe('InvalidInput')
    expect(error.isRetryable).toBe(false)
    expect(error.message).toContain(message)
    expect(error.message).toMatch(/^replicate/)
  })

  it.each([
    { deleteMode: 'soft', writeMode: 'append' },
    { deleteMode: 'soft', publish: 'insert' },
  ])('refuses a delete mode that has no row to mark: %o', (given) => {
    const { error } = refuse({ ...minimal, ...given })
    expect(error.message).toContain('deleteMode soft marks the rows of merge tables')
    expect(parseReplicationInput({ ...minimal, ...given, writeMode: 'merge' }, origin).deleteMode).toBe('soft')
  })

  it('names every wrong field in one refusal, up to five', () => {
    const { error } = refuse({ slotName: 'A', reset: 1, flushSlot: 1, targetBatchSize: 0, publish: 'x', deleteMode: 'x' })
    expect(error.message).toContain('slotName')
    expect(error.message).toContain('publicationName')
    expect(error.message).toContain('and 2 more')
  })
})

describe('arguments', () => {
  it('of an update is to be sent again, of a run started again', () => {
    expect(refusal(() => parseRetryInput({ tables: [] }, { of: 'update retryFailed', storedIn: null })).error.remedy).toBe('correct the input and send the update again: nothing has changed')
    expect(refuse({ ...minimal, writeMode: ['append', 'scd2'] }).error).toMatchObject({ message: expect.stringContaining('{"orders": ["merge", "append"]} (a list is for one table)') as string, remedy: 'correct the input and start again' })
  })

  it('must be one object: its remedy shows what is needed at least', () => {
    expect(refuse('orders').error).toMatchObject({ message: 'replicate takes one JSON object, not a text', remedy: 'give it {"slotName": "…", "publicationName": "…"}' })
    expect(refuse(undefined).error.message).toBe('replicate takes one JSON object, not nothing')
  })

  it('are refused after the first one, any credential among them first', () => {
    expect(() => {
      refuseMoreArguments([minimal], origin)
    }).not.toThrow()
    const more = (...args: unknown[]) =>
      refusal(() => {
        refuseMoreArguments(args, origin)
      })
    expect(more(minimal, {}, null).error).toMatchObject({ kind: 'InvalidInput', message: 'replicate takes one JSON object, not 3 arguments' })
    for (const { text } of [more(minimal, 'postgres://u:hunter2@h/d'), more({ password: 'hunter2' }, {})]) {
      expect(text).toContain('temporal workflow delete')
      expect(text).not.toContain('hunter2')
    }
  })
})

describe('credentials in an input', () => {
  const SECRET = 'hunter2-Zq9'
  it.each([
    ['a URL as source', { ...minimal, source: `postgres://u:${SECRET}@db/shop` }],
    ['a URL without password', { ...minimal, source: `postgresql://db/${SECRET}` }],
    ['a URL of another scheme', { ...minimal, destination: `https://me:${SECRET}@host/x` }],
    ['libpq keywords', { ...minimal, source: `host=db user=u password=${SECRET}` }],
    ['a libpq string without password', { ...minimal, source: `dbname=${SECRET} host=db` }],
    ['a token in a path', { ...minimal, destination: `md:shop?motherduck_token=${SECRET}` }],
    ['a field called password', { ...minimal, password: SECRET }],
    ['a field called credentials, an object', { ...minimal, credentials: { anything: SECRET } }],
    ['a field called apiKey, a number', { ...minimal, apiKey: 12345 }],
    ['a field deep inside', { ...minimal, source: { host: 'db', password: SECRET } }],
    ['a key that is one', { ...minimal, [`postgres://u:${SECRET}@h/d`]: true }],
    ['a table name', { ...minimal, tableNames: ['orders', `password=${SECRET}`] }],
    ['an input that is one text', `postgres://u:${SECRET}@db/shop`],
    ['a text of JSON', `{"password": "${SECRET}"}`],
    ['a private key', { ...minimal, source: '-----BEGIN RSA PRIVATE KEY-----' }],
    ['beside an unknown field', { ...minimal, walBudget: 1, secret: SECRET }],
  ])('%s is refused and repeated nowhere', (_what, input) => {
    const { text, error } = refuse(input)
    expect(error.kind).toBe('InvalidInput')
    expect(text).toContain("Temporal has stored this run's input")
    expect(text).toContain('temporal workflow delete --workflow-id shop --run-id run-1')
    for (const part of [SECRET, '12345', 'RSA']) expect(text).not.toContain(part)
    expect(error.cause).toBeUndefined()
  })

  it('does not ask to delete a run that holds nothing: a rejected update', () => {
    const { text } = refusal(() => parseRetryInput({ tableNames: [`password=${SECRET}`] }, { of: 'update retryFailed', storedIn: null }))
    expect(text).not.toContain('delete')
    expect(text).not.toContain(SECRET)
  })

  it('quotes a workflow id for the shell', () => {
    const { error } = refusal(() =>
      parseReplicationInput({ ...minimal, password: 'x' }, { of: 'replicate', storedIn: { workflowId: "it's mine", runId: 'r' } }),
    )
    expect(error.remedy).toContain(`--workflow-id 'it'\\''s mine' --run-id r`)
  })

  it.each(['password_resets', 'tokens', 'public.secrets', 'md:warehouse', 'a:b', 'user=1', 'mail@example'])('lets the name %s pass', (tableName) => {
    expect(parse({ ...minimal, tableNames: tableName }).tableNames).toEqual([tableName])
  })
})

describe('dropReplication', () => {
  it('needs the slot name as confirmation', () => {
    expect(parseDropInput({ ...minimal, confirm: 'shop_slot' }, origin)).toEqual({ spec: parse(minimal), dropDestination: false })
    expect(parseDropInput({ ...minimal, confirm: 'shop_slot', dropDestination: true }, origin).dropDestination).toBe(true)
    expect(refusal(() => parseDropInput({ ...minimal, confirm: 'other' }, origin)).error.message).toContain('confirm')
    expect(refusal(() => parseDropInput(minimal, origin)).error.message).toContain('confirm is required')
  })
})

describe('updates', () => {
  const update: InputOrigin = { of: 'update pause', storedIn: null }

  it('takes an empty object or nothing where nothing is needed', () => {
    for (const input of [undefined, null, {}]) {
      expect(() => {
        parseEmptyInput(input, update)
      }).not.toThrow()
    }
  })

  it.each([
    ['an unknown field', { tables: 'x' }, 'update pause: tables is not a known field; there are none'],
    ['a text', '{}', 'update pause takes one JSON object, not a text'],
    ['a list', [{}], 'update pause takes one JSON object, not a list'],
    ['a number', 1, 'update pause takes one JSON object, not a number'],
  ])('refuses %s', (_what, input, message) => {
    const { error } = refusal(() => {
      parseEmptyInput(input, update)
    })
    expect(error.message).toBe(message)
    if (typeof input !== 'object' || Array.isArray(input)) expect(error.remedy).toBe('give it {}')
  })

  it('reads which tables an order is for, which it must name', () => {
    expect(parseTablesInput({ tableNames: ['orders', 'orders'] }, update)).toEqual(['orders'])
    expect(parseResyncInput({ tableNames: 'orders' }, update)).toEqual({ tableNames: ['orders'] })
    expect(parseResyncInput({ tableNames: 'orders', writeMode: { orders: ['merge', 'scd2'] }, deleteMode: 'soft' }, update)).toEqual({ tableNames: ['orders'], shapes: { writeMode: { orders: ['merge', 'scd2'] }, deleteMode: 'soft' } })
    expect(refusal(() => parseResyncInput({ tableNames: 'orders', writeMode: 'scd2', deleteMode: 'soft' }, update)).error.message).toContain('deleteMode soft marks the rows of merge tables')
    expect(refusal(() => parseResyncInput({ tableNames: 'orders', writeModes: 'scd2' }, update)).error.message).toContain('nearest known one is writeMode')
    expect(parseRemoveInput({ tableNames: 'orders' }, update)).toEqual({ tableNames: ['orders'], dropDestination: false })
    expect(parseRemoveInput({ tableNames: 'orders', dropDestination: true }, update).dropDestination).toBe(true)
    for (const input of [undefined, {}, { tableNames: null }]) {
      for (const parse of [parseTablesInput, parseRemoveInput]) expect(refusal(() => parse(input, update)).error.message).toBe('update pause: tableNames is required')
    }
    expect(refusal(() => parseTablesInput({ tableNames: [] }, update)).error.message).toBe('update pause: tableNames must not be empty')
    expect(refusal(() => parseRemoveInput({ tableNames: 'x', dropDestinations: true }, update)).error.message).toContain('nearest known one is dropDestination')
  })

  it('reads which tables to retry', () => {
    expect(parseRetryInput({}, update)).toBeNull()
    expect(parseRetryInput(undefined, update)).toBeNull()
    expect(parseRetryInput({ tableNames: 'orders' }, update)).toEqual(['orders'])
    expect(refusal(() => parseRetryInput({ tableName: 'x' }, update)).error.message).toContain('nearest known one is tableNames')
  })
})

describe('syncByXmin', () => {
  const xmin: InputOrigin = { of: 'syncByXmin', storedIn: null }
  const refuseXmin = (input: unknown) => refusal(() => parseXminInput(input, xmin))

  it('needs nothing, and fills in its defaults', () => {
    const defaults = {
      source: null, destination: null, schemaName: 'public', tableNames: null, includeColumns: {}, columns: {}, datasetName: null, writeMode: 'merge',
      schemaChanges: 'apply', reset: false, targetBatchSize: null, deletes: 'ignore',
    } // prettier-ignore
    expect(parseXminInput(undefined, xmin)).toEqual(defaults)
    expect(parseXminInput({ tableNames: 'orders', writeMode: { orders: 'append' }, deletes: 'compare', deleteMode: 'hard' }, xmin)).toEqual({
      ...defaults,
      tableNames: ['orders'],
      writeMode: { orders: ['append'] },
      deletes: 'compare',
    })
  })

  it('takes nothing that means a slot, and says why', () => {
    for (const field of ['slotName', 'publicationName', 'publish', 'flushSlot', 'snapshotMode', 'walBudgetBytes', 'spoolBudgetBytes']) {
      expect(refuseXmin({ [field]: 'x' }).error).toMatchObject({ kind: 'InvalidInput', message: expect.stringContaining(`syncByXmin takes no ${field} (`) as string })
    }
    expect(refuseXmin({ slotName: 's', publicationName: 'p' }).error.remedy).toContain('leave slotName, publicationName out')
  })

  it('refuses what rows without commit times cannot give, and unknown fields with the nearest name', () => {
    expect(refuseXmin({ writeMode: 'scd2' }).text).toContain('which scd2 needs')
    expect(refuseXmin({ writeMode: { orders: 'scd2' } }).text).toContain('merge or append')
    expect(refuseXmin({ writeMode: { orders: ['merge', 'append'] } }).text).toContain('merge or append')
    expect(refuseXmin({ deleteMode: 'soft' }).text).toContain('which soft needs')
    expect(refuseXmin({ schemaChanges: 'ask' }).text).toContain('nobody to ask')
    expect(refuseXmin({ delete: 'compare' }).text).toContain('the nearest known one is delete')
    expect(refuseXmin({ source: 'postgres://u:hunter2@h/d', slotName: 's' }).text).not.toContain('hunter2')
  })
})
