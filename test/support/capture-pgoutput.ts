/**
 * Prints what a real server's pgoutput writes for a scenario that holds every message of protocol version 1, as JSON: the golden bytes of
 * test/unit/postgres/pgoutput. With `streamed`, what a walsender sends in version 2 of transactions in progress. Run by hand, as a superuser
 * of a server with wal_level = logical and an empty database:
 *
 *     npx tsx test/support/capture-pgoutput.ts postgresql://postgres@localhost/scratch > test/unit/postgres/pgoutput/golden-18.json
 *     npx tsx test/support/capture-pgoutput.ts postgresql://postgres@localhost/scratch streamed > test/unit/postgres/pgoutput/golden-streamed-18.json
 */
import pg from 'pg'

const SCENARIO: readonly string[] = [
  `INSERT INTO plain VALUES (1, 'one', 1.50, true), (2, NULL, NULL, NULL), (3, '', -0.00, false)`,
  `UPDATE plain SET name = 'zwei — zweite 🐘' WHERE id = 2`,
  `UPDATE plain SET id = 4 WHERE id = 3`,
  `DELETE FROM plain WHERE id = 1`,
  `INSERT INTO moods VALUES ('happy', 1)`,
  `UPDATE moods SET level = 2`,
  `DELETE FROM moods`,
  `INSERT INTO toasted SELECT 1, string_agg(md5(n::text), ''), 0 FROM generate_series(1, 400) n`,
  `UPDATE toasted SET counter = 1`,
  `BEGIN; INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1); COMMIT`,
  `TRUNCATE parent, child RESTART IDENTITY CASCADE`,
  `TRUNCATE plain`,
  `SELECT pg_logical_emit_message(false, 'outside', 'not transactional')`,
  `BEGIN; SELECT pg_logical_emit_message(true, 'inside', 'transactional'); INSERT INTO plain VALUES (5); COMMIT`,
  `SELECT pg_replication_origin_session_setup('elsewhere')`,
  `BEGIN; SELECT pg_replication_origin_xact_setup('0/ABCDEF', '2020-02-02 02:02:02+00'); INSERT INTO plain VALUES (6); COMMIT`,
]

async function main(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  for (const statement of [
    `CREATE TABLE plain (id int8 PRIMARY KEY, name text, price numeric(10, 2), flag bool)`,
    `CREATE TYPE mood AS ENUM ('sad', 'happy')`,
    `CREATE TABLE moods (mood mood, level int2)`,
    `ALTER TABLE moods REPLICA IDENTITY FULL`,
    `CREATE TABLE toasted (id int4 PRIMARY KEY, body text, counter int4)`,
    `ALTER TABLE toasted ALTER body SET STORAGE EXTERNAL`,
    `CREATE TABLE parent (id int4 PRIMARY KEY)`,
    `CREATE TABLE child (id int4 PRIMARY KEY, parent_id int4 REFERENCES parent)`,
    `CREATE PUBLICATION golden FOR ALL TABLES`,
    `SELECT pg_create_logical_replication_slot('golden', 'pgoutput')`,
    `SELECT pg_replication_origin_create('elsewhere')`,
    ...SCENARIO,
  ]) await client.query(statement)
  const end = await client.query<{ lsn: string; version: string }>(`SELECT pg_current_wal_insert_lsn()::text AS lsn, current_setting('server_version') AS version`)
  await client.query('SELECT pg_replication_origin_session_reset()')
  await client.query(`SELECT pg_replication_origin_drop('elsewhere')`)
  const messages = await client.query<{ data: Buffer }>(
    `SELECT data FROM pg_logical_slot_get_binary_changes('golden', $1, NULL, 'proto_version', '1', 'publication_names', 'golden', 'messages', 'true')`,
    [end.rows[0]?.lsn],
  )
  await client.query(`SELECT pg_drop_replication_slot('golden')`)
  await client.end()
  const golden = { serverVersion: end.rows[0]?.version, scenario: SCENARIO, messages: messages.rows.map((row) => row.data.toString('hex')) }
  process.stdout.write(`${JSON.stringify(golden, null, 1)}\n`)
}

/** So many small rows are over 64 kB in the server's count, and little here. */
const OVER_LIMIT = 'generate_series(1, 500)'

