/**
 * What `npm test` has no time for:
 *
 *   npm run test:long     random operations, random DDL and random values for LONG_SECONDS (1800) each, from new seeds; values of 300 MB and a row of 500 (4 GB of memory);
 *                         kills at every commit
 *   npm run test:matrix   the integration tests on every major version of PostgreSQL, or on those named: npm run test:matrix -- 14 16
 *
 * Fails when any run fails, and says which.
 */
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const MAJORS = ['14', '15', '16', '17', '18']
const LONG_TESTS = [
  ...['random', 'schema-fuzz', 'ask-kill', 'reshape', 'versions-kill', 'verify-load'].map((name) => `test/integration/replication/${name}.test.ts`),
  ...['round-trip', 'binary-rows', 'large-values'].map((name) => `test/integration/destinations/${name}.test.ts`),
]

/** Mutations of recorded messages that are tried for each second of the others. */
const FUZZ_RUNS_PER_SECOND = 50

const script = join(dirname(fileURLToPath(import.meta.url)), 'test.mjs')
const [what, ...named] = process.argv.slice(2)

/** True where every test passed. */
function run(args, env, project = 'integration') {
  return spawnSync(process.execPath, [script, '--project', project, ...args], { stdio: 'inherit', env: { ...process.env, ...env } }).status === 0
}

function runs() {
  if (what === 'long') {
    const seconds = process.env.LONG_SECONDS ?? '1800'
    const seed = String(Date.now() % 2 ** 31)
    const env = { RANDOM_SECONDS: seconds, RANDOM_SEED: seed, SCHEMA_SECONDS: seconds, SCHEMA_SEED: seed, ROUND_TRIP_VALUES: '5000', ROUND_TRIP_SEED: seed, LARGE_VALUE_MB: '300', KILLS: 'all', VERIFY_ROUNDS: '200', VERIFY_SEED: seed }
    const fuzz = { FUZZ_RUNS: String(Number(seconds) * FUZZ_RUNS_PER_SECOND), FUZZ_SEED: seed }
    return [[`long, seed ${seed}`, LONG_TESTS, env], ['kills, and many pipelines', ['test/chaos/kill-matrix.test.ts', 'test/chaos/many-pipelines.test.ts'], { ...env, MANY: '50' }, 'chaos'], [`messages, seed ${seed}`, ['test/unit/postgres/pgoutput/fuzz.test.ts'], fuzz, 'unit']]
  }
  if (what !== 'matrix') throw new Error('long or matrix?')
  const majors = named.length > 0 ? named : MAJORS
  const unknown = majors.find((major) => !MAJORS.includes(major))
  if (unknown !== undefined) throw new Error(`PostgreSQL ${unknown} is not among ${MAJORS.join(', ')}`)
  return majors.map((major) => [`PostgreSQL ${major}`, [], { TEST_POSTGRES_MAJOR: major }])
}

const results = runs().map(([title, args, env, project]) => [title, run(args, env, project)])
for (const [title, isGood] of results) console.log(`${title}: ${isGood ? 'passed' : 'FAILED'}`)
process.exitCode = results.every(([, isGood]) => isGood) ? 0 : 1
