import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The project's root: the folder that holds `package.json`, `src` and `.dev`. */
export const projectRoot = fileURLToPath(new URL('../../', import.meta.url))

/** Where development servers keep their data, logs and downloaded programs; ignored by git, safe to delete while none runs. */
export const developmentDirectory = join(projectRoot, '.dev')

/** Makes sure that a folder under `.dev` exists and returns its absolute path. Idempotent. */
export async function ensureDevelopmentDirectory(...segments: readonly string[]): Promise<string> {
  const directory = join(developmentDirectory, ...segments)
  await mkdir(directory, { recursive: true })
  return directory
}

/** Receives one line of text for each step that takes noticeable time (a download, a first start). */
export type OnProgress = (line: string) => void
