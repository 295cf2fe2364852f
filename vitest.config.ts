import { defineConfig } from 'vitest/config';

/** Starts (or finds) one PostgreSQL for the whole project and provides how to reach it. */
const POSTGRES = './test/support/postgres.global.ts';
/** The same for Temporal. */
const TEMPORAL = './test/support/temporal.global.ts';

const SECOND = 1_000;

/**
 * Four projects, cheapest first; `groupOrder` keeps that order when one `vitest run` runs them all. Two files at a time, or three:
 * tests share two cores with the servers that they test. No retries anywhere: a test that passes the second time has
 * found something. Timeouts are no bounds on speed: whatever hangs ends, on a machine that does ten other things too.
 */
export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    // Tests that are concurrent wait for timeouts of Temporal's, each for its own.
    maxConcurrency: 12,
    retry: 0,
    restoreMocks: true,
    unstubEnvs: true,
    teardownTimeout: 30 * SECOND,
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          testTimeout: 60 * SECOND,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'integration',
          // Replaying recorded histories needs the workflow bundler but no server; it stands with what takes seconds.
          include: ['test/integration/**/*.test.ts', 'test/replay/**/*.test.ts'],
          globalSetup: [POSTGRES],
          // Much of their time is waiting: for a lock, a timeout, a server that starts.
          maxWorkers: 3,
          testTimeout: 600 * SECOND,
          hookTimeout: 600 * SECOND,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          globalSetup: [POSTGRES, TEMPORAL],
          testTimeout: 600 * SECOND,
          hookTimeout: 600 * SECOND,
          sequence: { groupOrder: 2 },
        },
      },
      {
        extends: true,
        test: {
          name: 'chaos',
          include: ['test/chaos/**/*.test.ts'],
          globalSetup: [POSTGRES, TEMPORAL],
          // Much of their time is waiting for a timeout to end.
          maxWorkers: 2,
          testTimeout: 900 * SECOND,
          hookTimeout: 300 * SECOND,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});
