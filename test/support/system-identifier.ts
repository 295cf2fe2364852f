import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'

/** Of the fields before it, in `pg_control`. */
const CRC_BYTES = 4
/** What is said of a control file is within its first sector. */
const CONTROL_BYTES = 512
/** In the long header of a WAL segment's first page. */
const SEGMENT_IDENTIFIER_OFFSET = 24

/**
 * Gives the cluster of a server that was shut down another system identifier, and leaves everything else as it is, slots too: what `pg_upgrade` does to a cluster with
 * slots from PostgreSQL 17 on, but for the WAL that goes on elsewhere. Returns the new one.
 *
 * Source: https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_control.h and src/include/access/xlog_internal.h
 */
export async function changeSystemIdentifier(dataDirectory: string): Promise<bigint> {
  const control = await open(join(dataDirectory, 'global', 'pg_control'), 'r+')
  try {
    const bytes = Buffer.alloc(CONTROL_BYTES)
    await control.read(bytes, 0, CONTROL_BYTES, 0)
    const end = crcOffsetOf(bytes)
    const identifier = bytes.readBigUInt64LE(0) + 1n
    bytes.writeBigUInt64LE(identifier, 0)
    bytes.writeUInt32LE(crc32c(bytes.subarray(0, end)), end)
    await control.write(bytes, 0, end + CRC_BYTES, 0)
    for (const name of await readdir(join(dataDirectory, 'pg_wal'))) if (/^[0-9A-F]{24}$/.test(name)) await changeSegment(join(dataDirectory, 'pg_wal', name), identifier)
    return identifier
  } finally {
    await control.close()
  }
}

async function changeSegment(path: string, identifier: bigint): Promise<void> {
  const segment = await open(path, 'r+')
  try {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(identifier)
    await segment.write(bytes, 0, bytes.length, SEGMENT_IDENTIFIER_OFFSET)
  } finally {
    await segment.close()
  }
}

/** Where the checksum stands differs between versions: it is of all that is before it. */
function crcOffsetOf(control: Buffer): number {
  for (let end = 64; end + CRC_BYTES <= control.length; end += CRC_BYTES) if (crc32c(control.subarray(0, end)) === control.readUInt32LE(end)) return end
  throw new Error('no checksum in pg_control')
}

/** CRC-32C (Castagnoli). */
function crc32c(bytes: Buffer): number {
  let crc = 0xffff_ffff
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 1 ? 0x82f6_3b78 : 0)
  }
  return (crc ^ 0xffff_ffff) >>> 0
}
