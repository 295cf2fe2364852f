import { shellWord } from '../model/remedy.ts'

/** What `npm run dev` has running. */
export interface RunningServers {
  readonly postgresUrl: string
  readonly temporalAddress: string
  readonly namespace: string
  readonly uiUrl: string | undefined
  readonly configPath: string
  /** The user's own configuration: the worker replicates what it names, not the sample database. */
  readonly isConfigOwn: boolean
  readonly taskQueue: string
  /** The Temporal CLI as a shell finds it: `temporal`, or a path; null where there is none. */
  readonly temporalProgram: string | null
  /** Tables to name in the examples. */
  readonly tableNames: readonly string[]
}

/** How to connect and what to type, as lines for a terminal; every command works when pasted into a shell. */
export function describeRunningServers(servers: RunningServers): readonly string[] {
  const input = { slotName: 'shop_slot', publicationName: 'shop_publication', tableNames: servers.tableNames }
  const workflowId = 'replicate-shop'
  const connection = [
    ...['--address', servers.temporalAddress],
    ...(servers.namespace === 'default' ? [] : ['--namespace', servers.namespace]),
  ]
  const temporal = (command: string, ...args: readonly string[]): string =>
    `  ${toShell([servers.temporalProgram ?? 'temporal', 'workflow', command, ...args, '--workflow-id', workflowId, ...connection])}`
  const start = servers.isConfigOwn ? 'Start replicating, with your own slot, publication and tables in place of these:' : 'Start replicating:'
  const byTemporalCli = [
    start,
    temporal('start', '--type', 'replicate', '--task-queue', servers.taskQueue, '--input', JSON.stringify(input)),
    'Look at it, and stop it:',
    temporal('query', '--type', 'status'),
    `  ${toShell([servers.temporalProgram ?? 'temporal', 'workflow', 'update', 'execute', '--name', 'stop', '--input', '{}', '--workflow-id', workflowId, ...connection])}`,
    'The same by this project’s own commands:',
  ]
  const environment = [
    `REPLICATION_CONFIG=${shellWord(servers.configPath)}`,
    `TEMPORAL_ADDRESS=${shellWord(servers.temporalAddress)}`,
    `TEMPORAL_NAMESPACE=${shellWord(servers.namespace)}`,
  ].join(' ')
  return [
    `PostgreSQL     ${servers.postgresUrl}${servers.isConfigOwn ? ' (a sample, which your configuration does not name)' : ''}`,
    `Temporal       ${servers.temporalAddress}, namespace ${servers.namespace}`,
    `Temporal UI    ${servers.uiUrl ?? 'not known'}`,
    `configuration  ${servers.configPath}${servers.isConfigOwn ? ' (yours: the worker reads the sources that it names)' : ''}`,
    '',
    ...(servers.temporalProgram === null ? [start] : byTemporalCli),
    `  export ${environment}`,
    `  ${toShell([...['npm', 'run', 'cli', '--', 'start', workflowId, '--slot', input.slotName], ...['--publication', input.publicationName, '--tables', servers.tableNames.join(',')]])}`,
    `  npm run cli -- status ${workflowId}`,
    `  npm run cli -- stop ${workflowId}`,
    `  npm run cli -- show`,
    '',
    'Ctrl-C stops everything; the data stays in .dev.',
  ]
}

function toShell(words: readonly string[]): string {
  return words.map(shellWord).join(' ')
}
