import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import type { Payload, PayloadCodec } from '@temporalio/common'

const ENCODING = 'binary/encrypted'
const NONCE_BYTES = 12
const TAG_BYTES = 16

/**
 * Encrypts everything that goes into workflow histories (inputs, results, heartbeats, failures' details, memos) by AES-256-GCM. What Temporal must read
 * itself stays as it is: ids, types, task queues, search attributes.
 *
 * To change keys, add a new one and name it as `current`; the former ones decrypt what they have encrypted for as long as such histories are kept.
 */
export class EncryptionCodec implements PayloadCodec {
  readonly #keys: Readonly<Record<string, Buffer>>
  readonly #current: string

  /** Keys of 32 bytes, by an id of your own. */
  constructor(keys: Readonly<Record<string, Buffer>>, current: string) {
    this.#keys = keys
    this.#current = current
    this.#key(current)
  }

  async encode(payloads: Payload[]): Promise<Payload[]> {
    return payloads.map((payload) => {
      const nonce = randomBytes(NONCE_BYTES)
      const cipher = createCipheriv('aes-256-gcm', this.#key(this.#current), nonce)
      const sealed = Buffer.concat([nonce, cipher.update(packed(payload)), cipher.final(), cipher.getAuthTag()])
      return { metadata: { encoding: Buffer.from(ENCODING), 'encryption-key-id': Buffer.from(this.#current) }, data: sealed }
    })
  }

  /** What was not encrypted (before this codec was there) is left alone. */
  async decode(payloads: Payload[]): Promise<Payload[]> {
    return payloads.map((payload) => {
      const { metadata, data } = payload
      if (textOf(metadata?.['encoding']) !== ENCODING || data == null) return payload
      const sealed = Buffer.from(data)
      const decipher = createDecipheriv('aes-256-gcm', this.#key(textOf(metadata?.['encryption-key-id'])), sealed.subarray(0, NONCE_BYTES))
      decipher.setAuthTag(sealed.subarray(-TAG_BYTES))
      return unpacked(Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]))
    })
  }

  #key(id: string): Buffer {
    const key = this.#keys[id]
    if (key?.length !== 32) throw new Error(`there is no key ${JSON.stringify(id)} of 32 bytes`)
    return key
  }
}

function textOf(bytes: Uint8Array | null | undefined): string {
  return bytes == null ? '' : Buffer.from(bytes).toString()
}

/** Metadata and data in one. */
function packed({ metadata, data }: Payload): string {
  const entries = Object.entries(metadata ?? {}).map(([name, value]) => [name, Buffer.from(value).toString('base64')] as const)
  return JSON.stringify({ metadata: Object.fromEntries(entries), data: Buffer.from(data ?? []).toString('base64') })
}

function unpacked(text: Buffer): Payload {
  const { metadata, data } = JSON.parse(text.toString()) as { readonly metadata: Record<string, string>; readonly data: string }
  return { metadata: Object.fromEntries(Object.entries(metadata).map(([name, value]) => [name, Buffer.from(value, 'base64')])), data: Buffer.from(data, 'base64') }
}
