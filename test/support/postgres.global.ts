import type { TestProject } from 'vitest/node'
import { sharedPostgres } from './servers.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** A superuser's URL on the main test server; take a database of your own by `createDatabase`. */
    postgresUrl: string
    /** Its main version. */
    postgresMajor: number
    /** The same on PostgreSQL 15; null where the system has none. */
    postgres15Url: string | null
  }
}

/** vitest global setup: PostgreSQL for the projects that name it. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { main, fifteen } = await sharedPostgres.acquire()
  project.provide('postgresUrl', main.url)
  project.provide('postgresMajor', main.major)
  project.provide('postgres15Url', fifteen?.url ?? null)
  return async () => await sharedPostgres.release()
}
