import { expect, it } from 'vitest'
import { formatBytes, formatDuration } from '../../../src/model/units.ts'

it.each([
  [-5, '0 B'],
  [0, '0 B'],
  [0.4, '0 B'],
  [1_023, '1023 B'],
  [1_536, '1.5 KiB'],
  [3 * 1024 ** 3, '3.0 GiB'],
  [5 * 1024 ** 5, '5120.0 TiB'],
])('formats %s bytes', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text)
})

it.each([
  [350.4, '350 ms'],
  [12_000, '12.0 s'],
  [180_000, '3 min'],
  [9_000_000, '2.5 h'],
  [259_200_000, '3.0 days'],
])('formats %s ms', (ms, text) => {
  expect(formatDuration(ms)).toBe(text)
})
