import { createHash, randomUUID } from 'node:crypto'
import { closeSync, fdatasync, fdatasyncSync, fstatSync, ftruncateSync, mkdirSync, openSync, readdirSync, readSync, rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { ChangeHandler, OldTupleKind, Relation, TupleView } from '../model/change.ts'
import { maxLsn, toLsn, type Lsn } from '../model/lsn.ts'
import type { SourceIdentity } from '../model/source.ts'
import { SpoolFile, spoolError, syncFolder } from '../postgres/spool-file.ts'

/** Frames begin there, in the format of `spool-file.ts`. Before them stand two places for marks, of which the newer whole one counts. */
export const FRAMES_OFFSET = 1_024
const MARK_BYTES = 36
const MARK_OFFSETS = [0, 512] as const

const syncData = promisify(fdatasync)

/** A part of a slot's stream in a file. */
export interface Segment {
  readonly path: string
  /** Every transaction whose commit record begins at or past it … */
  readonly startLsn: Lsn
  /** … and before this one is in the file. */
  readonly endLsn: Lsn
  /** What lies behind it is not marked as durable. */
  readonly endOffset: number
}

/** Positions mean nothing in another cluster, or on another timeline. */
export type SpooledSource = Pick<SourceIdentity, 'systemIdentifier' | 'timeline'>

/**
 * The spool of a slot's whole stream: a folder beside the destination. A process writes files of its own only, so that one which was taken for dead
 * cannot spoil another's; each says which part of the stream it holds, and nothing is believed of it that was not synced before its mark.
 */
export class StreamSpool {
  readonly #folder: string
  readonly #source: SpooledSource

  /** `spoolFolder` is the pipeline's, see the destination contract. */
  constructor(spoolFolder: string, source: SpooledSource) {
    this.#folder = join(spoolFolder, 'stream')
    this.#source = source
  }

  /** The segments of this source. Files that hold nothing yet are left out. */
  segments(): readonly Segment[] {
    const { systemIdentifier, timeline } = this.#source
    return filesOf(this.#folder).flatMap((name): readonly Segment[] => {
      const [start, system, line] = name.split('-')
      const path = join(this.#folder, name)
      const mark = start?.length === 16 && system === systemIdentifier && line === String(timeline) ? readMark(path) : null
      return mark === null ? [] : [{ path, startLsn: toLsn(BigInt(`0x${start ?? ''}`)), ...mark }]
    })
  }

  /** What its files take. */
  get byteCount(): number {
    return filesOf(this.#folder).reduce((sum, name) => sum + (statSync(join(this.#folder, name), { throwIfNoEntry: false })?.size ?? 0), 0)
  }

  /** Begins a segment at a position of the slot, which nobody but this process moves as long as it writes. */
  create(startLsn: Lsn, maxBytes: number): SegmentWriter {
    const { systemIdentifier, timeline } = this.#source
    return SegmentWriter.create(join(this.#folder, `${startLsn.toString(16).padStart(16, '0')}-${systemIdentifier}-${String(timeline)}-${randomUUID()}.wal`), startLsn, maxBytes)
  }

  /** Removes files. Only for whoever holds the slot: nobody else's writing counts any more. */
  remove(paths: readonly string[]): void {
    for (const path of paths) rmSync(path, { force: true })
  }

  /** All files, whatever they hold. */
  paths(): readonly string[] {
    return filesOf(this.#folder).map((name) => join(this.#folder, name))
  }
}

/**
 * The fewest segments that together hold everything from one position up to another, in their order: each begins where the one before has been read
 * to, or earlier. Null where something is missing.
 */
export function covering(segments: readonly Segment[], from: Lsn, to: Lsn): readonly Segment[] | null {
  const chain: Segment[] = []
  for (let reached = from; reached < to; ) {
    const next = segments.filter(({ startLsn, endLsn }) => startLsn <= reached && endLsn > reached).reduce<Segment | null>((best, segment) => (best === null || segment.endLsn > best.endLsn ? segment : best), null)
    if (next === null) return null
    chain.push(next)
    reached = next.endLsn
  }
  return chain
}

/** Writes the stream into a segment. What does not fit is left out, and the last transaction with it: then `isFull`. */
export class SegmentWriter implements Omit<ChangeHandler, 'type' | 'origin' | 'message'> {
  readonly path: string
  readonly #file: SpoolFile
  /** For marks: the other one only ever adds at the end. */
  readonly #descriptor: number
  readonly #startLsn: Lsn
  readonly #maxBytes: number
  #transaction: { readonly commitLsn: Lsn; readonly commitTimeMicros: bigint; readonly xid: number } | null = null
  #isOpen = false
  #isFull = false
  #marks = 0
  /** Of whole transactions. */
  #endOffset = FRAMES_OFFSET
  #endLsn: Lsn
  #savedLsn: Lsn
  #isClosed = false

  /** Leaves nothing behind where it fails: on a full disk it is tried again and again. */
  static create(path: string, startLsn: Lsn, maxBytes: number): SegmentWriter {
    let descriptor: number | null = null
    try {
      mkdirSync(join(path, '..'), { recursive: true })
      descriptor = openSync(path, 'wx+')
      writeSync(descriptor, Buffer.alloc(FRAMES_OFFSET))
      fdatasyncSync(descriptor)
      syncFolder(join(path, '..'))
      const file = SpoolFile.open(path, FRAMES_OFFSET)
      if (file === null) throw new RangeError('a file that was made a moment ago is shorter than it was')
      return new SegmentWriter({ path, startLsn, maxBytes, file, descriptor })
    } catch (error) {
      if (descriptor !== null) {
        closeSync(descriptor)
        rmSync(path, { force: true })
      }
      throw spoolError(error, path)
    }
  }

  private constructor({ path, startLsn, maxBytes, file, descriptor }: { path: string; startLsn: Lsn; maxBytes: number; file: SpoolFile; descriptor: number }) {
    this.path = path
    this.#file = file
    this.#descriptor = descriptor
    this.#startLsn = startLsn
    this.#maxBytes = maxBytes
    this.#endLsn = startLsn
    this.#savedLsn = startLsn
  }

  /** A change came that there was no room for: nothing more is taken. */
  get isFull(): boolean {
    return this.#isFull
  }

  get startLsn(): Lsn {
    return this.#startLsn
  }

  /** Everything before it has come. */
  get endLsn(): Lsn {
    return this.#endLsn
  }

  /** Everything before it is durable. */
  get savedLsn(): Lsn {
    return this.#savedLsn
  }

  /** The server has nothing to send that committed before `walEnd`. */
  reach(walEnd: Lsn): void {
    if (this.#transaction === null && !this.#isFull) this.#endLsn = maxLsn(this.#endLsn, walEnd)
  }

  begin(commitLsn: Lsn, commitTimeMicros: bigint, xid: number): void {
    this.#transaction = { commitLsn, commitTimeMicros, xid }
  }

  commit(commitLsn: Lsn, endLsn: Lsn, commitTimeMicros: bigint): void {
    if (this.#isOpen) this.#append((file) => { file.append(0, (writer) => { writer.commit(commitLsn, endLsn, commitTimeMicros) }) })
    this.#transaction = null
    this.#isOpen = false
    if (this.#isFull) return
    this.#endOffset = this.#file.endOffset
    this.#endLsn = maxLsn(this.#endLsn, endLsn)
  }

  relation(relation: Relation): void {
    this.#append((file) => { file.append(0, (writer) => { writer.relation(relation) }) })
  }

  insert(oid: number, tuple: TupleView): void {
    this.#append((file) => { file.append(0, (writer) => { writer.insert(oid, tuple) }) })
  }

  // eslint-disable-next-line @typescript-eslint/max-params
  update(oid: number, oldKind: OldTupleKind, oldTuple: TupleView, tuple: TupleView): void {
    this.#append((file) => { file.append(0, (writer) => { writer.update(oid, oldKind, oldTuple, tuple) }) })
  }

  delete(oid: number, oldKind: 'key' | 'full', oldTuple: TupleView): void {
    this.#append((file) => { file.append(0, (writer) => { writer.delete(oid, oldKind, oldTuple) }) })
  }

  truncate(oids: readonly number[]): void {
    for (const oid of oids) this.#append((file) => { file.append(0, (writer) => { writer.truncate(oid) }) })
  }

  /** Makes durable what has come of whole transactions, and marks how far it reaches. Returns that position. One at a time. */
  async save(): Promise<Lsn> {
    const mark = { endLsn: this.#endLsn, endOffset: this.#endOffset }
    if (mark.endLsn <= this.#savedLsn || this.#isClosed) return this.#savedLsn
    await this.#file.sync()
    try {
      // What the mark tells of must not be lost behind it.
      writeSync(this.#descriptor, encodeMark(++this.#marks, mark), 0, MARK_BYTES, MARK_OFFSETS[this.#marks % 2] ?? 0)
      await syncData(this.#descriptor)
    } catch (error) {
      throw spoolError(error, this.path)
    }
    this.#savedLsn = mark.endLsn
    return mark.endLsn
  }

  /** Gives the room behind the last mark back; a file that holds nothing goes. Idempotent. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#file.close()
    try {
      if (this.#savedLsn > this.#startLsn) ftruncateSync(this.#descriptor, Math.min(this.#endOffset, fstatSync(this.#descriptor).size))
    } catch {
      // What lies behind the last mark is of no account, wherever the file ends.
    } finally {
      closeSync(this.#descriptor)
    }
    if (this.#savedLsn <= this.#startLsn) rmSync(this.path, { force: true })
  }

  #append(write: (file: SpoolFile) => void): void {
    const transaction = this.#transaction
    if (transaction === null) throw new RangeError('a change outside a transaction')
    this.#isFull ||= this.#file.endOffset > this.#maxBytes
    if (this.#isFull) return
    if (!this.#isOpen) this.#file.append(0, (writer) => { writer.begin(transaction.commitLsn, transaction.commitTimeMicros, transaction.xid) })
    this.#isOpen = true
    write(this.#file)
  }
}

/** Number of the mark (4 bytes), end of the frames (8), LSN (8), digest of these (16). Integers in network byte order. */
function encodeMark(number: number, { endLsn, endOffset }: Pick<Segment, 'endLsn' | 'endOffset'>): Buffer {
  const mark = Buffer.alloc(MARK_BYTES)
  mark.writeUInt32BE(number, 0)
  mark.writeBigUInt64BE(BigInt(endOffset), 4)
  mark.writeBigUInt64BE(endLsn, 12)
  digestOf(mark).copy(mark, 20)
  return mark
}

function digestOf(mark: Buffer): Buffer {
  return createHash('sha256').update(mark.subarray(0, 20)).digest().subarray(0, MARK_BYTES - 20)
}

/** The newest mark that is whole; null where there is none, or the file is shorter than it says. */
function readMark(path: string): Pick<Segment, 'endLsn' | 'endOffset'> | null {
  let descriptor: number
  try {
    descriptor = openSync(path, 'r')
  } catch {
    return null
  }
  try {
    const header = Buffer.alloc(FRAMES_OFFSET)
    if (readSync(descriptor, header, 0, FRAMES_OFFSET, 0) < FRAMES_OFFSET) return null
    const marks = MARK_OFFSETS.map((offset) => header.subarray(offset, offset + MARK_BYTES)).filter((mark) => digestOf(mark).equals(mark.subarray(20)))
    const newest = marks.sort((a, b) => b.readUInt32BE(0) - a.readUInt32BE(0))[0]
    if (newest === undefined) return null
    const endOffset = Number(newest.readBigUInt64BE(4))
    return fstatSync(descriptor).size < endOffset ? null : { endOffset, endLsn: toLsn(newest.readBigUInt64BE(12)) }
  } finally {
    closeSync(descriptor)
  }
}

function filesOf(folder: string): readonly string[] {
  try {
    return readdirSync(folder).filter((name) => name.endsWith('.wal'))
  } catch {
    return []
  }
}