/** What which session does next; a number waits until so many blocks have come. */
const STREAMED_SCENARIO: readonly (readonly ['a' | 'b' | 'plain', string] | number)[] = [
  ['a', `BEGIN; INSERT INTO plain SELECT n, 'a' FROM ${OVER_LIMIT} n`],
  1,
  ['b', `BEGIN; SAVEPOINT s; INSERT INTO moods SELECT 'sad', n FROM ${OVER_LIMIT} n`],
  2,
  ['plain', `INSERT INTO plain VALUES (0, 'plain')`],
  ['b', `ROLLBACK TO s; INSERT INTO moods SELECT 'happy', n FROM ${OVER_LIMIT} n`],
  3,
  ['plain', `BEGIN; INSERT INTO moods SELECT NULL, n FROM ${OVER_LIMIT} n`],
  4,
  ['plain', 'ROLLBACK'],
  ['a', `SELECT pg_logical_emit_message(true, 'inside', 'of a streamed transaction'); UPDATE plain SET id = -id WHERE id < 4; UPDATE plain SET name = 'z' WHERE id = 7; DELETE FROM plain WHERE id = 8; TRUNCATE parent; COMMIT`],
  ['b', 'COMMIT'],
  ['plain', `INSERT INTO moods VALUES ('sad', 0)`],
]

async function streamed(url: string): Promise<void> {
  const connected = async (options = {}): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: url, ...options })
    await client.connect()
    return client
  }
  const sessions = { a: await connected(), b: await connected(), plain: await connected() }
  for (const statement of [
    `CREATE TABLE plain (id int8 PRIMARY KEY, name text)`,
    `CREATE TYPE mood AS ENUM ('sad', 'happy')`,
    `CREATE TABLE moods (mood mood, level int2)`,
    `ALTER TABLE moods REPLICA IDENTITY FULL`,
    `CREATE TABLE parent (id int4 PRIMARY KEY)`,
    `CREATE PUBLICATION golden FOR ALL TABLES`,
    `SELECT pg_create_logical_replication_slot('golden', 'pgoutput')`,
  ]) await sessions.plain.query(statement)
  const walsender = await connected({ replication: 'database', options: '-c logical_decoding_work_mem=64kB' })
  // Its end is ours.
  walsender.on('error', () => undefined)
  const messages: Buffer[] = []
  const { connection } = walsender as unknown as { connection: NodeJS.EventEmitter }
  // XLogData: its own header is 25 bytes.
  connection.on('copyData', ({ chunk }: { chunk: Buffer }) => { if (chunk[0] === 0x77) messages.push(Buffer.from(chunk.subarray(25))) })
  walsender.query(`START_REPLICATION SLOT golden LOGICAL 0/0 (proto_version '2', streaming 'on', messages 'true', publication_names 'golden')`).catch(() => undefined)
  const until = async (isDone: () => boolean): Promise<void> => {
    while (!isDone()) await new Promise((resolve) => setTimeout(resolve, 20))
  }
  const count = (tag: string): number => messages.filter((message) => message[0] === tag.charCodeAt(0)).length
  for (const step of STREAMED_SCENARIO) {
    if (typeof step === 'number') await until(() => count('E') >= step)
    else await sessions[step[0]].query(step[1])
  }
  await until(() => count('c') === 2 && count('C') === 2)
  // It waits for the command's end, which does not come.
  void walsender.end()
  const { rows } = await sessions.plain.query<{ version: string }>(`SELECT current_setting('server_version') AS version`)
  await sessions.plain.query(`SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = 'golden' AND active`)
  await sessions.plain.query(`SELECT pg_drop_replication_slot('golden')`)
  for (const session of Object.values(sessions)) await session.end()
  process.stdout.write(`${JSON.stringify({ serverVersion: rows[0]?.version, scenario: STREAMED_SCENARIO, messages: messages.map((message) => message.toString('hex')) }, null, 1)}\n`)
}

const [url, what] = process.argv.slice(2)
if (url === undefined) throw new Error('usage: capture-pgoutput.ts <url> [streamed]')
await (what === 'streamed' ? streamed(url) : main(url))
