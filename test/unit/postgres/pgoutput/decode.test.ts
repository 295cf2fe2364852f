import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { ChangeHandler, Relation } from '../../../../src/model/change.ts'
import { DomainError } from '../../../../src/model/errors.ts'
import { createDecoder } from '../../../../src/postgres/pgoutput/decode.ts'
import { createRecorder } from './recording.ts'

interface Golden {
  readonly serverVersion: string
  readonly messages: readonly string[]
}

function readGolden(major: number): Buffer[] {
  const golden = JSON.parse(readFileSync(new URL(`golden-${major}.json`, import.meta.url), 'utf8')) as Golden
  return golden.messages.map((hex) => Buffer.from(hex, 'hex'))
}

function decodeAll(messages: readonly Buffer[]): unknown[][] {
  const { handler, events } = createRecorder()
  const decoder = createDecoder(handler)
  for (const message of messages) decoder.decode(message)
  return events
}

const IGNORED = (): void => undefined
const SILENT: ChangeHandler = {
  begin: IGNORED, commit: IGNORED, relation: IGNORED, insert: IGNORED, update: IGNORED, delete: IGNORED,
  truncate: IGNORED, type: IGNORED, origin: IGNORED, message: IGNORED,
}

/** What decoding `last` after `before` throws; the messages before it must be good. */
function violationOf(before: readonly Buffer[], last: Buffer): DomainError {
  const decoder = createDecoder(SILENT)
  for (const message of before) decoder.decode(message)
  try {
    decoder.decode(last)
  } catch (error) {
    if (error instanceof DomainError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

describe.each([15, 18])('golden bytes of PostgreSQL %i', (major) => {
  const messages = readGolden(major)
  const events = decodeAll(messages)
  const oids = new Map(events.filter(([tag]) => tag === 'relation').map(([, relation]) => [(relation as Relation).name, (relation as Relation).oid]))
  const bodies = events.filter(([tag]) => tag !== 'relation' && tag !== 'begin' && tag !== 'commit')

  it('gives every change of the scenario, in order', () => {
    const [plain, moods, toasted, parent, child] = ['plain', 'moods', 'toasted', 'parent', 'child'].map((name) => oids.get(name))
    const body = Array.from({ length: 400 }, (_, index) => createHash('md5').update(String(index + 1)).digest('hex')).join('')
    expect(bodies).toEqual([
      ['insert', plain, ['1', 'one', '1.50', 't']],
      ['insert', plain, ['2', null, null, null]],
      ['insert', plain, ['3', '', '0.00', 'f']],
      ['update', plain, 'none', null, ['2', 'zwei — zweite 🐘', null, null]],
      ['update', plain, 'key', ['3', null, null, null], ['4', '', '0.00', 'f']],
      ['delete', plain, 'key', ['1', null, null, null]],
      ['type', expect.any(Number), 'public', 'mood'],
      ['insert', moods, ['happy', '1']],
      ['update', moods, 'full', ['happy', '1'], ['happy', '2']],
      ['delete', moods, 'full', ['happy', '2']],
      ['insert', toasted, ['1', body, '0']],
      ['update', toasted, 'none', null, ['1', { unchanged: true }, '1']],
      ['insert', parent, ['1']],
      ['insert', child, ['1', '1']],
      ['truncate', [parent, child], true, true],
      ['truncate', [plain], false, false],
      ['message', false, expect.stringMatching(/^0\//), 'outside', 'not transactional'],
      ['message', true, expect.stringMatching(/^0\//), 'inside', 'transactional'],
      ['insert', plain, ['5', null, null, null]],
      ['origin', '0/ABCDEF', 'elsewhere'],
      ['insert', plain, ['6', null, null, null]],
    ])
  })

  it('describes relations with their replica identity and key columns', () => {
    const relations = new Map(events.filter(([tag]) => tag === 'relation').map(([, relation]) => [(relation as Relation).name, relation as Relation]))
    expect(relations.get('plain')).toEqual({
      oid: oids.get('plain'),
      schema: 'public',
      name: 'plain',
      replicaIdentity: 'd',
      columns: [
        { name: 'id', typeOid: 20, typeModifier: -1, isKey: true },
        { name: 'name', typeOid: 25, typeModifier: -1, isKey: false },
        { name: 'price', typeOid: 1700, typeModifier: (10 << 16) + 2 + 4, isKey: false },
        { name: 'flag', typeOid: 16, typeModifier: -1, isKey: false },
      ],
    })
    expect(relations.get('moods')).toMatchObject({ replicaIdentity: 'f', columns: [{ name: 'mood', isKey: true }, { name: 'level', isKey: true }] })
  })

  it('brackets transactions with equal commit LSNs and times in Unix microseconds', () => {
    const bounds = events.filter(([tag]) => tag === 'begin' || tag === 'commit')
    expect(bounds.length % 2).toBe(0)
    for (let index = 0; index < bounds.length; index += 2) {
      const [begin, commit] = [bounds[index], bounds[index + 1]]
      expect(begin?.[0]).toBe('begin')
      expect(commit).toEqual(['commit', begin?.[1], expect.any(String), begin?.[2]])
    }
    // The scenario's last transaction took its time from elsewhere.
    expect(bounds.at(-1)?.[3]).toBe(BigInt(Date.UTC(2020, 1, 2, 2, 2, 2)) * 1000n)
  })

  it('refuses every message cut short at any byte', () => {
    const decoder = createDecoder(SILENT)
    for (const message of messages) {
      const step = Math.max(1, Math.floor(message.length / 400))
      for (let length = 0; length < message.length; length += step) {
        expect(() => { decoder.decode(message, 0, length) }).toThrow(DomainError)
      }
      decoder.decode(message)
    }
  })

  it('refuses every message with a trailing byte', () => {
    const decoder = createDecoder(SILENT)
    for (const message of messages) {
      // A Begin or Commit that is refused must leave the state as it was, or the loop could not go on.
      expect(() => { decoder.decode(Buffer.concat([message, Buffer.of(0)])) }).toThrow(/1 trailing bytes at byte/)
      decoder.decode(message)
    }
  })

  it('reads a message in the middle of a buffer, offsets being those of the buffer', () => {
    const { handler, events: shifted } = createRecorder()
    const decoder = createDecoder(handler)
    for (const message of messages) decoder.decode(Buffer.concat([Buffer.alloc(25, 0xee), message, Buffer.alloc(9, 0xee)]), 25, 25 + message.length)
    expect(shifted).toEqual(events)
  })

  it('never throws anything but ProtocolViolation and never reads past the end, whatever bytes are changed', () => {
    fc.assert(
      fc.property(
        fc.nat({ max: messages.length - 1 }),
        fc.array(fc.tuple(fc.nat({ max: 400 }), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 }),
        (index, mutations) => {
          const decoder = createDecoder({
            ...SILENT,
            insert: (_, tuple) => { expectInside(tuple.ends, tuple.columnCount, tuple.buffer.length) },
            update: (_, __, oldTuple, newTuple) => {
              expectInside(oldTuple.ends, oldTuple.columnCount, oldTuple.buffer.length)
              expectInside(newTuple.ends, newTuple.columnCount, newTuple.buffer.length)
            },
          })
          for (const message of messages.slice(0, index)) decoder.decode(message)
          const mutated = Buffer.from(messages[index] ?? [])
          for (const [position, value] of mutations) mutated[position % mutated.length] = value
          try {
            decoder.decode(mutated)
          } catch (error) {
            expect(error).toMatchObject({ kind: 'ProtocolViolation' })
          }
        },
      ),
      { numRuns: 2000 },
    )
  })
})

function expectInside(ends: Uint32Array, columnCount: number, length: number): void {
  for (let column = 0; column < columnCount; column++) if ((ends[column] ?? 0) > length) throw new Error('a cell outside its buffer')
}

describe('protocol violations', () => {
  const BEGIN = Buffer.from('420000000001932960000303db8fda1e14000002df', 'hex')
  const COMMIT = Buffer.from('430000000000019329600000000001932990000303db8fda1e14', 'hex')
  /** Relation 0xF0000001 public.t, identity d, column id int4 (key). */
  const RELATION = Buffer.from('52f00000017075626c6963007400640001016964000000001 7ffffffff'.replace(' ', ''), 'hex')
  const INSERT = Buffer.from('49f00000014e0001740000000137', 'hex')

  it('gives oids above 2^31 as they are', () => {
    expect(decodeAll([BEGIN, RELATION, INSERT]).at(-1)).toEqual(['insert', 0xf000_0001, ['7']])
  })

  it('reads binary cells', () => {
    expect(decodeAll([BEGIN, RELATION, Buffer.from('49f00000014e00016200000002beef', 'hex')]).at(-1)).toEqual(['insert', 0xf000_0001, [{ binary: 'beef' }]])
  })

  it.each([
    ['an unknown tag', [], '58', 'pgoutput ? message: unknown tag 0x58 at byte 0'],
    ['an empty message', [], '', 'pgoutput ? message: truncated: 1 bytes announced, 0 left at byte 0'],
    ['a message of protocol version 2', [], '53000002df01', 'pgoutput ? message: unknown tag 0x53 at byte 0'],
    ['a change outside a transaction', [RELATION], INSERT.toString('hex'), 'pgoutput Insert message: outside a transaction at byte 1'],
    ['a truncate outside a transaction', [RELATION], '540000000100f0000001', 'pgoutput Truncate message: outside a transaction at byte 1'],
    ['a Commit without its Begin', [], COMMIT.toString('hex'), 'pgoutput Commit message: outside a transaction at byte 1'],
    ['a Begin within a transaction', [BEGIN], BEGIN.toString('hex'), 'pgoutput Begin message: inside a transaction at byte 1'],
    ['a Commit of another transaction', [BEGIN], '43000000000001932961000000000193299000030 3db8fda1e14'.replace(' ', ''), 'pgoutput Commit message: another commit LSN than that of its Begin at byte 2'],
    ['a tuple for a relation that was not announced', [BEGIN], INSERT.toString('hex'), `pgoutput Insert message: relation oid 4026531841 was not announced at byte 1`],
    ['a truncate of a relation that was not announced', [BEGIN], '540000000100f0000001', `pgoutput Truncate message: relation oid 4026531841 was not announced at byte 6`],
    ['a tuple of another width than its relation', [BEGIN, RELATION], '49f00000014e0002740000000137 6e'.replace(' ', ''), 'pgoutput Insert message: tuple of 2 columns for a relation of 1 at byte 6'],
    ['an unknown kind of cell', [BEGIN, RELATION], '49f00000014e0001780000000137', 'pgoutput Insert message: unknown kind of column 0 at byte 8'],
    ['a cell longer than its message', [BEGIN, RELATION], '49f00000014e0001747fffffff37', 'pgoutput Insert message: truncated: column 0 of 2147483647 bytes, 1 left at byte 9'],
    ['a cell of negative length', [BEGIN, RELATION], '49f00000014e000174ffffffff37', 'pgoutput Insert message: truncated: column 0 of 4294967295 bytes, 1 left at byte 9'],
    ['an insert with an old tuple', [BEGIN, RELATION], '49f00000014b0001740000000137', 'pgoutput Insert message: new tuple expected at byte 5'],
    ['a delete with a new tuple', [BEGIN, RELATION], '44f00000014e0001740000000137', 'pgoutput Delete message: old tuple expected at byte 5'],
    ['an unknown replica identity', [BEGIN], '52f00000017075626c6963007400780001016964000000001 7ffffffff'.replace(' ', ''), 'pgoutput Relation message: unknown replica identity at byte 14'],
    ['unknown commit flags', [BEGIN], '430100000000019329600000000001932990000303db8fda1e14', 'pgoutput Commit message: unknown flags at byte 1'],
    ['a truncate of more relations than it holds', [BEGIN, RELATION], '54ffffffff00f0000001', 'pgoutput Truncate message: truncated: -1 relations announced at byte 6'],
  ] as const)('refuses %s and says where', (_, before, hex, message) => {
    const error = violationOf(before, Buffer.from(hex, 'hex'))
    expect(error.kind).toBe('ProtocolViolation')
    expect(error.message).toBe(message)
  })

  it('takes the new width when a relation is announced again', () => {
    const wider = Buffer.from('52f00000017075626c69630074006400020169640000000017ffffffff00760000000019ffffffff', 'hex')
    const events = decodeAll([BEGIN, RELATION, INSERT, wider, Buffer.from('49f00000014e00027400000001376e', 'hex')])
    expect(events.at(-1)).toEqual(['insert', 0xf000_0001, ['7', null]])
  })

  it('passes on what the handler throws', () => {
    const decoder = createDecoder({ ...SILENT, begin: () => { throw new TypeError('of the handler') } })
    expect(() => { decoder.decode(BEGIN) }).toThrow(TypeError)
  })
})
