import { describe, expect, it } from 'vitest'
import { DomainError } from '../../../../src/model/errors.ts'
import { readGolden } from './golden.ts'
import { createRecorder } from './recording.ts'
import { createDecoderInMemory } from './streamed-in-memory.ts'

const ROWS = 500

function decodeAll(messages: readonly Buffer[]): unknown[][] {
  const { handler, events } = createRecorder()
  const decoder = createDecoderInMemory(handler)
  for (const message of messages) decoder.decode(message)
  expect(decoder.isInTransaction).toBe(false)
  return events
}

describe.each(['streamed-15', 'streamed-18'] as const)('golden bytes of %s', (name) => {
  const messages = readGolden(name)
  const events = decodeAll(messages)
  const oids = new Map(events.filter(([tag]) => tag === 'relation').map(([, relation]) => [(relation as { name: string }).name, (relation as { oid: number }).oid]))
  const [plain, moods, parent] = ['plain', 'moods', 'parent'].map((table) => oids.get(table))
  const numbers = Array.from({ length: ROWS }, (_, index) => index + 1)

  it('give every transaction whole, at its commit, without what was rolled back', () => {
    const changes = events.filter(([tag]) => tag !== 'relation' && tag !== 'type').map(([tag, ...rest]) => (tag === 'begin' || tag === 'commit' ? [tag] : [tag, ...rest]))
    const [begin, commit] = [[['begin']], [['commit']]]
    expect(changes).toEqual([
      ...begin, ['insert', plain, ['0', 'plain']], ...commit,
      ...begin,
      ...numbers.map((n) => ['insert', plain, [String(n), 'a']]),
      ['message', true, expect.any(String), 'inside', 'of a streamed transaction'],
      ...[1, 2, 3].map((n) => ['update', plain, 'key', [String(n), null], [String(-n), 'a']]),
      ['update', plain, 'none', null, ['0', 'plain']],
      ['update', plain, 'none', null, ['7', 'z']],
      ['delete', plain, 'key', ['8', null]],
      ['truncate', [parent], false, false],
      ...commit,
      ...begin, ...numbers.map((n) => ['insert', moods, ['happy', String(n)]]), ...commit,
      ...begin, ['insert', moods, ['sad', '0']], ...commit,
    ]) // prettier-ignore
  })

  it('bracket each by the LSN of its commit, in the order of these', () => {
    const begins = events.filter(([tag]) => tag === 'begin').map(([, lsn]) => lsn)
    expect(events.filter(([tag]) => tag === 'commit').map(([, lsn]) => lsn)).toEqual(begins)
    expect([...begins].sort()).toEqual(begins)
  })

  it('refuse every message of a stream\'s frame cut short or with a trailing byte', () => {
    const frames = new Set(['S', 'E', 'c', 'A'].map((tag) => tag.charCodeAt(0)))
    const decoder = createDecoderInMemory(createRecorder().handler)
    let count = 0
    for (const message of messages) {
      if (frames.has(message[0] ?? 0)) {
        count++
        for (let length = 0; length < message.length; length++) expect(() => { decoder.decode(message, 0, length) }).toThrow(DomainError)
        expect(() => { decoder.decode(Buffer.concat([message, Buffer.of(0)])) }).toThrow(/1 trailing bytes at byte/)
      }
      decoder.decode(message)
    }
    expect(count).toBeGreaterThan(8)
  })
})

describe('violations of protocol version 2', () => {
  const START = '53000002df01'
  const AGAIN = '53000002df00'
  const STOP = '45'
  const BEGIN = '420000000001932960000303db8fda1e14000002df'
  const COMMIT = '63000002df0000000000019329600000000001932990000303db8fda1e14'

  it.each([
    ['another block of a transaction that has none', [], AGAIN, 'pgoutput Stream Start message: another block of an unknown transaction at byte 6'],
    ['two first blocks of a transaction', [START, STOP], START, 'pgoutput Stream Start message: a first block of a transaction that has one at byte 6'],
    ['a block in a block', [START], START, 'pgoutput streamed message: tag 0x53 in a block of a streamed transaction at byte 0'],
    ['a block in a transaction', [BEGIN], START, 'pgoutput Stream Start message: inside a transaction at byte 1'],
    ['a Begin in a block', [START], BEGIN, 'pgoutput streamed message: tag 0x42 in a block of a streamed transaction at byte 0'],
    ['unknown flags of a block', [], '53000002df02', 'pgoutput Stream Start message: unknown flags at byte 5'],
    ['a Stream Stop outside a block', [], STOP, 'pgoutput ? message: unknown tag 0x45 at byte 0'],
    ['a Stream Commit of an unknown transaction', [], COMMIT, 'pgoutput Stream Commit message: of an unknown transaction at byte 1'],
    ['a second Stream Commit', [START, STOP, COMMIT], COMMIT, 'pgoutput Stream Commit message: of an unknown transaction at byte 1'],
    ['a Stream Commit in a block', [START], COMMIT, 'pgoutput streamed message: tag 0x63 in a block of a streamed transaction at byte 0'],
    ['a Stream Commit after the Stream Abort', [START, STOP, '41000002df000002df'], COMMIT, 'pgoutput Stream Commit message: of an unknown transaction at byte 1'],
    ['a message without its transaction', [START], '49000002', 'pgoutput streamed message: truncated: 4 bytes announced, 3 left at byte 1'],
  ] as const)('are told of %s', (_, before, hex, message) => {
    const decoder = createDecoderInMemory(createRecorder().handler)
    for (const good of before) decoder.decode(Buffer.from(good, 'hex'))
    expect(() => { decoder.decode(Buffer.from(hex, 'hex')) }).toThrow(message)
  })

  it('are not: a Stream Abort of a transaction that nothing came of', () => {
    expect(decodeAll([Buffer.from('41000002df000002e0', 'hex')])).toEqual([])
  })
})
