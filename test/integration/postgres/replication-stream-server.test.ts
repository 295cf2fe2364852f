import { execFile } from 'node:child_process'
import { chmod, chown, copyFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { findServerUser, makeServerTemporaryDirectory } from '../../../src/embedded/process-user.ts'
import { startPostgres, type PostgresServer } from '../../../src/embedded/postgres-server.ts'
import { openReplicationStream } from '../../../src/postgres/replication-stream.ts'
import { createSource } from '../../../src/postgres/source.ts'
import { Collector, SourceDatabase, failureOf, waitFor } from './stream-harness.ts'

const run = promisify(execFile)
const ROWS = 30_000

/** What needs a server of its own: TLS, little room for WAL, a restart. */
describe('replication stream of a server with TLS and little room for WAL', () => {
  let server: PostgresServer
  let certificates: string
  let ours: string
  let source: SourceDatabase

  beforeAll(async () => {
    const user = await findServerUser()
    certificates = await makeServerTemporaryDirectory(user)
    ours = await mkdtemp(join(tmpdir(), 'certificates-'))
    await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', 'key', '-out', 'crt'], { cwd: ours })
    for (const file of ['key', 'crt']) {
      const target = join(certificates, file)
      await copyFile(join(ours, file), target)
      await chmod(target, 0o600)
      if (user !== undefined) await chown(target, user.uid, user.gid)
    }
    server = await startPostgres({ settings: { ssl: true, ssl_cert_file: join(certificates, 'crt'), ssl_key_file: join(certificates, 'key'), max_slot_wal_keep_size: '48MB', max_wal_size: '48MB', min_wal_size: '32MB' } })
    source = await SourceDatabase.create(server.url)
  })
  afterAll(async () => {
    await source.client.end().catch(() => undefined)
    await server.stop()
    await rm(certificates, { recursive: true })
    await rm(ours, { recursive: true })
  })

  it.each(['disable', 'prefer', 'require', 'verify-full'] as const)('carries a bulk of changes and pauses with sslmode %s', async (sslmode) => {
    const slot = await source.createSlot()
    const collector = new Collector()
    const credentials = { ...source.credentials, host: 'localhost', sslmode, sslrootcert: sslmode === 'verify-full' ? join(ours, 'crt') : null }
    const stream = await openReplicationStream(credentials, source.optionsFor(slot, collector))
    await source.client.query(`INSERT INTO t SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, ${ROWS}) n`)
    await waitFor('the first change', () => collector.callCount > 0)
    stream.pause()
    const { callCount } = collector
    await source.client.query(`UPDATE t SET v = id WHERE id % 100 = 0`)
    const from = performance.now()
    await waitFor('a while', () => performance.now() - from > 200)
    expect(collector.callCount - callCount).toBeLessThan(ROWS)
    stream.resume()
    await collector.waitForRows(ROWS + ROWS / 100)
    expect(collector.rows.slice(0, ROWS).map(([id]) => Number(id))).toEqual(Array.from({ length: ROWS }, (_, index) => index + 1))
    const { activePid } = await source.slotState(slot.slotName)
    const { rows } = await source.client.query<{ ssl: boolean }>('SELECT ssl FROM pg_stat_ssl WHERE pid = $1', [activePid])
    expect(rows[0]?.ssl).toBe(sslmode !== 'disable')
    await stream.close()
    expect((await source.slotState(slot.slotName)).activePid).toBeNull()
    await source.client.query(`TRUNCATE t; SELECT pg_drop_replication_slot('${slot.slotName}')`)
  })

  // Regression: a copy of an idle server's table waited for up to 15 s, until the server flushed of itself what reading had written.
  it('has WAL flushed that no commit stands behind', async () => {
    const opened = createSource(source.credentials, 'p')
    const from = performance.now()
    try {
      // Of itself the server flushes it every 15 s: several times, so that this cannot be what the test sees.
      for (let round = 0; round < 5; round++) {
        await source.client.query(`SELECT pg_logical_emit_message(false, 'test', 'not flushed')`)
        const { rows } = await source.client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
        await opened.flushWal()
        await waitFor('what was written to be flushed', async () => {
          const { rows: [flushed] } = await source.client.query<{ isFlushed: boolean }>('SELECT pg_current_wal_flush_lsn() >= $1::pg_lsn AS "isFlushed"', [rows[0]?.lsn])
          return flushed?.isFlushed
        })
      }
      expect(performance.now() - from).toBeLessThan(45_000)
    } finally {
      await opened.close()
    }
  })

  it('fails with SlotLost when the server has thrown away the slot\'s WAL', async () => {
    const slot = await source.createSlot()
    await waitFor('the slot to be lost', async () => {
      await source.client.query(`INSERT INTO t SELECT n, repeat(md5(random()::text), 30) FROM generate_series(1, 50000) n; TRUNCATE t; SELECT pg_switch_wal(); CHECKPOINT`)
      const { rows } = await source.client.query<{ status: string }>('SELECT wal_status AS status FROM pg_replication_slots WHERE slot_name = $1', [slot.slotName])
      return rows[0]?.status === 'lost'
    })
    const opening = openReplicationStream(source.credentials, source.optionsFor(slot, new Collector()))
    await expect(opening).rejects.toMatchObject({ kind: 'SlotLost', isRetryable: false })
  })

  it('fails with SourceUnavailable when the server shuts down, and goes on exactly after it', async () => {
    const slot = await source.createSlot()
    const collector = new Collector()
    const stream = await openReplicationStream(source.credentials, source.optionsFor(slot, collector))
    await source.client.query(`INSERT INTO t VALUES (1, 'before')`)
    await collector.waitForRows(1)
    const [first] = collector.transactions
    if (first === undefined) throw new Error('no transaction')
    stream.confirm(first.endLsn)
    const failing = failureOf(stream)
    await source.client.end()
    await server.restart()
    expect(await failing).toMatchObject({ kind: 'SourceUnavailable', isRetryable: true })
    const client = new pg.Client({ connectionString: source.url })
    await client.connect()
    await client.query(`INSERT INTO t VALUES (2, 'after')`)
    const after = new Collector()
    const again = await openReplicationStream(source.credentials, { ...source.optionsFor(slot, after), startLsn: first.endLsn })
    await after.waitForRows(1)
    expect(after.rows).toEqual([['2', 'after']])
    await again.close()
    await client.end()
  })
})
