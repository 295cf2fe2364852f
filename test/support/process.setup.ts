import { afterAll, vi } from 'vitest'

/** Files share a process: what one changes of it is taken back before the next. */
afterAll(() => {
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
})
