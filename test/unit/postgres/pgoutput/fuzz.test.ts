import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { ChangeHandler, Relation, TupleView } from '../../../../src/model/change.ts'
import { CELL_BINARY, CELL_NULL, CELL_TEXT, CELL_UNCHANGED } from '../../../../src/model/change.ts'
import { DomainError } from '../../../../src/model/errors.ts'
import { toLsn } from '../../../../src/model/lsn.ts'
import { createDecoder } from '../../../../src/postgres/pgoutput/decode.ts'
import { MessageWriter } from '../../../../src/postgres/pgoutput/encode.ts'
import { createTupleView } from '../../../../src/postgres/pgoutput/tuple.ts'
import { readGolden, shortened } from './golden.ts'
import { createRecorder } from './recording.ts'
import { createDecoderInMemory } from './streamed-in-memory.ts'

/** `FUZZ_RUNS` is how many mutations are tried (long mode: millions), `FUZZ_SEED` where it begins. A failure prints seed and path. */
const RUNS = Number(process.env['FUZZ_RUNS'] ?? '300')
const SEED = Number(process.env['FUZZ_SEED'] ?? '20')
const PARAMETERS = { seed: SEED, numRuns: RUNS }
const TIMEOUT_MS = 60_000 + RUNS * 20

const GOLDEN = (['15', '18', 'streamed-15', 'streamed-18'] as const).map((name) => shortened(readGolden(name), 3))

/** Indexes and positions are taken modulo what is there. */
type Mutation =
  | { readonly tag: 'byte'; readonly message: number; readonly at: number; readonly value: number }
  | { readonly tag: 'number'; readonly message: number; readonly at: number; readonly value: number }
  | { readonly tag: 'cut'; readonly message: number; readonly at: number }
  | { readonly tag: 'grow'; readonly message: number; readonly bytes: Uint8Array }
  | { readonly tag: 'drop'; readonly message: number }
  | { readonly tag: 'repeat'; readonly message: number; readonly other: number }
  | { readonly tag: 'splice'; readonly message: number; readonly other: number; readonly at: number }

const nat = fc.nat(1 << 16)
const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ tag: fc.constant('byte' as const), message: nat, at: nat, value: fc.nat(255) }) },
  { weight: 4, arbitrary: fc.record({ tag: fc.constant('number' as const), message: nat, at: nat, value: fc.constantFrom(0, 1, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffb, 0xffff_ffff) }) },
  { weight: 2, arbitrary: fc.record({ tag: fc.constant('cut' as const), message: nat, at: nat }) },
  { weight: 1, arbitrary: fc.record({ tag: fc.constant('grow' as const), message: nat, bytes: fc.uint8Array({ minLength: 1, maxLength: 8 }) }) },
  { weight: 1, arbitrary: fc.record({ tag: fc.constant('drop' as const), message: nat }) },
  { weight: 1, arbitrary: fc.record({ tag: fc.constant('repeat' as const), message: nat, other: nat }) },
  { weight: 1, arbitrary: fc.record({ tag: fc.constant('splice' as const), message: nat, other: nat, at: nat }) },
)

function mutate(messages: Buffer[], change: Mutation): void {
  const index = change.message % Math.max(1, messages.length)
  const message = Buffer.from(messages[index] ?? [])
  messages[index] = message
  const at = 'at' in change ? change.at % Math.max(1, message.length) : 0
  switch (change.tag) {
    case 'byte':
      if (message.length > 0) message[at] = change.value
      return
    case 'number':
      if (at + 4 <= message.length) message.writeUInt32BE(change.value, at)
      return
    case 'cut':
      messages[index] = message.subarray(0, at)
      return
    case 'grow':
      messages[index] = Buffer.concat([message, change.bytes])
      return
    case 'drop':
      messages.splice(index, 1)
      return
    case 'repeat':
      messages.splice(change.other % messages.length, 0, message)
      return
    case 'splice': {
      const other = messages[change.other % messages.length] ?? Buffer.alloc(0)
      messages[index] = Buffer.concat([message.subarray(0, at), other.subarray(Math.min(at, other.length))])
      return
    }
    default:
      change satisfies never
  }
}

