import type { TestProject } from 'vitest/node'
import { sharedTemporal } from './servers.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** `host:port` of the run's Temporal server, namespace `default`. */
    temporalAddress: string
  }
}

/** vitest global setup: Temporal for the projects that name it. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await sharedTemporal.acquire()
  project.provide('temporalAddress', server.address)
  return async () => await sharedTemporal.release()
}
