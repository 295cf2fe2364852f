import { DomainError } from '../../model/errors.ts'
import type { Lsn } from '../../model/lsn.ts'
import { toLsn } from '../../model/lsn.ts'
import type { SourceText } from './source-text.ts'

/** A `ProtocolViolation` that names the message type and the offset in the message, never a value. */
export function protocolViolation(what: string, messageType: string, offset: number): DomainError {
  return new DomainError({
    kind: 'ProtocolViolation',
    message: `pgoutput ${messageType} message: ${what} at byte ${offset}`,
    remedy: 'Check that nothing between this program and PostgreSQL alters the connection; if it is direct, report the server version and this message.',
  })
}

/**
 * A bounds-checked cursor over one pgoutput message. Every read past the end throws `ProtocolViolation`.
 *
 * It is reused for all messages: {@link MessageReader.open} points it at the next one. Integers are in network byte order;
 * they are put together from bytes because that is what V8 compiles best (`Buffer.readUInt32BE` costs a call and a check more).
 */
export class MessageReader {
  buffer: Buffer = Buffer.alloc(0)
  position = 0
  end = 0
  #start = 0
  messageType = '?'
  readonly #text: SourceText

  constructor(text: SourceText) {
    this.#text = text
  }

  open(buffer: Buffer, start: number, end: number): void {
    this.buffer = buffer
    this.#start = start
    this.position = start
    this.end = end
    this.messageType = '?'
  }

  /** Throws for what stands at the current position, or at `position`. */
  fail(what: string, position = this.position): never {
    throw protocolViolation(what, this.messageType, position - this.#start)
  }

  /** Moves past `byteCount` bytes and returns where they begin. */
  skip(byteCount: number): number {
    const at = this.position
    if (byteCount > this.end - at) this.fail(`truncated: ${byteCount} bytes announced, ${this.end - at} left`)
    this.position = at + byteCount
    return at
  }

  uint8(): number {
    const at = this.skip(1)
    return this.buffer[at] ?? 0
  }

  uint16(): number {
    const at = this.skip(2)
    const buffer = this.buffer
    return ((buffer[at] ?? 0) << 8) | (buffer[at + 1] ?? 0)
  }

  int32(): number {
    const at = this.skip(4)
    const buffer = this.buffer
    return ((buffer[at] ?? 0) << 24) | ((buffer[at + 1] ?? 0) << 16) | ((buffer[at + 2] ?? 0) << 8) | (buffer[at + 3] ?? 0)
  }

  /** Oids and transaction ids are unsigned: from 2^31 on a signed read makes them negative (facts 3). */
  uint32(): number {
    return this.int32() >>> 0
  }

  uint64(): bigint {
    return this.buffer.readBigUInt64BE(this.skip(8))
  }

  int64(): bigint {
    return this.buffer.readBigInt64BE(this.skip(8))
  }

  lsn(): Lsn {
    return toLsn(this.uint64())
  }

  /** A zero-terminated string. */
  string(): string {
    const at = this.position
    const terminator = this.buffer.indexOf(0, at)
    if (terminator < 0 || terminator >= this.end) this.fail('truncated: string without its terminator')
    this.position = terminator + 1
    return this.#text.string(this.buffer, at, terminator)
  }

  /** A message must be used up: bytes left over mean that it was not understood. */
  close(): void {
    if (this.position !== this.end) this.fail(`${this.end - this.position} trailing bytes`)
  }
}
