import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, inject, it, vi } from 'vitest'
import type { ChunkCopy, CopyPlan, KeyRange } from '../../../src/model/source.ts'
import type { TableSchema } from '../../../src/model/table-schema.ts'
import { readTables } from '../../../src/postgres/catalog.ts'
import { planChunks } from '../../../src/postgres/chunk-plan.ts'
import { CopyConnections } from '../../../src/postgres/copy-connections.ts'
import { connect } from '../../../src/postgres/session.ts'
import { beginCopy } from '../../../src/postgres/snapshot-copy.ts'
import { cellsOf, type Cell } from '../../unit/postgres/pgoutput/recording.ts'
import { SourceDatabase, waitFor } from './stream-harness.ts'

const EVERYTHING: KeyRange = { lower: null, upper: null }
const STAGED = { delimiter: '\x1f', quote: '\x1e' } as const
const NEVER = new AbortController().signal

/** Since PostgreSQL 15. */
const HAS_ROW_FILTERS = inject('postgresMajor') >= 15

describe('copies', () => {
  const serverUrl = inject('postgresUrl')
  let source: SourceDatabase
  let connections: CopyConnections
  let session: pg.Client
  const open: ChunkCopy[] = []

  beforeAll(async () => {
    source = await SourceDatabase.create(serverUrl)
    await source.client.query(`CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert', publish_via_partition_root = true)`)
    connections = new CopyConnections(source.credentials)
    session = await connect(source.credentials)
  })
  afterEach(async () => {
    await Promise.all(open.splice(0).map((copy) => copy.close()))
  })
  afterAll(async () => {
    await session.end()
    await connections.close()
    await source.drop()
  })

  async function describeTable(name: string): Promise<TableSchema> {
    const { rows } = await source.client.query<{ oid: number }>('SELECT $1::regclass::oid AS oid', [name])
    const [table] = await readTables(
      session,
      rows.map((row) => row.oid),
      null,
    )
    if (table === undefined) throw new Error(`no table ${name}`)
    return table
  }

  async function begin(
    table: TableSchema,
    range: KeyRange = EVERYTHING,
    publicationName = 'everything',
    signal = NEVER,
  ): Promise<ChunkCopy> {
    const copy = await beginCopy(connections, { table, range, publicationName, hasColumnList: false, signal })
    if (copy.tag === 'changed') throw new Error('the table has changed')
    open.push(copy)
    return copy
  }

  async function copyRows(table: TableSchema, range: KeyRange = EVERYTHING, publicationName = 'everything'): Promise<Cell[][]> {
    const copy = await begin(table, range, publicationName)
    const rows: Cell[][] = []
    expect(
      await copy.rows((tuple) => {
        rows.push(cellsOf(tuple))
        return undefined
      }),
    ).toBe(rows.length)
    await copy.close()
    return rows
  }

  /** Copies every range of a plan and checks that together they are the table, each row once. */
  async function expectExactCover(name: string, ranges: readonly KeyRange[]): Promise<number[]> {
    const table = await describeTable(name)
    const counts: number[] = []
    const copied: string[] = []
    for (const range of ranges) {
      const rows = await copyRows(table, range)
      counts.push(rows.length)
      copied.push(...rows.map((row) => JSON.stringify(row)))
    }
    const columns = table.columns.map((column) => pg.escapeIdentifier(column.name)).join(', ')
    const types = { getTypeParser: () => (text: unknown) => text }
    const { rows } = await session.query<string[]>({ text: `SELECT ${columns} FROM public.${name}`, rowMode: 'array', types })
    expect(copied.sort()).toEqual(rows.map((row) => JSON.stringify(row)).sort())
    expect(ranges[0]?.lower).toBeNull()
    expect(ranges.at(-1)?.upper).toBeNull()
    return counts
  }

  async function planOf(name: string, targetRows: number): Promise<CopyPlan> {
    const plan = await planChunks(session, { table: await describeTable(name), publicationName: 'everything', hasColumnList: false, targetRows })
    if (plan.tag === 'changed') throw new Error('the table has changed')
    return plan
  }

  it('gives nasty text as it is', async () => {
    await source.client.query('CREATE TABLE nasty (id int PRIMARY KEY, v text, w text)')
    const values = [
      'a\tb',
      'a\nb\r\n',
      'back\\slash',
      '\\',
      '\\.',
      '\\N',
      '',
      null,
      '\b\f\v',
      '🐘 漢字 é',
      '"quoted", \'too\'',
      'x\\'.repeat(5_000_000),
    ]
    for (const [id, value] of values.entries())
      await source.client.query('INSERT INTO nasty VALUES ($1, $2, $3)', [id, value, id % 2 === 0 ? value : null])
    const rows = await copyRows(await describeTable('nasty'))
    expect(rows.sort((a, b) => Number(a[0]) - Number(b[0])).map(([, v]) => v)).toEqual(values)
    expect(rows.map(([, , w]) => w)).toEqual(values.map((value, id) => (id % 2 === 0 ? value : null)))
  })

  it('copies values of many megabytes one after the other', async () => {
    await source.client.query(
      `CREATE TABLE big (id int PRIMARY KEY, v text); INSERT INTO big SELECT n, repeat(chr(64 + n), 10000000) FROM generate_series(1, 5) n`,
    )
    const copy = await begin(await describeTable('big'))
    const sizes: [string, number][] = []
    await copy.rows((tuple) => {
      sizes.push([String.fromCharCode(tuple.buffer[tuple.starts[1] ?? 0] ?? 0), (tuple.ends[1] ?? 0) - (tuple.starts[1] ?? 0)])
      return undefined
    })
    expect(sizes.sort()).toEqual(['A', 'B', 'C', 'D', 'E'].map((letter) => [letter, 10_000_000]))
  })

  it('gives lines as the server writes them, whatever the cells hold and however long they are', async () => {
    await source.client.query('CREATE TABLE written (id int, v text, w text)')
    const values = ['a\x1fb', '\x1e', 'a\nb\r\n', '\r', '\\.', '\\N', '', null, ' x ', '\ufeff', '"q"', 'é🐘', 'y\x1e'.repeat(4_000_000), 'end']
    for (const [id, value] of values.entries()) await source.client.query('INSERT INTO written VALUES ($1, $2, $3)', [id, value, id % 2 === 0 ? value : null])
    await source.client.query(`INSERT INTO written SELECT n, 'row ' || n, NULL FROM generate_series(100, 40000) n`)
    const cell = (value: string | null): string => {
      if (value === null) return ''
      return value === '' || ['\x1e', '\x1f', '\r', '\n'].some((special) => value.includes(special)) ? `\x1e${value.replaceAll('\x1e', '\x1e\x1e')}\x1e` : value
    }
    const expected = [
      ...values.map((value, id) => `${String(id)}\x1f${cell(value)}\x1f${cell(id % 2 === 0 ? value : null)}\n`),
      ...Array.from({ length: 39_901 }, (_, n) => `${String(n + 100)}\x1frow ${String(n + 100)}\x1f\n`),
    ]
    const copy = await begin(await describeTable('written'))
    const parts: Buffer[] = []
    let rowCount = 0
    let longestRowBytes = 0
    const count = await copy.lines(STAGED, (lines) => {
      parts.push(Buffer.from(lines.buffer.subarray(lines.start, lines.end)))
      rowCount += lines.rowCount
      longestRowBytes = Math.max(longestRowBytes, lines.longestRowBytes)
    })
    const text = Buffer.concat(parts).toString()
    expect(text === expected.join('')).toBe(true)
    expect([count, rowCount]).toEqual([expected.length, expected.length])
    expect(longestRowBytes).toBe(Math.max(...expected.slice(0, values.length).map((line) => Buffer.byteLength(line))))
    expect(parts.length).toBeLessThan(expected.length / 10)
    await copy.close()
    expect(await copyRows(await describeTable('written'))).toHaveLength(expected.length)
  })

  it('gives rows in binary form, whatever their number and length, and the same again in another', async () => {
    await source.client.query("CREATE TABLE given_twice AS SELECT n, repeat('x', CASE WHEN n = 500 THEN 8000000 ELSE n % 50 END) AS v FROM generate_series(1, 40000) n; CREATE TABLE given_none (n int, v text); CREATE TABLE given_one AS SELECT NULL::int AS n, ''::text AS v")
    const sizes = { given_twice: 40_000, given_none: 0, given_one: 1 }
    for (const [name, expected] of Object.entries(sizes)) {
      const copy = await begin(await describeTable(name))
      let rowCount = 0
      let byteCount = 0
      const count = await copy.binaryRows((rows) => {
        rowCount += rows.rowCount
        for (let row = 0; row < rows.rowCount; row++) {
          const [start = 0, end = 0] = [rows.bounds[2 * row], rows.bounds[2 * row + 1]]
          if (rows.buffer.readInt16BE(start) !== 2) throw new Error('no row of two columns')
          byteCount += end - start
        }
      })
      const { rows: counted } = await source.client.query<{ bytes: number }>(`SELECT coalesce(sum(10 + coalesce(4 * (n IS NOT NULL)::int, 0) + length(v)), 0)::int AS bytes FROM ${name}`)
      expect([count, rowCount, byteCount]).toEqual([expected, expected, counted[0]?.bytes])
      let lineCount = 0
      expect(await copy.lines(STAGED, (lines) => { lineCount += lines.rowCount })).toBe(expected)
      expect(lineCount).toBe(expected)
      await copy.close()
    }
  })

  it('passes on what onRows throws', async () => {
    await source.client.query('CREATE TABLE thrown AS SELECT n FROM generate_series(1, 3) n')
    const copy = await begin(await describeTable('thrown'))
    await expect(copy.binaryRows(() => { throw new RangeError('of the caller') })).rejects.toThrow(RangeError)
    await copy.close()
    expect(await copyRows(await describeTable('thrown'))).toHaveLength(3)
  })

  it('passes on what onLines throws, at the last line too', async () => {
    await source.client.query('CREATE TABLE short AS SELECT n, n AS m FROM generate_series(1, 3) n')
    const failing = (): never => {
      throw new RangeError('of the caller')
    }
    for (const name of ['short', 'written']) {
      const copy = await begin(await describeTable(name))
      await expect(copy.lines(STAGED, failing)).rejects.toThrow(RangeError)
      await copy.close()
    }
    expect(await copyRows(await describeTable('short'))).toHaveLength(3)
  })

  it('waits for the promises of onRow, and calls it for nothing meanwhile', async () => {
    await source.client.query('CREATE TABLE waited AS SELECT n FROM generate_series(1, 30000) n')
    const copy = await begin(await describeTable('waited'))
    let isPending = false
    let sum = 0
    const count = await copy.rows((tuple) => {
      if (isPending) throw new Error('called while pending')
      const value = Number(cellsOf(tuple)[0])
      sum += value
      if (value % 997 !== 0) return undefined
      isPending = true
      return new Promise((resolve) =>
        setImmediate(() => {
          isPending = false
          resolve()
        }),
      )
    })
    expect([count, sum]).toEqual([30_000, (30_000 * 30_001) / 2])
  })

  it('passes on what onRow throws or rejects with, and the connections stay good', async () => {
    const table = await describeTable('waited')
    for (const failing of [
      () => {
        throw new RangeError('of the caller')
      },
      () => Promise.reject(new RangeError('of the caller')),
    ]) {
      const copy = await begin(table)
      await expect(copy.rows(failing)).rejects.toThrow(RangeError)
      await copy.close()
      expect(await copyRows(table)).toHaveLength(30_000)
    }
  })

  it.runIf(HAS_ROW_FILTERS)('maps errors of the server', async () => {
    const table = await describeTable('waited')
    await source.client.query(`CREATE PUBLICATION failing FOR TABLE waited WHERE (1 / (n - 20000) IS NOT NULL) WITH (publish = 'insert')`)
    const failing = await begin(table, EVERYTHING, 'failing')
    await expect(failing.rows(() => undefined)).rejects.toMatchObject({ name: 'ProtocolViolation' })
  })

  it('ends at once when aborted', async () => {
    const table = await describeTable('waited')
    const aborting = new AbortController()
    const reason = new Error('cancelled')
    const copy = await begin(table, EVERYTHING, 'everything', aborting.signal)
    await expect(
      copy.rows(() => {
        aborting.abort(reason)
        return undefined
      }),
    ).rejects.toBe(reason)
    await copy.close()
    await expect(begin(table, EVERYTHING, 'everything', aborting.signal)).rejects.toBe(reason)
    expect(await copyRows(table)).toHaveLength(30_000)
  })

  it('stops waiting for a lock when aborted', async () => {
    const table = await describeTable('waited')
    const blocker = await connect(source.credentials)
    await blocker.query('BEGIN; LOCK TABLE public.waited')
    const aborting = new AbortController()
    const beginning = begin(table, EVERYTHING, 'everything', aborting.signal)
    await waitFor(
      'the lock to be waited for',
      async () => (await source.client.query(`SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'waited'::regclass`)).rowCount === 1,
    )
    aborting.abort(new Error('cancelled'))
    await expect(beginning).rejects.toThrow('cancelled')
    await blocker.end()
  })

  // Cause: what waits for one chunk's copy comes before the next one's lock, which was for the former name: InvalidInput, or (without a size) ProtocolViolation, ended the whole replication.
  it.each([
    ['renamed', 'ALTER TABLE leaving RENAME TO left_behind'],
    ['moved to another schema', 'ALTER TABLE leaving SET SCHEMA away'],
    ['dropped', 'DROP TABLE leaving'],
  ])('follows a table that is %s while another chunk of it is copied', async (how, statement) => {
    await source.client.query(`DROP TABLE IF EXISTS left_behind; DROP SCHEMA IF EXISTS away CASCADE; CREATE SCHEMA away; CREATE TABLE leaving AS SELECT 1 AS n`)
    const table = await describeTable('leaving')
    const first = await begin(table)
    const altering = source.client.query(statement)
    const waiting = async (count: number): Promise<boolean> => (await session.query('SELECT 1 FROM pg_locks WHERE NOT granted AND relation = $1', [table.oid])).rowCount === count
    await waitFor('the statement to wait', async () => waiting(1))
    const second = beginCopy(connections, { table, range: EVERYTHING, publicationName: 'everything', hasColumnList: false, signal: NEVER })
    await waitFor('the next chunk to wait', async () => waiting(2))
    await first.rows(() => undefined)
    await first.close()
    await altering
    const copy = await second
    if (copy.tag !== 'changed') open.push(copy)
    expect(copy.tag === 'changed' ? copy.table : await copy.rows(() => undefined)).toBe(how === 'dropped' ? null : 1)
  })

  it('sees what its snapshot sees, although the table is rewritten or emptied as soon as it may be', async () => {
    await source.client.query(`CREATE TABLE rewritten AS SELECT n, 'x' AS v FROM generate_series(1, 100) n`)
    const table = await describeTable('rewritten')
    const copy = await begin(table)
    const altering = source.client.query('ALTER TABLE rewritten ALTER n TYPE int8')
    await waitFor(
      'the rewrite to wait',
      async () =>
        (await session.query(`SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'public.rewritten'::regclass`)).rowCount === 1,
    )
    let count = 0
    await copy.rows(() => {
      count++
      return undefined
    })
    expect(count).toBe(100)
    await copy.close()
    await altering
  })

  it('names a position past every commit that it sees, also with synchronous_commit off', async () => {
    const writer = new pg.Client({ connectionString: source.url })
    await writer.connect()
    await writer.query(`CREATE TABLE async (id int PRIMARY KEY); SET synchronous_commit = off`)
    const table = await describeTable('async')
    for (let id = 1; id <= 20; id++) {
      await writer.query('INSERT INTO async VALUES ($1)', [id])
      const inserted = await writer.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
      const copy = await begin(table)
      const { rows } = await writer.query<{ past: boolean }>('SELECT $1::pg_lsn >= $2::pg_lsn AS past', [
        `${(copy.snapshotLsn >> 32n).toString(16)}/${(copy.snapshotLsn & 0xffffffffn).toString(16)}`,
        inserted.rows[0]?.lsn,
      ])
      expect(rows[0]?.past).toBe(true)
      expect(Math.abs(Number(copy.snapshotTimeMicros / 1000n) - Date.now())).toBeLessThan(60_000)
      await copy.close()
    }
    await writer.end()
  })

  it('reads partitions through their root, and of inheritance the parent alone', async () => {
    await source.client.query(`
      CREATE TABLE parted (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
      CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000);
      CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (1000) TO (2000) PARTITION BY LIST (id);
      CREATE TABLE parted_2_1 PARTITION OF parted_2 DEFAULT;
      INSERT INTO parted SELECT n, 'v' FROM generate_series(0, 1999) n;
      CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (CHECK (true)) INHERITS (parent);
      INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2)`)
    const plan = await planOf('parted', 300)
    expect(plan.ranges.length).toBeGreaterThan(3)
    await expectExactCover('parted', plan.ranges)
    expect(await copyRows(await describeTable('parent'))).toEqual([['1']])
  })

  it.runIf(HAS_ROW_FILTERS)('applies a row filter', async () => {
    await source.client.query(`CREATE PUBLICATION filtered FOR TABLE parted WHERE (id % 2 = 0 OR v = 'no') WITH (publish = 'insert', publish_via_partition_root = true)`)
    expect(await copyRows(await describeTable('parted'), { lower: ['10'], upper: ['20'] }, 'filtered')).toHaveLength(5)
  })

  it.each([
    ['ADD COLUMN c int', ['id', 'a', 'c']],
    ['DROP COLUMN a', ['id']],
    ['RENAME COLUMN a TO b', ['id', 'b']],
    ['ALTER a TYPE varchar(9)', ['id', 'a']],
    ['DROP CONSTRAINT shaped_pkey', ['id', 'a']],
  ])('begins nothing when the table has changed since it was described: %s', async (change, columns) => {
    await source.client.query('DROP TABLE IF EXISTS shaped; CREATE TABLE shaped (id int PRIMARY KEY, a text)')
    const known = { table: await describeTable('shaped'), publicationName: 'everything', hasColumnList: false }
    await source.client.query(`ALTER TABLE shaped ${change}`)
    const begun = await beginCopy(connections, { ...known, range: EVERYTHING, signal: NEVER })
    expect(begun.tag === 'changed' && begun.table?.columns.map(({ name }) => name)).toEqual(columns)
    expect(await planChunks(session, { ...known, targetRows: 10 })).toMatchObject({ tag: 'changed' })
    await source.client.query('DROP TABLE shaped')
    expect(await beginCopy(connections, { ...known, range: EVERYTHING, signal: NEVER })).toEqual({ tag: 'changed', table: null })
    expect(await planChunks(session, { ...known, targetRows: 10 })).toEqual({ tag: 'changed', table: null })
  })

  describe('key ranges cover a table exactly', () => {
    const LINGUISTIC = `"en-x-icu"`
    it.each([
      ['integers', 'k int8', `SELECT n * 3 FROM generate_series(-2000, 2000) n`],
      [
        'text in another collation than C',
        `k text COLLATE ${LINGUISTIC}`,
        `SELECT (CASE n % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'B' ELSE 'é' END) || n FROM generate_series(1, 4000) n`,
      ],
      ['text with quotes and backslashes', 'k text', `SELECT chr(33 + n % 90) || '''\\\\' || n FROM generate_series(1, 4000) n`],
      ['two columns', `k text COLLATE ${LINGUISTIC}, k2 int`, `SELECT chr(65 + n % 26), n FROM generate_series(1, 4000) n`],
      ['uuids', 'k uuid', `SELECT gen_random_uuid() FROM generate_series(1, 4000)`],
      ['numerics, NaN among them', 'k numeric', `SELECT CASE n WHEN 1 THEN 'NaN' ELSE n / 7.0 END FROM generate_series(1, 4000) n`],
      ['floats', 'k float8', `SELECT sqrt(n) * (CASE n % 2 WHEN 0 THEN 1 ELSE -1 END) FROM generate_series(1, 4000) n`],
      ['timestamps', 'k timestamptz', `SELECT '2020-01-01'::timestamptz + n * interval '1.000001 s' FROM generate_series(1, 4000) n`],
      ['bytes', 'k bytea', `SELECT decode(md5(n::text), 'hex') FROM generate_series(1, 4000) n`],
      ['padded characters', 'k char(8)', `SELECT n::text FROM generate_series(1, 4000) n`],
      ['arrays', 'k int[]', `SELECT ARRAY[n % 7, n] FROM generate_series(1, 4000) n`],
      [
        'three columns of different types',
        'k date, k2 bool, k3 "Mood"',
        `SELECT '2020-01-01'::date + n % 500, n % 2 = 0, m::"Mood" FROM generate_series(1, 2000) n CROSS JOIN unnest(ARRAY['so so', 'it''s ok']) m ON CONFLICT DO NOTHING`,
      ],
    ])('for %s', async (_title, columns, rows) => {
      await source.client.query(`DROP TABLE IF EXISTS ranged; DROP TYPE IF EXISTS "Mood"; CREATE TYPE "Mood" AS ENUM ('so so', 'it''s ok')`)
      const key = columns
        .split(',')
        .map((column) => column.trim().split(' ')[0])
        .join(', ')
      await source.client.query(`CREATE TABLE ranged (${columns}, v text, PRIMARY KEY (${key}))`)
      await source.client.query(`INSERT INTO ranged ${rows}`)
      const plan = await planOf('ranged', 40)
      const counts = await expectExactCover('ranged', plan.ranges)
      expect(plan.ranges.length).toBeGreaterThan(2)
      expect(counts.every((count) => count > 0)).toBe(true)
    })
  })

  it('compares a type of an extension by its own order', async () => {
    const { rowCount } = await source.client.query(`SELECT 1 FROM pg_available_extensions WHERE name = 'citext'`)
    // Where the server has no citext, a type of our own does: text that is ordered by length.
    const type = rowCount === 1 ? 'citext' : null
    if (type === null) {
      await source.client.query(`
        CREATE TYPE len AS (t text);
        CREATE FUNCTION len_cmp(len, len) RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT coalesce(nullif(btint4cmp(length(($1).t), length(($2).t)), 0), bttextcmp(($1).t, ($2).t)) $$;
        ${(['lt:<:<', 'le:<=:<=', 'eq:=:=', 'ge:>=:>=', 'gt:>:>'] as const)
          .map((definition) => {
            const [name, operator, comparison] = definition.split(':')
            return `CREATE FUNCTION len_${name ?? ''}(len, len) RETURNS bool IMMUTABLE LANGUAGE sql AS $$ SELECT len_cmp($1, $2) ${comparison ?? ''} 0 $$; CREATE OPERATOR ${operator ?? ''} (LEFTARG = len, RIGHTARG = len, FUNCTION = len_${name ?? ''});`
          })
          .join('\n')}
        CREATE OPERATOR CLASS len_ops DEFAULT FOR TYPE len USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 len_cmp(len, len)`)
    } else await source.client.query('CREATE EXTENSION citext')
    const value = type === null ? `ROW(repeat('x', n % 40) || n)::len` : `(CASE n % 2 WHEN 0 THEN 'a' ELSE 'B' END || n)::citext`
    await source.client.query(
      `CREATE TABLE extended (k ${type ?? 'len'}, n int, PRIMARY KEY (k, n)); INSERT INTO extended SELECT ${value}, n FROM generate_series(1, 2000) n`,
    )
    const plan = await planOf('extended', 20)
    expect(plan.ranges.length).toBeGreaterThan(5)
    const counts = await expectExactCover('extended', plan.ranges)
    expect(Math.max(...counts)).toBeLessThan(1000)
  })

  it('gives one range where there is no key, and where the table is small', async () => {
    await source.client.query('CREATE TABLE keyless AS SELECT n FROM generate_series(1, 5000) n')
    expect((await planOf('keyless', 100)).ranges).toEqual([EVERYTHING])
    expect((await planOf('nasty', 100)).ranges).toEqual([EVERYTHING])
  })

  it('makes ranges of the wanted size on a table of many pages', async () => {
    await source.client.query(
      `CREATE TABLE large (page int8 PRIMARY KEY, read text); INSERT INTO large SELECT n::int8 * n, repeat('x', 100) FROM generate_series(1, 200000) n; ANALYZE large`,
    )
    const plan = await planOf('large', 10_000)
    expect(Math.abs(plan.ranges.length - 20)).toBeLessThanOrEqual(1)
    expect(Math.abs(plan.estimatedRows - 200_000)).toBeLessThan(10_000)
    const counts = await expectExactCover('large', plan.ranges)
    // Each range is as wide as 40 pages of the sample and 1,000 of its rows are apart: they differ by some three percent.
    expect(Math.min(...counts)).toBeGreaterThan(8_500)
    expect(Math.max(...counts)).toBeLessThan(11_500)
  })

  it('reads the sampled pages and no others', async () => {
    await source.client.query('CREATE TABLE read_by_page (id int8 PRIMARY KEY, v text); INSERT INTO read_by_page SELECT n, repeat(\'x\', 100) FROM generate_series(1, 200000) n; ANALYZE read_by_page')
    const pagesRead = async (): Promise<number> => {
      const { rows } = await source.client.query<{ pages: string }>("SELECT heap_blks_read + heap_blks_hit AS pages FROM pg_statio_user_tables WHERE relname = 'read_by_page'")
      return Number(rows[0]?.pages)
    }
    const before = await pagesRead()
    await planOf('read_by_page', 40_000)
    // A session tells what it has read with its next statement, no more often than once a second.
    await vi.waitFor(async () => {
      await session.query('SELECT 1')
      expect(await pagesRead()).toBeGreaterThan(before)
    }, { timeout: 20_000, interval: 1_100 })
    expect(await pagesRead() - before).toBeLessThan(1_000)
  })
})
