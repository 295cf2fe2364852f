import { expect, it } from 'vitest'
import { outcomeOf } from '../../../src/cli/scheduled-runs.ts'

const RUN = { takenAt: '2026-01-01T00:00:00.000Z', workflowId: 'verify-shop', state: 'completed' }

// Cause: a verification ends well whatever it finds, and its run was shown as "completed", no more.
it('says of a verification that ended what it found', () => {
  expect(outcomeOf(RUN)).toBe('completed')
  expect(outcomeOf({ ...RUN, different: 0, notCompared: [] })).toBe('completed: equal')
  expect(outcomeOf({ ...RUN, different: 0, notCompared: ['public.a'] })).toBe('completed: equal, as far as was compared; not compared: public.a')
  expect(outcomeOf({ ...RUN, different: 0, notCompared: [], isWhole: false })).toBe('completed: equal, as far as was compared')
  expect(outcomeOf({ ...RUN, different: 1_234, notCompared: ['public.a', 'public.b\u001b[2J'] })).toBe('completed: 1,234 rows differ; not compared: public.a, public.b\\u001b[2J')
})
