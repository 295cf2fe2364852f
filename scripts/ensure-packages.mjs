/**
 * Makes every npm script work from a clean clone: installs the packages when they are missing or are not those that
 * package-lock.json names, and does nothing (in a few milliseconds, without a word) otherwise.
 *
 * Plain Node without dependencies, and written in what old versions still parse, because it runs before anything is
 * installed and must be able to refuse an old Node by one clear line. Everything it prints goes to stderr, so that
 * `npm run cli -- status --json` has nothing but its JSON on stdout.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** Ends the process, and with it the npm script that this one is a prefix of. */
function fail(message) {
  console.error(message)
  process.exit(1)
}

/** Parsed JSON of a file below the repository's root, or undefined when it is missing or cut short. */
function readJson(path) {
  try {
    return JSON.parse(readFileSync(join(root, path), 'utf8'))
  } catch {
    return undefined
  }
}

function refuseOldNode() {
  const required = readJson('package.json').engines.node.replace('>=', '')
  const [needMajor, needMinor] = required.split('.').map(Number)
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < needMajor || (major === needMajor && minor < needMinor)) {
    fail(`Node.js ${required} or newer is needed; this is ${process.versions.node} (https://nodejs.org)`)
  }
}

/**
 * True when what npm noted as installed agrees with the lockfile, package by package. npm writes its note
 * (node_modules/.package-lock.json) last, so an interrupted install is seen as none. Contents are compared rather than
 * file times, because switching branches touches the lockfile without changing it. A package for another platform is
 * optional and rightly absent.
 */
function hasPackages() {
  const installed = readJson('node_modules/.package-lock.json')
  const locked = readJson('package-lock.json')
  if (installed === undefined || locked === undefined) return false
  return Object.keys(locked.packages).every((path) => {
    if (path === '') return true
    const have = installed.packages[path]
    const want = locked.packages[path]
    return have === undefined ? want.optional === true : have.version === want.version && have.integrity === want.integrity
  })
}

/** Runs npm with these arguments; undefined when it succeeded, otherwise what went wrong. */
function npm(args) {
  const npmScript = process.env.npm_execpath
  // The npm that runs us, not whatever npm comes first on PATH; `node scripts/…` by hand has none.
  const isNpm = npmScript !== undefined && basename(npmScript).startsWith('npm')
  const [command, commandArgs] = isNpm ? [process.execPath, [npmScript, ...args]] : ['npm', args]
  const result = spawnSync(command, commandArgs, { cwd: root, stdio: ['ignore', 2, 2] })
  if (result.error !== undefined) return result.error.message
  return result.status === 0 ? undefined : `npm ${args[0]} ended with ${result.signal ?? result.status}`
}

function installPackages() {
  const options = ['--include=dev', '--no-audit', '--no-fund']
  console.error('Installing packages (npm ci) …')
  // Silent, because a screenful of usage would come before a second try that works; that one says what is wrong.
  if (npm(['ci', '--silent', ...options]) === undefined) return
  // `npm ci` refuses a lockfile that lacks another platform's optional packages (a registry that has only part of them makes
  // such lockfiles); `npm install` takes the same versions from it. --no-save: no command of ours edits the lockfile.
  console.error('npm ci did not work here; trying npm install with the same lockfile …')
  const failure = npm(['install', '--no-save', ...options])
  if (failure !== undefined) {
    fail(
      `The packages could not be installed: ${failure}.\n` +
        'Check that the npm registry is reachable and run the command again, or install them yourself: npm install',
    )
  }
}

refuseOldNode()
if (!hasPackages()) installPackages()
