import { expect, it } from 'vitest'
import { errorOfFindings, failureFinding, okFinding } from '../../../src/postgres/findings.ts'

// Cause: the bracket named checks ("also failing: tables"), which told nobody what else was missing.
it('says what else has failed beside the first', () => {
  const missing = (name: string) => failureFinding({ name: 'tables', kind: 'InvalidInput', message: `there is no table "${name}"`, advice: 'Did you mean "s.a"?' })
  expect(errorOfFindings([okFinding('x', 'fine')])).toBeNull()
  expect(errorOfFindings([okFinding('x', 'fine'), missing('s.b'), missing('s.c')])).toMatchObject({ kind: 'InvalidInput', message: 'there is no table "s.b"; also: there is no table "s.c"', remedy: 'Did you mean "s.a"?' })
  // Cause: only the first of several names that are missing was told what comes near it.
  const other = failureFinding({ name: 'tables', kind: 'InvalidInput', message: 'there is no table "s.itms"', advice: 'Did you mean "s.items"?' })
  const unready = failureFinding({ name: 'wal_level', kind: 'SourceNotReady', message: 'wal_level is replica', advice: 'Set it:', sql: ["ALTER SYSTEM SET wal_level = 'logical'"] })
  expect(errorOfFindings([missing('s.b'), other, unready])).toMatchObject({ message: 'there is no table "s.b" (Did you mean "s.a"?); also: there is no table "s.itms" (Did you mean "s.items"?); wal_level is replica', remedy: 'Did you mean "s.a"?' })
  expect(errorOfFindings(['b', 'c', 'd', 'e', 'f', 'g'].map(missing))?.message).toMatch(/^there is no table "b"; also: .*"e"; and 2 more, which doctor lists$/)
})
