import { reportText } from '../model/error-report.ts'
import { stayingOutBy } from '../model/settled-warnings.ts'
import { tableKey, type TableName } from '../model/table-schema.ts'
import { warningFinding, type PreflightFinding } from './findings.ts'
import type { SourceRequest } from './source-request.ts'

type NewcomerRequest = Pick<SourceRequest, 'tableNames' | 'knownTables' | 'addedTables'> & Partial<Pick<SourceRequest, 'destinationHasState' | 'reset'>>

/** What a warning says first of a table that could not join. */
export function stayingOut(table: TableName): string {
  return stayingOutBy(tableKey(table))
}

/**
 * Did the table come to the whole schema since the replication began? Nobody named it, so that it stays out where it cannot be replicated, and the others go on;
 * what stands there at the first start is refused.
 */
export function isNewcomer({ tableNames, knownTables = [], addedTables = [], destinationHasState = false, reset = false }: NewcomerRequest, { oid }: { readonly oid: number }): boolean {
  return tableNames === null && destinationHasState && !reset && ![...knownTables, ...addedTables].some((known) => known.oid === oid)
}

/** Tells newcomers that are not fit to join from the other tables, and why; `check` gives what is wrong with a table. */
export function withoutUnfit<T extends TableName & { readonly oid: number }>(
  request: NewcomerRequest,
  tables: readonly T[],
  check: (table: T) => readonly PreflightFinding[],
): { readonly tables: readonly T[]; readonly findings: readonly PreflightFinding[] } {
  const findings: PreflightFinding[] = []
  const fit = tables.filter((table) => {
    const failure = isNewcomer(request, table) ? check(table).find(({ state }) => state === 'failure') : undefined
    if (failure !== undefined) findings.push(warningFinding('tables', `${stayingOut(table)}${reportText({ message: failure.message, remedy: failure.remedy ?? '' })}`))
    return failure === undefined
  })
  return { tables: fit, findings }
}
