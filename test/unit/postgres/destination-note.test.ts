import { describe, expect, it } from 'vitest'
import { parseNotes, withNote } from '../../../src/postgres/destination-note.ts'

describe('the note of a slot\'s destination', () => {
  it('is added, changed and taken out beside other text and other slots', () => {
    const first = withNote('owned by team x', 's1', 'd1')
    const second = withNote(first, 's2', 'd2')
    expect(second).toBe('owned by team x\ntemporal-pg-replication destination=d1 slot=s1\ntemporal-pg-replication destination=d2 slot=s2')
    expect(parseNotes(second)).toEqual(new Map([['s1', 'd1'], ['s2', 'd2']]))
    expect(parseNotes(withNote(second, 's1', 'd3')).get('s1')).toBe('d3')
    expect(withNote(withNote(second, 's1', null), 's2', null)).toBe('owned by team x')
    expect(withNote(withNote(null, 's1', 'd1'), 's1', null)).toBeNull()
    expect(parseNotes(null).size).toBe(0)
  })
})
