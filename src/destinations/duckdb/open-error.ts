import { DomainError } from '../../model/errors.ts'

interface Cause {
  readonly what: string
  readonly remedy: string
}

const OTHER_PATH = "or give the destination another path in the worker's configuration"
const NO_PLACE = { what: 'its folder cannot be made', remedy: `make the folder, ${OTHER_PATH}` }
const NOT_ALLOWED = { what: 'this user may not read and write it or its folder', remedy: `let the worker's user read and write the file and its folder, ${OTHER_PATH}` }

/** What somebody has to mend; whatever else an errno says (a full disk, too many open files) time may mend. */
const CAUSE_BY_ERRNO: Readonly<Record<string, Cause>> = {
  EACCES: NOT_ALLOWED,
  EPERM: NOT_ALLOWED,
  EROFS: { what: 'its file system is read-only', remedy: `mount it for writing, ${OTHER_PATH}` },
  ENOTDIR: { what: 'a part of its path is a file, not a folder', remedy: `move that file away, ${OTHER_PATH}` },
  EISDIR: { what: 'it is a folder', remedy: "give the destination the path of a file in the worker's configuration" },
  ENOENT: NO_PLACE,
  ELOOP: NO_PLACE,
  ENAMETOOLONG: { what: 'its path is too long', remedy: "give the destination a shorter path in the worker's configuration" },
}

/** DuckDB gives no codes, and the system's messages in English: for these alone its text is looked at. */
const CAUSE_BY_TEXT: readonly (readonly [RegExp, Cause])[] = [
  [/: Permission denied$/m, NOT_ALLOWED],
  ...([['Read-only file system', 'EROFS'], ['Not a directory', 'ENOTDIR'], ['Is a directory', 'EISDIR'], ['No such file or directory', 'ENOENT']] as const).map(
    ([text, errno]) => [new RegExp(`: ${text}$`, 'm'), CAUSE_BY_ERRNO[errno] ?? NO_PLACE] as const,
  ),
  [/is not a valid DuckDB database file/, { what: 'it is no DuckDB database', remedy: `move it away, ${OTHER_PATH}` }],
  [/database file with version number/, { what: 'it was written by another version of DuckDB, whose format this one cannot read', remedy: `use the version of this program that wrote it, ${OTHER_PATH}` }],
  [/^(Serialization Error|IO Error: Corrupt database file)/, { what: 'it is damaged, or written by another version of DuckDB', remedy: 'put a copy of it back that is good; or move it away and start with "reset": true' }],
]

/**
 * Why a DuckDB file could not be opened, as an error that is final where somebody has to mend it: `DestinationFailed`, not retryable; null
 * where time may (another process has it open, the disk is full).
 */
export function finalOpenError(error: unknown, path: string): DomainError | null {
  if (!(error instanceof Error)) return null
  const errno = 'code' in error && typeof error.code === 'string' ? error.code : null
  const cause = errno === null ? CAUSE_BY_TEXT.find(([pattern]) => pattern.test(error.message))?.[1] : CAUSE_BY_ERRNO[errno]
  if (cause === undefined) return null
  const { what, remedy } = cause
  return new DomainError({ kind: 'DestinationFailed', message: `cannot open the DuckDB file ${path}: ${what}${errno === null ? '' : ` (${errno})`}`, remedy, permanent: true })
}
