import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { ChangeHandler } from '../../../../src/model/change.ts'
import { createDecoder } from '../../../../src/postgres/pgoutput/decode.ts'
import { MessageWriter } from '../../../../src/postgres/pgoutput/encode.ts'
import { createRecorder } from './recording.ts'

/** Hex of every message that carries a change or its frame, as it came and as it is written back. */
function roundTrip(messages: readonly Buffer[]): { readonly came: readonly string[]; readonly written: readonly string[]; readonly truncates: readonly Buffer[] } {
  const came: string[] = []
  const written: string[] = []
  const truncates: Buffer[] = []
  const writer = new MessageWriter()
  let message: Buffer = Buffer.alloc(0)
  const note = (write: () => void): void => {
    writer.position = 0
    write()
    came.push(message.toString('hex'))
    written.push(writer.buffer.toString('hex', 0, writer.position))
  }
  const handler: ChangeHandler = {
    begin: (...given) => { note(() => { writer.begin(...given) }) },
    commit: (...given) => { note(() => { writer.commit(...given) }) },
    relation: (relation) => { note(() => { writer.relation(relation) }) },
    insert: (...given) => { note(() => { writer.insert(...given) }) },
    update: (...given) => { note(() => { writer.update(...given) }) },
    delete: (...given) => { note(() => { writer.delete(...given) }) },
    truncate: (oids) => {
      for (const oid of oids) {
        writer.position = 0
        writer.truncate(oid)
        truncates.push(Buffer.from(writer.buffer.subarray(0, writer.position)))
      }
    },
    type: () => {},
    origin: () => {},
    message: () => {},
  }
  const decoder = createDecoder(handler)
  for (message of messages) decoder.decode(message)
  return { came, written, truncates }
}

describe.each([15, 18])('golden bytes of PostgreSQL %i', (major) => {
  const golden = JSON.parse(readFileSync(new URL(`golden-${major}.json`, import.meta.url), 'utf8')) as { messages: readonly string[] }
  const messages = golden.messages.map((hex) => Buffer.from(hex, 'hex'))

  it('are written back byte for byte', () => {
    const { came, written } = roundTrip(messages)
    expect(came.length).toBeGreaterThan(20)
    expect(written).toEqual(came)
  })

  it('give one TRUNCATE a relation', () => {
    const { truncates } = roundTrip(messages)
    expect(truncates.length).toBeGreaterThan(0)
    for (const message of truncates) {
      const { handler, events } = createRecorder()
      const decoder = createDecoder(handler)
      const writer = new MessageWriter()
      const oid = message.readUInt32BE(6)
      writer.begin(1n as never, 0n, 7)
      decoder.decode(Buffer.from(writer.buffer.subarray(0, writer.position)))
      writer.position = 0
      writer.relation({ oid, schema: 'pg_catalog', name: 't', replicaIdentity: 'd', columns: [] })
      decoder.decode(Buffer.from(writer.buffer.subarray(0, writer.position)))
      decoder.decode(message)
      expect(events.at(-1)).toEqual(['truncate', [oid], false, false])
    }
  })
})
