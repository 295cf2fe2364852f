import { fork } from 'node:child_process'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { WorkflowBundle } from '@temporalio/worker'

const EXTENSION = extname(import.meta.url)
const PROGRAM = fileURLToPath(new URL(`./workflow-bundle-process${EXTENSION}`, import.meta.url))

/** What {@link bundleWorkflowsApart}'s process answers. */
export interface BundleAnswer {
  readonly code: string
}

/**
 * Bundles the workflows in a process of its own, which ends with it: done here, webpack and its compiler would leave more than 100 MB
 * of resident memory to the worker for the rest of its life. Takes a second or two. Throws when that process gives no bundle; it has
 * said why on stderr.
 */
export async function bundleWorkflowsApart(): Promise<WorkflowBundle> {
  const bundler = fork(PROGRAM, {
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
