/** The process of {@link bundleWorkflowsApart}: answers with the bundle's code and ends. */
import { bundleReplicationWorkflows } from './replication-worker.ts'
import { type BundleAnswer, TRACED } from './workflow-bundle.ts'

// Whom a terminal interrupts is the worker: it ends in order, and this process with it.
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => undefined)
process.once('disconnect', () => process.exit(1))

const answer: BundleAnswer = { code: (await bundleReplicationWorkflows({ isTraced: process.argv.includes(TRACED) })).code }
process.send?.(answer, () => process.exit(0))
