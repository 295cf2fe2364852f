/**
 * `npm test`: lint, types, then the vitest projects one after the other, every step even when an earlier one failed, with
 * each step's time. Ends with `N passed, N failed` alone on the last line, counted from vitest's own JSON report (lint
 * and types count one each), and fails when anything failed or when no test ran at all.
 *
 *   npm test                            everything
 *   npm test -- unit types              only the named steps (also: --project unit)
 *   npm test -- test/unit/model -t lsn  anything else goes to vitest, in all projects or the named ones
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const require = createRequire(import.meta.url)

const CHECKS = {
  lint: ['eslint', 'bin/eslint.js', '.', '--max-warnings', '0'],
  types: ['typescript', 'bin/tsc', '--noEmit'],
}
const PROJECTS = ['unit', 'integration', 'e2e', 'chaos']
const STEPS = [...Object.keys(CHECKS), ...PROJECTS]

/** Running more than the named steps would be a surprise, and so would checks when only a test file was asked for. */
function parseArguments(args) {
  const named = new Set()
  const forVitest = []
  for (let index = 0; index < args.length; index++) {
    const arg = args[index]
    const project = arg === '--project' ? args[++index] : /^--project=(.*)$/.exec(arg)?.[1]
    if (project !== undefined) {
      if (!PROJECTS.includes(project)) throw new Error(`no such project: ${project}; there are ${PROJECTS.join(', ')}`)
      named.add(project)
    } else if (arg === '--project') {
      throw new Error(`--project needs a name: ${PROJECTS.join(', ')}`)
    } else if (STEPS.includes(arg)) named.add(arg)
    else forVitest.push(arg)
  }
  const steps = named.size > 0 ? STEPS.filter((step) => named.has(step)) : forVitest.length > 0 ? PROJECTS : STEPS
  return { steps, forVitest }
}

let running
let interruptedBy
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    interruptedBy = signal
    // Ctrl-C has reached the whole foreground group already; a second SIGINT would make vitest skip its teardown.
    if (signal === 'SIGTERM') running?.kill(signal)
  })
}

/** Runs one of our packages' programs with our terminal; resolves to its exit code (1 when a signal ended it). */
function run(packageName, bin, args) {
  const script = join(dirname(require.resolve(`${packageName}/package.json`)), bin)
  return new Promise((resolve) => {
    running = spawn(process.execPath, [script, ...args], { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
    running.on('error', (error) => {
      console.error(error.message)
      resolve(1)
    })
    running.on('exit', (code) => resolve(code ?? 1))
  })
}

async function runCheck([packageName, bin, ...args]) {
  const exitCode = await run(packageName, bin, args)
  return exitCode === 0 ? { passed: 1, failed: 0, skipped: [], failures: [] } : { passed: 0, failed: 1, skipped: [], failures: [packageName] }
}

async function runProject(project, forVitest, reportDir) {
  const report = join(reportDir, `${project}.json`)
  const exitCode = await run('vitest', 'vitest.mjs', [
    'run',
    ...['--project', project, '--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
    // A filter rightly matches nothing in some projects; that it matches nothing at all is caught in the end.
    ...(forVitest.length > 0 ? ['--passWithNoTests', ...forVitest] : []),
  ])
  return countReport(report, exitCode)
}

/** A failure that vitest does not count as a test (a file that does not load, a failed global setup, an error outside any test) counts one. */
function countReport(report, exitCode) {
  let results
  try {
    results = JSON.parse(readFileSync(report, 'utf8'))
  } catch {
    return { passed: 0, failed: exitCode === 0 ? 0 : 1, skipped: [], failures: exitCode === 0 ? [] : [`vitest exited with ${exitCode} and left no report`] }
  }
  const files = results.testResults
  const brokenFiles = files.filter((file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'))
  const failed = results.numFailedTests + brokenFiles.length
  const failures = [
    ...brokenFiles.map((file) => `${relative(root, file.name)}: ${firstLine(file.message)}`),
    ...testsOf(files, (status) => status === 'failed').map(({ name, messages }) => `${name}: ${firstLine(messages[0])}`),
  ]
  const skipped = testsOf(files, (status) => status !== 'passed' && status !== 'failed').map(({ name }) => name)
  if (exitCode !== 0 && failures.length === 0) return { passed: results.numPassedTests, failed: 1, skipped, failures: [`vitest exited with ${exitCode}`] }
  return { passed: results.numPassedTests, failed, skipped, failures }
}

function testsOf(files, isWanted) {
  return files.flatMap((file) =>
    file.assertionResults
      .filter((test) => isWanted(test.status))
      .map((test) => ({ name: `${relative(root, file.name)} › ${test.fullName}`, messages: test.failureMessages })),
  )
}

const firstLine = (message) => (message ?? '').split('\n', 1)[0].slice(0, 300)

const seconds = (sinceMs) => `${((Date.now() - sinceMs) / 1000).toFixed(1)} s`

/** The package itself runs on older ones (see engines); its development tools say so less clearly than this. */
function refuseOldNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new Error(`The tests need Node.js 20.19 or newer (ESLint and Vite do); this is ${process.versions.node}`)
  }
}

async function main() {
  refuseOldNode()
  const { steps, forVitest } = parseArguments(process.argv.slice(2))
  const reportDir = mkdtempSync(join(tmpdir(), 'test-report-'))
  const startedAt = Date.now()
  const total = { passed: 0, failed: 0, skipped: [], failures: [] }
  const lines = []
  try {
    for (const step of steps) {
      if (interruptedBy !== undefined) break
      console.log(`\n── ${step} ──`)
      const stepStartedAt = Date.now()
      const check = CHECKS[step]
      const counts = check === undefined ? await runProject(step, forVitest, reportDir) : await runCheck(check)
      total.passed += counts.passed
      total.failed += counts.failed
      total.skipped.push(...counts.skipped)
      total.failures.push(...counts.failures)
      const verdict = counts.failed > 0 ? 'FAILED' : 'ok'
      lines.push(
        `${step.padEnd(12)} ${verdict.padEnd(7)} ${seconds(stepStartedAt).padStart(8)}   ` +
          `${counts.passed} passed, ${counts.failed} failed${counts.skipped.length > 0 ? `, ${counts.skipped.length} skipped` : ''}`,
      )
      console.log(`── ${step}: ${verdict} in ${seconds(stepStartedAt)}`)
    }
  } finally {
    rmSync(reportDir, { recursive: true, force: true })
  }

  console.log(`\n${lines.join('\n')}\n${'total'.padEnd(20)} ${seconds(startedAt).padStart(8)}\n`)
  // A `-t` pattern skips the rest by design; nobody wants their names.
  if (forVitest.length === 0) for (const name of total.skipped) console.log(`skipped: ${name}`)
  for (const failure of total.failures) console.log(`failed: ${failure}`)
  const ranNothing = total.passed + total.failed === 0
  if (ranNothing) console.log('no test ran')
  if (interruptedBy !== undefined) console.log(`interrupted by ${interruptedBy}`)
  console.log(`${total.passed} passed, ${total.failed} failed`)
  process.exitCode = total.failed > 0 || ranNothing || interruptedBy !== undefined ? 1 : 0
}

try {
  await main()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 2
}
