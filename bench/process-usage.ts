import { execFile } from 'node:child_process'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** The kernel's unit of process times in /proc; the same on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100

/** Often enough not to miss a peak by much where the kernel does not keep it for us. */
const SAMPLE_INTERVAL_MS = 100

/** One line of /proc/<pid>/stat, as far as it is needed. */
export interface ProcessStat {
  readonly parentPid: number
  readonly ownTicks: number
  /** Of children that have ended and were waited for. */
  readonly endedChildrenTicks: number
}

/**
 * Parses /proc/<pid>/stat. The program's name is in parentheses and may hold any character, so fields are counted from the last one.
 *
 * Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
 */
export function parseProcessStat(text: string): ProcessStat {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const field = (number: number): number => Number(fields[number - 3])
  return { parentPid: field(4), ownTicks: field(14) + field(15), endedChildrenTicks: field(16) + field(17) }
}

/** Parses `ps`'s cumulative CPU time: `[[dd-]hh:]mm:ss[.ff]`. */
export function parseCpuTime(text: string): number {
  const [clock = '', days] = text.trim().split('-').reverse()
  const seconds = clock.split(':').reduce((sum, part) => sum * 60 + Number(part), 0)
  return seconds + Number(days ?? 0) * 86_400
}

/** CPU seconds of one process so far; null where they cannot be known. */
export async function readCpuSeconds(pid: number): Promise<number | null> {
  const stat = await readStat(pid)
  if (stat !== null) return stat.ownTicks / TICKS_PER_SECOND
  return await run('ps', ['-o', 'time=', '-p', String(pid)]).then(
    ({ stdout }) => parseCpuTime(stdout),
    () => null,
  )
}

/** CPU seconds of a process and all its children, those that have ended too; null where there is no /proc. */
export async function readTreeCpuSeconds(pid: number): Promise<number | null> {
  for (;;) {
    const root = await readStat(pid)
    if (root === null) return null
    let ticks = root.ownTicks + root.endedChildrenTicks
    for (const name of await readdir('/proc')) {
      const stat = /^\d+$/.test(name) ? await readStat(Number(name)) : null
      if (stat?.parentPid === pid) ticks += stat.ownTicks + stat.endedChildrenTicks
    }
    // A child that ended while its siblings were read would be in neither sum.
    const after = await readStat(pid)
    if (after === null || after.endedChildrenTicks === root.endedChildrenTicks) return ticks / TICKS_PER_SECOND
  }
}

async function readStat(pid: number): Promise<ProcessStat | null> {
  return await readFile(`/proc/${pid}/stat`, 'utf8').then(parseProcessStat, () => null)
}

/** Watches the resident memory of a process. */
export interface MemoryWatch {
  /** Ends the watch. Bytes; null where nothing could be read. */
  stop(): Promise<number | null>
}

/** Begins to watch: the kernel's own high-water mark where it can be reset, else samples. */
export async function watchMemory(pid: number): Promise<MemoryWatch> {
  // 5 resets the high-water mark (man proc_pid_clear_refs); it may be refused.
  const isReset = await writeFile(`/proc/${pid}/clear_refs`, '5').then(
    () => true,
    () => false,
  )
  let peak = 0
  const sample = async (): Promise<void> => {
    peak = Math.max(peak, (await readMemory(pid, 'VmRSS')) ?? 0)
  }
  const timer = setInterval(() => void sample(), SAMPLE_INTERVAL_MS)
  return {
    stop: async () => {
      clearInterval(timer)
      await sample()
      const highWater = isReset ? await readMemory(pid, 'VmHWM') : null
      const bytes = Math.max(peak, highWater ?? 0)
      return bytes === 0 ? null : bytes
    },
  }
}

async function readMemory(pid: number, field: 'VmRSS' | 'VmHWM'): Promise<number | null> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => null)
  if (status !== null) {
    const kilobytes = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]
    return kilobytes === undefined ? null : Number(kilobytes) * 1024
  }
  return await run('ps', ['-o', 'rss=', '-p', String(pid)]).then(
    ({ stdout }) => Number(stdout) * 1024,
    () => null,
  )
}
