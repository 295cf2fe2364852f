/**
 * A value in Thrift's compact protocol, as far as Parquet's headers need one: `code` is its type, `bytes` is what stands behind a field's header.
 *
 * Source: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
 */
export interface ThriftValue {
  readonly code: number
  readonly bytes: Uint8Array
}

const CODE = { true: 1, false: 2, byte: 3, i32: 5, i64: 6, binary: 8, list: 9, struct: 12 } as const
const LONGEST_SHORT_LIST = 14

/** A whole number from 0 to 2^53 − 1 in groups of seven bits, the lowest first. */
export function varint(value: number): readonly number[] {
  const bytes: number[] = []
  let rest = value
  for (; rest > 0x7f; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80)
  return [...bytes, rest]
}

/** A number from 0 on: Parquet's headers have no others. */
export function i32(value: number): ThriftValue {
  return { code: CODE.i32, bytes: Buffer.from(varint(value * 2)) }
}

/** A number from 0 to 2^52. */
export function i64(value: number): ThriftValue {
  return { code: CODE.i64, bytes: Buffer.from(varint(value * 2)) }
}

export function byte(value: number): ThriftValue {
  return { code: CODE.byte, bytes: Buffer.of(value) }
}

/** As a struct's field. */
export function bool(value: boolean): ThriftValue {
  return { code: value ? CODE.true : CODE.false, bytes: Buffer.of() }
}

export function text(value: string): ThriftValue {
  const bytes = Buffer.from(value)
  return { code: CODE.binary, bytes: Buffer.concat([Buffer.from(varint(bytes.length)), bytes]) }
}

/** A list of one or more values of one type; not of booleans. */
export function list(values: readonly ThriftValue[]): ThriftValue {
  const code = values[0]?.code ?? CODE.struct
  const head = values.length <= LONGEST_SHORT_LIST ? [(values.length << 4) | code] : [0xf0 | code, ...varint(values.length)]
  return { code: CODE.list, bytes: Buffer.concat([Buffer.from(head), ...values.map(({ bytes }) => bytes)]) }
}

/** Fields by their ids, which grow by 15 at most; null = left out. */
export function struct(...fields: readonly (readonly [id: number, value: ThriftValue | null])[]): ThriftValue {
  const parts: Uint8Array[] = []
  let lastId = 0
  for (const [id, value] of fields) {
    if (value === null) continue
    parts.push(Buffer.of(((id - lastId) << 4) | value.code), value.bytes)
    lastId = id
  }
  return { code: CODE.struct, bytes: Buffer.concat([...parts, Buffer.of(0)]) }
}
