import { editDistance } from '../model/nearest-name.ts'

/**
 * The candidate that a misspelled name most likely meant: the same but for case first, else the smallest edit distance, up to a third of
 * the name's length. null where none is near.
 */
export function nearest(name: string, candidates: readonly string[]): string | null {
  const folded = name.toLowerCase()
  let best: string | null = null
  let bestDistance = Math.max(1, Math.floor(name.length / 3)) + 1
  for (const candidate of candidates) {
    if (Math.abs(candidate.length - name.length) >= bestDistance) continue
    const distance = editDistance(folded, candidate.toLowerCase())
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}
