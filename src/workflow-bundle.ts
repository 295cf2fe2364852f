import { fork } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { WorkflowBundle } from '@temporalio/worker'

const EXTENSION = extname(import.meta.url)
const PROGRAM = fileURLToPath(new URL(`./workflow-bundle-process${EXTENSION}`, import.meta.url))
/** A package is built with it. */
const BUILT = fileURLToPath(new URL('./workflow-bundle-code.js', import.meta.url))

/** All that workflows are made of: they may import nothing else of ours (`npm run lint` holds that), and packages as the lockfile has them. */
const SOURCES = ['workflows', 'model'].map((room) => fileURLToPath(new URL(`./${room}/`, import.meta.url)))
const LOCKFILE = fileURLToPath(new URL('../package-lock.json', import.meta.url))
const KEPT = fileURLToPath(new URL('../.dev/cache/', import.meta.url))

/** Tells {@link bundleWorkflowsApart}'s process that the workflows shall be traced. */
export const TRACED = '--traced'

/** What {@link bundleWorkflowsApart}'s process answers. */
export interface BundleAnswer {
  readonly code: string
}

/**
 * The workflows for the SDK's sandbox: as the package was built with them, or as they were bundled last, where nothing of them has changed since (in `.dev/cache`
 * of a clone); else bundled now, as with what traces them. Throws as {@link bundleWorkflowsApart}.
 */
export async function loadWorkflowBundle({ isTraced = false }: { readonly isTraced?: boolean } = {}): Promise<WorkflowBundle> {
  if (isTraced) return bundleWorkflowsApart({ isTraced })
  if (EXTENSION !== '.ts') return (await read(BUILT)) ?? bundleWorkflowsApart()
  const file = join(KEPT, `workflows-${await fingerprint()}.js`)
  const kept = await read(file)
  if (kept !== null) return kept
  const bundle = await bundleWorkflowsApart()
  await keep(file, bundle.code).catch(() => undefined)
  return bundle
}

/**
 * Bundles the workflows in a process of its own, which ends with it: done here, webpack and its compiler would leave more than 100 MB
 * of resident memory to the worker for the rest of its life. Takes a few seconds. Throws when that process gives no bundle; it has
 * said why on stderr.
 */
export async function bundleWorkflowsApart({ isTraced = false }: { readonly isTraced?: boolean } = {}): Promise<WorkflowBundle> {
  const bundler = fork(PROGRAM, isTraced ? [TRACED] : [], {
    // Whatever runs this process's TypeScript must run the other one's.
    ...(EXTENSION === '.ts' ? { execArgv: ['--import', import.meta.resolve('tsx')] } : {}),
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  return new Promise((resolve, reject) => {
    bundler.once('message', (answer: BundleAnswer) => {
      resolve({ code: answer.code })
    })
    bundler.once('error', reject)
    bundler.once('exit', (code, signal) => {
      reject(new Error(`bundling the workflows ended with ${signal ?? `exit code ${String(code)}`}`))
    })
  })
}

async function fingerprint(): Promise<string> {
  const hash = createHash('sha256').update(process.version)
  for (const folder of SOURCES) {
    for (const name of (await readdir(folder, { recursive: true })).sort()) {
      if (name.endsWith(EXTENSION)) hash.update(`\0${name}\0`).update(await readFile(join(folder, name)))
    }
  }
  return hash.update(await readFile(LOCKFILE)).digest('hex').slice(0, 32)
}

async function read(file: string): Promise<WorkflowBundle | null> {
  return readFile(file, 'utf8').then((code) => ({ code }), () => null)
}

/** Whole or not at all: other workers read it meanwhile. What was kept before it is of no use any more. */
async function keep(file: string, code: string): Promise<void> {
  await mkdir(KEPT, { recursive: true })
  for (const name of await readdir(KEPT)) if (/^workflows-[0-9a-f]{32}\.js$/.test(name)) await rm(join(KEPT, name), { force: true })
  const writing = `${file}.${randomUUID()}`
  await writeFile(writing, code)
  await rename(writing, file)
}
