import { inject } from 'vitest'

/** A server of this run, by the name that tests show. */
export interface TestServer {
  readonly name: string
  readonly url: string
}

/**
 * The main server (npm's newest, or the one that `TEST_POSTGRES_MAJOR` names) and, where the machine has it, PostgreSQL 15: for what is said to or read from a server in its version's own way. All else
 * is tested on the other versions by `npm run test:matrix`.
 */
export function testServers(): readonly TestServer[] {
  const fifteen = inject('postgres15Url')
  return [{ name: 'the main PostgreSQL', url: inject('postgresUrl') }, ...(fifteen === null ? [] : [{ name: 'PostgreSQL 15', url: fifteen }])]
}
