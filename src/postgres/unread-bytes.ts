/** Type byte and length of a message of the frontend/backend protocol. */
export const MESSAGE_HEADER_BYTES = 5

/** Enough for two of the socket's chunks. */
const KEPT_BYTES = 4 * 1024 * 1024

/**
 * What has come from a socket and is not used up yet: `buffer[at…end)`. The user moves `at` on, past whole messages; a message may be
 * spread over any number of chunks.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
 */
export class UnreadBytes {
  buffer: Buffer = Buffer.alloc(0)
  at = 0
  end = 0
  /** True where `buffer` is ours to append to, false where it is a chunk of the socket's. */
  #isOwn = false
  /** Ours from message to message: a fresh one for each chunk would be megabytes of garbage, and a full collection for each 64 of them. */
  #own: Buffer = Buffer.alloc(0)

  /** Puts `chunk` behind what is unread. Where nothing is, no byte is copied. */
  append(chunk: Buffer): void {
    const unread = this.end - this.at
    if (unread === 0) {
      this.buffer = chunk
      this.at = 0
      this.end = chunk.length
      this.#isOwn = false
      return
    }
    const needed = unread + chunk.length
    if (this.#isOwn && this.end + chunk.length <= this.buffer.length) {
      chunk.copy(this.buffer, this.end)
      this.end += chunk.length
      return
    }
    // Room for the whole message, so that a value of many chunks is not copied for each of them.
    const messageBytes = unread >= MESSAGE_HEADER_BYTES ? 1 + this.buffer.readUInt32BE(this.at + 1) : 0
    const target = this.#isOwn && needed <= this.buffer.length ? this.buffer : this.#room(needed, Math.max(2 * needed, messageBytes + chunk.length))
    // It may lie in the same memory: what is copied there is moved.
    this.buffer.copy(target, 0, this.at, this.end)
    chunk.copy(target, unread)
    this.buffer = target
    this.at = 0
    this.end = needed
    this.#isOwn = true
  }

  /** Makes what is unread ours: a socket that reuses its memory may read into the chunk's once it is delivered. */
  keep(): void {
    if (this.#isOwn || this.at === this.end) return
    const unread = this.end - this.at
    const target = this.#room(unread, unread)
    this.buffer.copy(target, 0, this.at, this.end)
    this.buffer = target
    this.end = unread
    this.at = 0
    this.#isOwn = true
  }

  /** Memory of ours for `needed` bytes; where a new piece has to be made, for `wanted` of them. */
  #room(needed: number, wanted: number): Buffer {
    if (needed <= this.#own.length) return this.#own
    const made = Buffer.allocUnsafeSlow(wanted)
    // A long value's goes with it.
    if (wanted <= KEPT_BYTES) this.#own = made
    return made
  }

  /** Drops what is unread. */
  clear(): void {
    this.buffer = Buffer.alloc(0)
    this.at = 0
    this.end = 0
    this.#isOwn = false
    this.#own = Buffer.alloc(0)
  }
}
