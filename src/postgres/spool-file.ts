import { closeSync, fdatasync, fsyncSync, fstatSync, ftruncateSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { DomainError } from '../model/errors.ts'
import { MessageWriter } from './pgoutput/encode.ts'

/**
 * # The spool's format
 *
 * Frames, one behind the other: byte count of the message (4 bytes), its place among the changes of its transaction (4 bytes; 0 where it
 * has none), the pgoutput message. Integers in network byte order. Whoever keeps a spool stores how far it counts: what lies behind
 * that was not committed, and is cut off when the file is opened again.
 */
export const FRAME_HEADER_BYTES = 8
/** A full buffer is handed to the file. */
const FLUSH_BYTES = 1 << 20
const READ_BYTES = 1 << 20

const syncData = promisify(fdatasync)

/** The end of a spool file, where changes are added. Every error of the file system is `DestinationFailed`: time or room mends it. */
export class SpoolFile {
  readonly #path: string
  readonly #descriptor: number
  readonly #writer = new MessageWriter()
  #writtenBytes: number
  #isClosed = false

  private constructor(path: string, descriptor: number, byteCount: number) {
    this.#path = path
    this.#descriptor = descriptor
    this.#writtenBytes = byteCount
  }

  /** Opens the file, made where it is missing, and cuts it to `byteCount`. Null where so much is not there any more. */
  static open(path: string, byteCount: number): SpoolFile | null {
    return guarded(path, () => {
      mkdirSync(dirname(path), { recursive: true })
      const descriptor = openSync(path, 'a+')
      let file: SpoolFile | null = null
      try {
        const isWhole = fstatSync(descriptor).size >= byteCount
        if (isWhole) ftruncateSync(descriptor, byteCount)
        if (isWhole && byteCount === 0) syncFolder(dirname(path))
        if (isWhole) file = new SpoolFile(path, descriptor, byteCount)
        return file
      } finally {
        if (file === null) closeSync(descriptor)
      }
    })
  }

  /** Where the next frame will begin. */
  get endOffset(): number {
    return this.#writtenBytes + this.#writer.position
  }

  /** Adds a frame with the message that `write` writes. Nothing once it is closed. */
  append(sequence: number, write: (writer: MessageWriter) => void): void {
    if (this.#isClosed) return
    const writer = this.#writer
    const start = writer.position
    writer.reserve(FRAME_HEADER_BYTES)
    writer.position += FRAME_HEADER_BYTES
    write(writer)
    const end = writer.position
    writer.position = start
    writer.uint32(end - start - FRAME_HEADER_BYTES)
    writer.uint32(sequence)
    writer.position = end
    if (end >= FLUSH_BYTES) this.#flush()
  }

  /** Makes everything that was added so far durable. */
  async sync(): Promise<void> {
    if (this.#isClosed) return
    this.#flush()
    try {
      await syncData(this.#descriptor)
    } catch (error) {
      throw spoolError(error, this.#path)
    }
  }

  /** Idempotent. What was not synced may be lost. */
  close(): void {
    if (!this.#isClosed) closeSync(this.#descriptor)
    this.#isClosed = true
  }

  #flush(): void {
    const { buffer, position } = this.#writer
    guarded(this.#path, () => {
      let written = 0
      while (written < position) written += writeSync(this.#descriptor, buffer, written, position - written)
    })
    this.#writtenBytes += position
    this.#writer.position = 0
  }
}

/** Reads frames of a spool file one after the other, from an offset that is the beginning of one. */
export class SpoolReader {
  readonly #path: string
  readonly #lost: (path: string) => DomainError
  #file: FileHandle | null = null
  #buffer: Buffer = Buffer.alloc(0)
  #position = 0
  /** Offset in the file of the buffer's end. */
  #readTo: number
  /** The frame's message is `buffer[start…end)`; valid until the next call. */
  start = 0
  end = 0
  sequence = 0

  /** `lost` is what it means that the file ends too early. */
  constructor(path: string, offset: number, lost = lostSpool) {
    this.#path = path
    this.#lost = lost
    this.#readTo = offset
  }

  get buffer(): Buffer {
    return this.#buffer
  }

  /** Offset just past the frame that was read last. */
  get offset(): number {
    return this.#readTo - this.#buffer.length + this.#position
  }

  /** Goes to the next frame, if it has been read whole. */
  next(): boolean {
    const { length } = this.#buffer
    const start = this.#position + FRAME_HEADER_BYTES
    if (start > length) return false
    const end = start + this.#buffer.readUInt32BE(this.#position)
    if (end > length) return false
    this.sequence = this.#buffer.readUInt32BE(this.#position + 4)
    this.start = start
    this.end = end
    this.#position = end
    return true
  }

  /** Reads on, up to `endOffset` at most, so that `next` finds a frame again. Throws `DestinationLost` (or what `lost` says) where the file ends before it. */
  async read(endOffset: number): Promise<void> {
    const rest = this.#buffer.subarray(this.#position)
    const missing = rest.length >= FRAME_HEADER_BYTES ? rest.readUInt32BE(0) + FRAME_HEADER_BYTES - rest.length : 0
    const wanted = Math.min(Math.max(READ_BYTES, missing), endOffset - this.#readTo)
    // A frame that goes on behind the end: nothing that could be read would make it whole.
    if (wanted <= 0) throw this.#lost(this.#path)
    const buffer = Buffer.allocUnsafeSlow(rest.length + wanted)
    rest.copy(buffer)
    try {
      this.#file ??= await open(this.#path, 'r')
      for (let filled = 0; filled < wanted; ) {
        const { bytesRead } = await this.#file.read(buffer, rest.length + filled, wanted - filled, this.#readTo + filled)
        if (bytesRead === 0) throw this.#lost(this.#path)
        filled += bytesRead
      }
    } catch (error) {
      throw spoolError(error, this.#path)
    }
    this.#buffer = buffer
    this.#position = 0
    this.#readTo += wanted
  }

  async close(): Promise<void> {
    await this.#file?.close()
    this.#file = null
  }
}

function guarded<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw spoolError(error, path)
  }
}

/** A new file is there after a power cut only when its folder is written too. */
export function syncFolder(path: string): void {
  const descriptor = openSync(path, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

/** An error of the file system: time or room mends it. */
export function spoolError(error: unknown, path: string): DomainError {
  if (error instanceof DomainError) return error
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'an unknown error'
  return new DomainError({
    kind: 'DestinationFailed',
    message: `cannot keep changes in the spool file ${path}: ${code}`,
    remedy: 'see that the folder beside the destination is writable and has room',
    cause: error,
  })
}

function lostSpool(path: string): DomainError {
  return new DomainError({
    kind: 'DestinationLost',
    message: `the spool file ${path} is shorter than what was committed to it`,
    remedy: 'put it back as it was; or start with "reset": true to load everything anew',
  })
}
