/** How a name is compared: case and separators do not count (`memory_limit` is `memoryLimit`). */
function comparable(name: string): string {
  return name.toLowerCase().replaceAll(/[-_. ]/g, '')
}

/** Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b` (Damerau–Levenshtein). */
export function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = []
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const current = [i]
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1]
      let best = Math.min((previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1, (previous[j - 1] ?? 0) + (isSame ? 0 : 1))
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, (beforePrevious[j - 2] ?? 0) + 1)
      current.push(best)
    }
    beforePrevious = previous
    previous = current
  }
  return previous[b.length] ?? 0
}

/**
 * The known name that `name` was most likely meant to be, or undefined where nothing is like it. A name that begins with the
 * other counts as near (`credential`, `table` → `tableNames`).
 */
export function nearestName(name: string, known: Iterable<string>): string | undefined {
  const wanted = comparable(name)
  let best: { readonly name: string; readonly distance: number } | undefined
  for (const candidate of known) {
    const other = comparable(candidate)
    const isPrefix = wanted.length >= 3 && (other.startsWith(wanted) || wanted.startsWith(other))
    const distance = isPrefix ? Math.min(1, editDistance(wanted, other)) : editDistance(wanted, other)
    if (distance > Math.max(1, Math.floor(Math.max(wanted.length, other.length) * 0.4))) continue
    if (best === undefined || distance < best.distance) best = { name: candidate, distance }
  }
  return best?.name
}
