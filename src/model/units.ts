/** `1023 B`, `1.5 KiB`, `3.0 GiB`: bytes for people to read; less than none is none. */
export function formatBytes(given: number): string {
  const bytes = Math.max(0, given)
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log2(bytes) / 10))
  return `${power === 0 ? Math.round(bytes) : (bytes / 1024 ** power).toFixed(1)} ${units[power] ?? ''}`
}

/** `350 ms`, `12.0 s`, `3 min`, `2.5 h`, `3.0 days`: milliseconds for people to read. */
export function formatDuration(durationMs: number): string {
  if (durationMs < 1_000) return `${Math.round(durationMs)} ms`
  if (durationMs < 120_000) return `${(durationMs / 1_000).toFixed(1)} s`
  if (durationMs < 7_200_000) return `${Math.round(durationMs / 60_000)} min`
  return durationMs < 172_800_000 ? `${(durationMs / 3_600_000).toFixed(1)} h` : `${(durationMs / 86_400_000).toFixed(1)} days`
}
