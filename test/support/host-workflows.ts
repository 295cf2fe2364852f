/** Workflows of somebody's own worker, beside which our plugin is added. */
export async function greet(name: string): Promise<string> {
  return `hello ${name}`
}

export { initReplication } from '../../src/workflows/index.ts'