/** Bytes on both sides of a message that no reader may see: a cell or a string with one of them in it is told by its bounds or its text. */
const MARGIN = Buffer.alloc(64, 0xfe)

/**
 * Writes what it is told back, and compares it with the message as it came: an answer is right when nothing was left out of it and nothing
 * added. (Names that are no UTF-8 cannot be written back.)
 */
function createProver(current: () => { readonly bytes: Buffer; readonly isReplay: boolean }): ChangeHandler {
  const writer = new MessageWriter()
  const prove = (write: () => void): void => {
    const { bytes, isReplay } = current()
    if (isReplay) return
    writer.position = 0
    write()
    if (Buffer.compare(writer.buffer.subarray(0, writer.position), bytes) !== 0) throw new Error('another answer than the message')
  }
  const inside = ({ buffer, columnCount, kinds, starts, ends }: TupleView): void => {
    for (let column = 0; column < columnCount; column++) {
      const [start = -1, end = -1] = [starts[column], ends[column]]
      const isGood = start >= 0 && start <= end && end <= buffer.length
      if (!isGood) throw new Error('a cell outside its buffer')
      if (kinds[column] === CELL_TEXT && current().isReplay && buffer.length === 0) throw new Error('a cell of nothing')
    }
  }
  return {
    begin: (...given) => { prove(() => { writer.begin(...given) }) },
    commit: (...given) => { prove(() => { writer.commit(...given) }) },
    relation: (relation) => { if (isUtf8(relation)) prove(() => { writer.relation(relation) }) },
    insert: (oid, tuple) => {
      inside(tuple)
      prove(() => { writer.insert(oid, tuple) })
    },
    update: (oid, kind, oldTuple, tuple) => {
      if (kind !== 'none') inside(oldTuple)
      inside(tuple)
      prove(() => { writer.update(oid, kind, oldTuple, tuple) })
    },
    delete: (oid, kind, oldTuple) => {
      inside(oldTuple)
      prove(() => { writer.delete(oid, kind, oldTuple) })
    },
    truncate: (oids) => { if (oids.length === 0) throw new Error('a truncate of nothing') },
    type: () => {},
    origin: () => {},
    message: (_, __, ___, content) => { if (content.includes(MARGIN)) throw new Error('content of another message') },
  }
}

function isUtf8({ schema, name, columns }: Relation): boolean {
  return ![schema, name, ...columns.map((column) => column.name)].some((text) => text.includes('\uFFFD')) && schema !== 'pg_catalog'
}

describe('whatever is done to messages of a real walsender', () => {
  it.each(GOLDEN.map((messages, index) => [index, messages] as const))('only a ProtocolViolation or a right answer comes of it (%i)', { timeout: TIMEOUT_MS }, (_, golden) => {
    let violations = 0
    fc.assert(
      fc.property(fc.array(mutation, { minLength: 1, maxLength: 4 }), (mutations) => {
        const messages = [...golden]
        for (const change of mutations) mutate(messages, change)
        let bytes: Buffer = Buffer.alloc(0)
        const decoder = createDecoderInMemory(createProver(() => ({ bytes, isReplay: bytes[0] === 0x63 })))
        try {
          for (bytes of messages) decoder.decode(Buffer.concat([MARGIN, bytes, MARGIN]), MARGIN.length, MARGIN.length + bytes.length)
        } catch (error) {
          if (!(error instanceof DomainError)) throw error
          expect(error.kind).toBe('ProtocolViolation')
          violations++
        }
      }),
      PARAMETERS,
    )
    expect(violations).toBeGreaterThan(RUNS / 10)
  })
})

interface Cell {
  readonly kind: number
  readonly bytes: Uint8Array
}

const NOTHING = new Uint8Array()
const cell: fc.Arbitrary<Cell> = fc.oneof(
  fc.record({ kind: fc.constantFrom(CELL_TEXT, CELL_BINARY), bytes: fc.uint8Array({ maxLength: 40 }) }),
  fc.record({ kind: fc.constantFrom(CELL_NULL, CELL_UNCHANGED), bytes: fc.constant(NOTHING) }),
)

