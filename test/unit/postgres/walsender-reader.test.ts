import { EventEmitter } from 'node:events'
import fc from 'fast-check'
import type pg from 'pg'
import { describe, expect, it } from 'vitest'
import { WalsenderReader, type WalsenderHandler } from '../../../src/postgres/walsender-reader.ts'

/** What a walsender may send: a message of the output plugin, a keepalive, or something that `pg` has to see. */
type Message = { readonly tag: 'plugin'; readonly content: string } | { readonly tag: 'keepalive'; readonly walEnd: bigint; readonly isReplyRequested: boolean } | { readonly tag: 'other'; readonly content: string }

const message: fc.Arbitrary<Message> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ tag: fc.constant('plugin' as const), content: fc.string({ minLength: 1, maxLength: 60 }) }) },
  { weight: 1, arbitrary: fc.record({ tag: fc.constant('keepalive' as const), walEnd: fc.bigInt(0n, (1n << 64n) - 1n), isReplyRequested: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ tag: fc.constant('other' as const), content: fc.string({ maxLength: 30 }) }) },
)

function framed(type: string, content: Buffer): Buffer {
  const header = Buffer.alloc(5)
  header.write(type)
  header.writeUInt32BE(content.length + 4, 1)
  return Buffer.concat([header, content])
}

function bytesOf(given: Message): Buffer {
  if (given.tag === 'other') return framed('N', Buffer.from(given.content))
  if (given.tag === 'plugin') return framed('d', Buffer.concat([Buffer.from('w'), Buffer.alloc(24), Buffer.from(given.content)]))
  const content = Buffer.alloc(18)
  content.write('k')
  content.writeBigUInt64BE(given.walEnd, 1)
  content[17] = given.isReplyRequested ? 1 : 0
  return framed('d', content)
}

/** A reader on a connection without a network, and what came of it. */
function attach(handler: Partial<WalsenderHandler> = {}) {
  const stream = new EventEmitter()
  const received: Message[] = []
  const failures: unknown[] = []
  stream.on('data', (chunk: Buffer) => received.push({ tag: 'other', content: chunk.toString('utf8', 5) }))
  const reader = WalsenderReader.attach({ stream } as unknown as pg.Connection, {
    mayDeliver: () => failures.length === 0,
    message: (buffer, start, end) => received.push({ tag: 'plugin', content: buffer.toString('utf8', start, end) }),
    keepalive: (walEnd, isReplyRequested) => received.push({ tag: 'keepalive', walEnd, isReplyRequested }),
    fail: (error) => failures.push(error),
    ...handler,
  })
  return { reader, received, failures, send: (chunk: Buffer) => stream.emit('data', chunk) }
}

/** Cuts bytes into chunks; each is wiped once it is delivered, as by a socket that reads into the same memory again. */
function sendInPieces(send: (chunk: Buffer) => void, bytes: Buffer, sizes: readonly number[]): void {
  let at = 0
  for (let place = 0; at < bytes.length; place++) {
    const piece = Buffer.from(bytes.subarray(at, at + (sizes[place % sizes.length] ?? 1)))
    at += piece.length
    send(piece)
    piece.fill(0xff)
  }
}

const sizes = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1 })

describe('WalsenderReader', () => {
  it('gives every message whole and in its order, however the bytes are cut', () => {
    fc.assert(fc.property(fc.array(message), sizes, (messages, pieces) => {
      const { received, failures, send } = attach()
      sendInPieces(send, Buffer.concat(messages.map(bytesOf)), pieces)
      expect(failures).toEqual([])
      expect(received).toEqual(messages)
    }))
  })

  it('stops between any two messages, and goes on with the next', () => {
    fc.assert(fc.property(fc.array(message), sizes, fc.integer({ min: 1, max: 5 }), (messages, pieces, stride) => {
      let allowed = stride
      const attached = attach({ mayDeliver: () => attached.received.length < allowed })
      const { reader, received, send } = attached
      sendInPieces(send, Buffer.concat(messages.map(bytesOf)), pieces)
      while (received.length < messages.length) {
        expect(received).toEqual(messages.slice(0, allowed))
        allowed += stride
        reader.goOn()
      }
      expect(received).toEqual(messages)
    }))
  })

  it('does not begin anew where a call of the handler lets it go on', () => {
    const order: string[] = []
    const attached = attach({
      message: (buffer, start, end) => {
        attached.reader.goOn()
        order.push(buffer.toString('utf8', start, end))
      },
    })
    attached.send(Buffer.concat(['a', 'b', 'c'].map((content) => bytesOf({ tag: 'plugin', content }))))
    expect(order).toEqual(['a', 'b', 'c'])
  })

  it('reports what the handler throws, and gives it nothing more', () => {
    const failure = new Error('of the handler')
    const { received, failures, send } = attach({ keepalive: () => { throw failure } })
    send(Buffer.concat([bytesOf({ tag: 'plugin', content: 'a' }), bytesOf({ tag: 'keepalive', walEnd: 1n, isReplyRequested: false }), bytesOf({ tag: 'plugin', content: 'b' })]))
    expect(failures).toEqual([failure])
    expect(received).toEqual([{ tag: 'plugin', content: 'a' }])
  })

  it.each([
    ['a length that no message has', Buffer.from([0x64, 0, 0, 0, 3, 0])],
    ['a message of over a gigabyte', Buffer.from([0x64, 0x40, 0, 0, 0, 0])],
    ['CopyData of another kind', framed('d', Buffer.from('x'))],
    ['empty CopyData', framed('d', Buffer.alloc(0))],
    ['XLogData without a message', framed('d', Buffer.concat([Buffer.from('w'), Buffer.alloc(24)]))],
    ['a keepalive that is cut short', framed('d', Buffer.concat([Buffer.from('k'), Buffer.alloc(16)]))],
  ])('refuses %s', (_, bytes) => {
    const { failures, received, send } = attach()
    send(bytes)
    expect(failures).toMatchObject([{ kind: 'ProtocolViolation' }])
    expect(received).toEqual([])
  })

  it('drops everything once it is closed, also from within a call', () => {
    const attached = attach({
      message: () => { attached.reader.close() },
    })
    const bytes = Buffer.concat([bytesOf({ tag: 'plugin', content: 'a' }), bytesOf({ tag: 'other', content: 'b' })])
    attached.send(bytes)
    attached.send(bytes)
    expect(attached.received).toEqual([])
    expect(attached.failures).toEqual([])
  })
})
