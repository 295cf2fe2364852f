import type { ChangeHandler } from '../../../../src/model/change.ts'
import { createDecoder, type Decoder } from '../../../../src/postgres/pgoutput/decode.ts'
import { createStreamedDecoder } from '../../../../src/postgres/pgoutput/decode-streamed.ts'
import { MessageWriter } from '../../../../src/postgres/pgoutput/encode.ts'

interface KeptMessage {
  readonly xid: number
  readonly message: Buffer
}

/** A decoder of protocol version 2 that keeps transactions in progress in memory and decodes each at its commit. */
export function createDecoderInMemory(handler: ChangeHandler): Decoder {
  const changes = createDecoder(handler)
  const kept = new Map<number, KeptMessage[]>()
  let open = 0
  const decodeWritten = (write: (writer: MessageWriter) => void): void => {
    const writer = new MessageWriter()
    write(writer)
    changes.decode(writer.buffer, 0, writer.position)
  }
  return createStreamedDecoder(changes, {
    start: (xid, isFirst) => {
      if (isFirst) kept.set(xid, [])
      open = xid
    },
    keep: (xid, tag, { buffer, start, end }) => { kept.get(open)?.push({ xid, message: Buffer.concat([Buffer.of(tag), buffer.subarray(start, end)]) }) },
    stop: () => {},
    commit: ({ xid, commitLsn, endLsn, commitTimeMicros }) => {
      decodeWritten((writer) => { writer.begin(commitLsn, commitTimeMicros, xid) })
      for (const { message } of kept.get(xid) ?? []) changes.decode(message)
      decodeWritten((writer) => { writer.commit(commitLsn, endLsn, commitTimeMicros) })
      kept.delete(xid)
    },
    abort: (xid, subXid) => { kept.set(xid, xid === subXid ? [] : (kept.get(xid) ?? []).filter((message) => message.xid !== subXid)) },
  })
}
