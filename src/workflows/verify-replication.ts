import { setCurrentDetails } from '@temporalio/workflow'
import { parseVerifyInput } from '../model/spec-parse.ts'
import type { VerifyReplicationInput } from '../model/spec.ts'
import type { NamedDifference, VerifiedTable, VerifyProgress, VerifyRequest } from '../model/verification.ts'
import { runOneShot } from './one-shot.ts'
import { parseRunInput } from './run-input.ts'

/** What a lost worker repeats at most; the workflow keeps what came before. */
const MAX_SLICE_MS = 300_000

/** What `verifyReplication` returns. */
export interface VerifyReplicationResult {
  /** The LSN of the last snapshot that was compared; null where no table was. */
  readonly lsn: string | null
  readonly tables: Readonly<Record<string, VerifiedTable>>
  /** The first differences of each table that has any, by key. */
  readonly differences: Readonly<Record<string, readonly NamedDifference[]>>
  /** Tables that could not be compared, and why. */
  readonly notCompared: Readonly<Record<string, string>>
  readonly warnings: readonly string[]
}

/**
 * Compares source and destination row by row, beside a running `replicate` or with none, and with `repair` puts right what differs. Ends well also where
 * something differs: the result tells.
 */
export async function verifyReplication(input: VerifyReplicationInput, ...more: readonly undefined[]): Promise<VerifyReplicationResult> {
  const { spec, repair, maxRowsPerSecond } = parseRunInput([input, ...more], parseVerifyInput)
  return runOneShot(spec, async (shot) => {
    let progress: VerifyProgress | null = null
    for (;;) {
      const summary = repair ? 'compare and repair' : 'compare'
      const request: VerifyRequest = { spec: shot.spec, repair, maxRowsPerSecond, progress, maxMs: MAX_SLICE_MS }
      const result = await shot.run(summary, (activities) => activities.verifySlice(request))
      progress = result.progress
      setCurrentDetails(details(progress, result.ended === 'done'))
      if (result.ended !== 'done') continue
      const { lsn, tables, differences, notCompared, warnings } = progress
      return { lsn, tables, differences, notCompared, warnings }
    }
  })
}

/** What the UI shows of it. */
function details({ tables, notCompared, warnings, lsn }: VerifyProgress, isDone: boolean): string {
  const rows = Object.entries(tables).map(([name, { compared, different, repaired }]) => `| ${name} | ${compared} | ${different} | ${repaired} |`)
  return [
    `**${isDone ? 'done' : 'comparing'}**${lsn === null ? '' : ` · as of LSN ${lsn}`}`,
    '',
    ...(rows.length === 0 ? [] : ['| table | compared | different | repaired |', '| --- | --- | --- | --- |', ...rows, '']),
    ...[...Object.entries(notCompared).map(([name, reason]) => `${name} was not compared: ${reason}`), ...warnings].map((warning) => `> ${warning}`),
  ].join('\n')
}
