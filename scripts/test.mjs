/**
 * `npm test`: lint, types, and the vitest projects, every step even when an earlier one failed, with each step's time. Steps that leave
 * a core idle run side by side; each one's output comes whole. Ends with `N passed, N failed` alone on the last line, counted from vitest's own JSON report (lint
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
/** Side by side: each has one process at work for much of its time. */
const GROUPS = [['unit', 'types', 'lint'], ['integration'], ['e2e', 'chaos']]

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

const running = new Set()
let interruptedBy
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    interruptedBy = signal
    // Ctrl-C has reached the whole foreground group already; a second SIGINT would make vitest skip its teardown.
    if (signal === 'SIGTERM') for (const child of running) child.kill(signal)
  })
}

/** Runs one of our packages' programs, its output going to `write`; resolves to its exit code (1 when a signal ended it). */
function run([packageName, bin, ...args], write) {
  const script = join(dirname(require.resolve(`${packageName}/package.json`)), bin)
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [script, ...args], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], env: { FORCE_COLOR: process.stdout.isTTY ? '1' : '0', ...process.env } })
    running.add(child)
    for (const stream of [child.stdout, child.stderr]) stream.on('data', write)
    child.on('error', (error) => {
      write(`${error.message}\n`)
      resolve(1)
    })
    child.on('close', (code) => {
      running.delete(child)
      resolve(code ?? 1)
    })
  })
}

async function runCheck(program, write) {
  const exitCode = await run(program, write)
  return exitCode === 0 ? { passed: 1, failed: 0, skipped: [], failures: [] } : { passed: 0, failed: 1, skipped: [], failures: [program[0]] }
}

async function runProject(project, { forVitest, reportDir, write }) {
  const report = join(reportDir, `${project}.json`)
  const program = [
    'vitest',
    'vitest.mjs',
    'run',
    ...['--project', project, '--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
    // A filter rightly matches nothing in some projects; that it matches nothing at all is caught in the end.
    ...(forVitest.length > 0 ? ['--passWithNoTests', ...forVitest] : []),
  ]
  return countReport(report, await run(program, write))
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

/** Of several steps at once the first speaks at once, and each other one when it is its turn: when those before it have ended. */
function outputs() {
  const waiting = []
  const flush = () => {
    while (waiting.length > 0) {
      const [first] = waiting
      for (const chunk of first.chunks.splice(0)) process.stdout.write(chunk)
      if (!first.isOver) return
      waiting.shift()
    }
  }
  return async (work) => {
    const output = { chunks: [], isOver: false }
    waiting.push(output)
    await work((chunk) => {
      output.chunks.push(chunk)
      flush()
    })
    output.isOver = true
    flush()
  }
}

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
    const runStep = async (step, write) => {
      const stepStartedAt = Date.now()
      write(`\n── ${step} ──\n`)
      const check = CHECKS[step]
      const counts = check === undefined ? await runProject(step, { forVitest, reportDir, write }) : await runCheck(check, write)
      total.passed += counts.passed
      total.failed += counts.failed
      total.skipped.push(...counts.skipped)
      total.failures.push(...counts.failures)
      const verdict = counts.failed > 0 ? 'FAILED' : 'ok'
      lines.push(
        `${step.padEnd(12)} ${verdict.padEnd(7)} ${seconds(stepStartedAt).padStart(8)}   ` +
          `${counts.passed} passed, ${counts.failed} failed${counts.skipped.length > 0 ? `, ${counts.skipped.length} skipped` : ''}`,
      )
      write(`── ${step}: ${verdict} in ${seconds(stepStartedAt)}\n`)
    }
    for (const group of GROUPS) {
      if (interruptedBy !== undefined) break
      const writers = outputs()
      await Promise.all(group.filter((step) => steps.includes(step)).map((step) => writers(async (write) => runStep(step, write))))
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
