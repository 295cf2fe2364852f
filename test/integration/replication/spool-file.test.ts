import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { SpoolFile, SpoolReader } from '../../../src/postgres/spool-file.ts'

const directory = mkdtempSync(join(tmpdir(), 'spool-'))

afterAll(() => {
  rmSync(directory, { recursive: true })
})

function opened(path: string, byteCount: number): SpoolFile {
  const file = SpoolFile.open(path, byteCount)
  if (file === null) throw new Error('the spool is gone')
  return file
}

async function framesOf(path: string, from: number, to: number): Promise<{ sequence: number; bytes: string; end: number }[]> {
  const reader = new SpoolReader(path, from)
  const frames = []
  try {
    while (reader.offset < to) {
      if (!reader.next()) await reader.read(to)
      else frames.push({ sequence: reader.sequence, bytes: reader.buffer.toString('hex', reader.start, reader.end).slice(0, 16), end: reader.offset })
    }
    return frames
  } finally {
    await reader.close()
  }
}

function append(file: SpoolFile, sequence: number, byteCount: number): number {
  file.append(sequence, (writer) => {
    writer.reserve(byteCount)
    writer.buffer.fill(sequence, writer.position, writer.position + byteCount)
    writer.position += byteCount
  })
  return file.endOffset
}

it('gives frames of any size back, from any of them on, and forgets what was not committed', async () => {
  const path = join(directory, 'new-folder', 'a.spool')
  const file = opened(path, 0)
  const ends = [append(file, 1, 8), append(file, 2, 3_000_000), append(file, 3, 8), append(file, 4, 1_500_000)]
  await file.sync()
  const [first = 0, second = 0, third = 0, fourth = 0] = ends
  expect(await framesOf(path, 0, fourth)).toEqual(ends.map((end, index) => ({ sequence: index + 1, bytes: `0${String(index + 1)}`.repeat(8), end })))
  expect((await framesOf(path, second, fourth)).map(({ sequence }) => sequence)).toEqual([3, 4])
  append(file, 5, 10)
  file.close()
  append(file, 6, 10)

  const again = opened(path, third)
  expect(statSync(path).size).toBe(third)
  const end = append(again, 7, 8)
  await again.sync()
  expect((await framesOf(path, first, end)).map(({ sequence }) => sequence)).toEqual([2, 3, 7])
  again.close()
  expect(SpoolFile.open(path, end + 1)).toBeNull()
  await expect(framesOf(path, 0, end + 1)).rejects.toMatchObject({ kind: 'DestinationLost' })
})

// A length that points behind the end was read for again and again, nothing each time: for ever.
it('fails, and never hangs, at any changed byte of a header', async () => {
  const path = join(directory, 'changed.spool')
  const file = opened(path, 0)
  const ends = [append(file, 1, 8), append(file, 2, 300), append(file, 3, 8)]
  const end = ends.at(-1) ?? 0
  await file.sync()
  file.close()
  const whole = readFileSync(path)
  const starts = [0, ...ends.slice(0, -1)]
  for (const start of starts) {
    for (let at = start; at < start + 4; at++) {
      for (const value of [1, 0x7f, 0xff]) {
        const changed = Buffer.from(whole)
        changed[at] = value
        writeFileSync(path, changed)
        const frames = await framesOf(path, 0, end).catch((error: unknown) => {
          expect(error).toMatchObject({ kind: 'DestinationLost' })
          return null
        })
        // Whatever was taken for frames covers the file exactly.
        if (frames !== null) expect(frames.at(-1)?.end).toBe(end)
      }
    }
  }
})
