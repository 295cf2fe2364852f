import { expect, it } from 'vitest'
import { CommitRhythm } from '../../../src/replication/commit-rhythm.ts'

it('lets a batch wait a moment for others', () => {
  expect(new CommitRhythm().dueMs({ rowCount: 1, firstCommitMs: 1_000, lastCommitMs: 1_000 })).toBe(1_008)
})

it('lets a small batch rest as long as the commit before it took, and not over a quarter of a second', () => {
  const rhythm = new CommitRhythm()
  rhythm.onCommit({ startMs: 1_000, endMs: 1_100 })
  expect(rhythm.dueMs({ rowCount: 1_999, firstCommitMs: 1_050, lastCommitMs: 1_050 })).toBe(1_200)
  expect(rhythm.dueMs({ rowCount: 1_999, firstCommitMs: 1_500, lastCommitMs: 1_500 })).toBe(1_508)
  rhythm.onCommit({ startMs: 2_000, endMs: 4_000 })
  expect(rhythm.dueMs({ rowCount: 1, firstCommitMs: 3_000, lastCommitMs: 3_000 })).toBe(4_250)
})

it('lets a batch of a few thousand rows not rest', () => {
  const rhythm = new CommitRhythm()
  rhythm.onCommit({ startMs: 1_000, endMs: 1_100 })
  expect(rhythm.dueMs({ rowCount: 2_000, firstCommitMs: 1_050, lastCommitMs: 1_050 })).toBe(1_058)
})

it('lets a batch of a backlog gather rows as long as more come, and not over a second', () => {
  const rhythm = new CommitRhythm()
  expect(rhythm.dueMs({ rowCount: 9_999, firstCommitMs: 1_000, lastCommitMs: 1_020 })).toBe(1_008)
  expect(rhythm.dueMs({ rowCount: 10_000, firstCommitMs: 1_000, lastCommitMs: 1_020 })).toBe(1_060)
  expect(rhythm.dueMs({ rowCount: 150_000, firstCommitMs: 1_000, lastCommitMs: 1_700 })).toBe(1_740)
  expect(rhythm.dueMs({ rowCount: 150_000, firstCommitMs: 1_000, lastCommitMs: 1_990 })).toBe(2_000)
})