function tupleOf(cells: readonly Cell[]): TupleView {
  const view = { ...createTupleView(cells.length), columnCount: cells.length, buffer: Buffer.concat([Buffer.of(7), ...cells.map(({ bytes }) => bytes)]) }
  let at = 1
  for (const [column, { kind, bytes }] of cells.entries()) {
    view.kinds[column] = kind
    view.starts[column] = at
    view.ends[column] = at += bytes.length
  }
  return view
}

const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }).filter((text) => !text.includes('\0') && text !== 'pg_catalog')
const oid = fc.nat(0xffff_ffff)
const relation = fc.record({
  oid,
  schema: name,
  name,
  replicaIdentity: fc.constantFrom('d' as const, 'n' as const, 'f' as const, 'i' as const),
  columns: fc.array(fc.record({ name, typeOid: oid, typeModifier: fc.integer({ min: -1, max: 0x7fff_ffff }), isKey: fc.boolean() }), { maxLength: 8 }),
})
const lsn = fc.bigInt({ min: 1n, max: 2n ** 63n - 1n })

const transaction = relation.chain(({ columns, ...rest }) => {
  const row = fc.array(cell, { minLength: columns.length, maxLength: columns.length })
  return fc.record({
    relation: fc.constant({ columns, ...rest }),
    xid: oid,
    commitLsn: lsn,
    timeMicros: fc.bigInt({ min: -(2n ** 60n), max: 2n ** 60n }),
    changes: fc.array(fc.oneof(
      fc.record({ tag: fc.constant('insert' as const), row }),
      fc.record({ tag: fc.constant('update' as const), kind: fc.constantFrom('none' as const, 'key' as const, 'full' as const), old: row, row }),
      fc.record({ tag: fc.constant('delete' as const), kind: fc.constantFrom('key' as const, 'full' as const), old: row }),
      fc.record({ tag: fc.constant('truncate' as const) }),
    ), { maxLength: 6 }),
  })
})

it('what is written is read as it was, whatever it is', { timeout: TIMEOUT_MS }, () => {
  fc.assert(
    fc.property(transaction, ({ relation: announced, xid, commitLsn, timeMicros, changes }) => {
      const told = createRecorder()
      const read = createRecorder()
      const writer = new MessageWriter()
      const decoder = createDecoder(read.handler)
      const decode = (): void => {
        decoder.decode(Buffer.from(writer.buffer.subarray(0, writer.position)))
        writer.position = 0
      }
      const both = (tell: (handler: ChangeHandler) => void, write: () => void): void => {
        tell(told.handler)
        write()
        decode()
      }
      const [start, end] = [toLsn(commitLsn), toLsn(commitLsn + 8n)]
      both((handler) => { handler.begin(start, timeMicros, xid) }, () => { writer.begin(start, timeMicros, xid) })
      both((handler) => { handler.relation(announced) }, () => { writer.relation(announced) })
      for (const change of changes) {
        if (change.tag === 'insert') {
          const row = tupleOf(change.row)
          both((handler) => { handler.insert(announced.oid, row) }, () => { writer.insert(announced.oid, row) })
        } else if (change.tag === 'update') {
          const [old, row] = [tupleOf(change.old), tupleOf(change.row)]
          both((handler) => { handler.update(announced.oid, change.kind, old, row) }, () => { writer.update(announced.oid, change.kind, old, row) })
        } else if (change.tag === 'delete') {
          const old = tupleOf(change.old)
          both((handler) => { handler.delete(announced.oid, change.kind, old) }, () => { writer.delete(announced.oid, change.kind, old) })
        } else both((handler) => { handler.truncate([announced.oid], false, false) }, () => { writer.truncate(announced.oid) })
      }
      both((handler) => { handler.commit(start, end, timeMicros) }, () => { writer.commit(start, end, timeMicros) })
      expect(read.events).toEqual(told.events)
    }),
    PARAMETERS,
  )
})
