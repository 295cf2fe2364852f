import { expect, it } from 'vitest'
import { errorOfFindings, failureFinding, okFinding } from '../../../src/postgres/findings.ts'

// Cause: the bracket named checks ("also failing: tables"), which told nobody what else was missing.
it('says what else has failed beside the first', () => {
  const missing = (name: string) => failureFinding({ name: 'tables', kind: 'InvalidInput', message: `there is no table "${name}"`, advice: 'Did you mean "s.a"?' })
  expect(errorOfFindings([okFinding('x', 'fine')])).toBeNull()
  expect(errorOfFindings([okFinding('x', 'fine'), missing('s.b'), missing('s.c')])).toMatchObject({ kind: 'InvalidInput', message: 'there is no table "s.b"; also: there is no table "s.c"', remedy: 'Did you mean "s.a"?' })
  expect(errorOfFindings(['b', 'c', 'd', 'e', 'f', 'g'].map(missing))?.message).toMatch(/^there is no table "b"; also: .*"e"; and 2 more, which doctor lists$/)
})
