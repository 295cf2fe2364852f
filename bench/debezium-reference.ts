import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runProgram, numberIn } from './run-program.ts'
import type { SlotToDrain } from './references.ts'

/** What Debezium is to do, and how many records that is. */
export type DebeziumTask = ({ readonly tag: 'changes' } & SlotToDrain & { readonly recordCount: number }) | { readonly tag: 'snapshot'; readonly tableNames: readonly string[]; readonly recordCount: number }

/** For two cores: a young generation in which a batch's records die before they are copied. */
const JVM_OPTIONS = ['-XX:+UseSerialGC', '-Xms2g', '-Xmx2g', '-Xmn1g']

/**
 * Seconds from the first batch to the last record that Debezium's embedded engine gives, without a destination; its start and the wait for
 * the first batch do not count. `jarDirectory` holds its jars.
 */
export async function timeDebezium(jarDirectory: string, url: string, task: DebeziumTask): Promise<number> {
  const program = fileURLToPath(new URL('./DebeziumReference.java', import.meta.url))
  const properties = Object.entries(debeziumProperties(url, task)).map(([name, value]) => `${name}=${value}`)
  const output = await runProgram('java', [...JVM_OPTIONS, '-cp', join(jarDirectory, '*'), program, String(task.recordCount), ...properties], process.env)
  return numberIn(output, /^seconds (\d+\.\d+)$/m, 'Debezium')
}

/**
 * The engine's configuration: a slot and publication that are there, positions in memory, and one record for each change or row.
 *
 * Source: https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-connector-properties
 */
export function debeziumProperties(url: string, task: DebeziumTask): Readonly<Record<string, string>> {
  const { hostname, port, username, password, pathname } = new URL(url)
  return {
    'name': 'bench',
    'connector.class': 'io.debezium.connector.postgresql.PostgresConnector',
    'topic.prefix': 'bench',
    'offset.storage': 'org.apache.kafka.connect.storage.MemoryOffsetBackingStore',
    'database.hostname': hostname,
    'database.port': port,
    'database.user': decodeURIComponent(username),
    'database.password': decodeURIComponent(password),
    'database.dbname': pathname.slice(1),
    'database.sslmode': 'disable',
    'plugin.name': 'pgoutput',
    'publication.autocreate.mode': 'disabled',
    'tombstones.on.delete': 'false',
    // Tuned: its defaults are batches of 2,048, half a second of waiting for a batch to fill, and a BigDecimal for each numeric.
    'max.batch.size': '8192',
    'max.queue.size': '32768',
    'poll.interval.ms': '10',
    'decimal.handling.mode': 'string',
    ...(task.tag === 'changes'
      ? { 'snapshot.mode': 'no_data', 'slot.name': task.slotName, 'publication.name': task.publicationName }
      : { 'snapshot.mode': 'initial_only', 'table.include.list': task.tableNames.map((name) => `public.${name}`).join(',') }),
  }
}
