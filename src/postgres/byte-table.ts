import type pg from 'pg'
import type { ByteTable } from './pgoutput/source-text.ts'

/** Encodings of databases in which each character is one byte. Source: https://www.postgresql.org/docs/current/multibyte.html#MULTIBYTE-CHARSET-SUPPORTED */
const SINGLE_BYTE = /^(LATIN([1-9]|10)|WIN(125[0-8]|866|874)|ISO_8859_[5-8]|KOI8[RU])$/

const FIRST = 0x80
const LAST = 0xff
/** A character's SQLSTATE where there is none, and that of a byte that is none. */
const NO_CHARACTER: readonly unknown[] = ['22P05', '22021']

/** Is each character of a database of this encoding one byte? */
export function isSingleByte(serverEncoding: string): boolean {
  return SINGLE_BYTE.test(serverEncoding)
}

/** What the server itself converts each byte of a single-byte encoding to. */
export async function readByteTable(client: pg.Client, serverEncoding: string): Promise<ByteTable> {
  return readRange(client, serverEncoding, [FIRST, LAST])
}

/** One byte without a character fails the whole question: then it is asked for halves. */
async function readRange(client: pg.Client, encoding: string, [first, last]: readonly [number, number]): Promise<ByteTable> {
  const question = `SELECT pg_catalog.encode(pg_catalog.convert(pg_catalog.set_byte('\\x00'::bytea, 0, i), '${encoding}', 'UTF8'), 'hex') AS text FROM generate_series(${String(first)}, ${String(last)}) i ORDER BY i`
  try {
    const { rows } = await client.query<{ text: string }>(question)
    return rows.map(({ text }) => Buffer.from(text, 'hex'))
  } catch (error) {
    if (!(error instanceof Error) || !NO_CHARACTER.includes(Reflect.get(error, 'code'))) throw error
    if (first === last) return [null]
    const middle = Math.floor((first + last) / 2)
    return [...(await readRange(client, encoding, [first, middle])), ...(await readRange(client, encoding, [middle + 1, last]))]
  }
}
