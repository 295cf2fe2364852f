import { execFileSync } from 'node:child_process'
import { expect, it } from 'vitest'
import { describeRunningServers } from '../../../src/embedded/instructions.ts'
import { shellWord } from '../../../src/model/remedy.ts'

const SERVERS = {
  postgresUrl: 'postgresql://localhost/shop',
  temporalAddress: '127.0.0.1:7233',
  namespace: 'default',
  uiUrl: undefined,
  configPath: '.dev/replication.toml',
  isConfigOwn: false,
  taskQueue: 'pg-replication',
  temporalProgram: 'printf',
  tableNames: ["Bob's orders", 'customers'],
}

it('prints a start line that a shell takes apart into the right arguments', () => {
  const line = describeRunningServers(SERVERS).find((candidate) => candidate.includes('workflow start'))
  const shown = execFileSync('sh', ['-c', (line ?? '').replace('printf', "printf '%s\\n'")], { encoding: 'utf8' })
  const words = shown.trim().split('\n')
  expect(words.slice(0, 4)).toEqual(['workflow', 'start', '--type', 'replicate'])
  expect(JSON.parse(words[words.indexOf('--input') + 1] ?? '')).toEqual({
    slotName: 'shop_slot',
    publicationName: 'shop_publication',
    tableNames: ["Bob's orders", 'customers'],
  })
  expect(words.slice(-2)).toEqual(['--address', '127.0.0.1:7233'])
})

it('names no Temporal CLI where there is none', () => {
  const lines = describeRunningServers({ ...SERVERS, temporalProgram: null }).join('\n')
  expect(lines).not.toContain('workflow start')
  expect(lines).toMatch(/Start replicating.*\n +export .*\n +npm run cli -- start/)
})

it('says whose tables are replicated where the configuration is the user\'s own', () => {
  const lines = describeRunningServers({ ...SERVERS, isConfigOwn: true }).join('\n')
  expect(lines).toMatch(/^PostgreSQL .*a sample, which your configuration does not name/m)
  expect(lines).toMatch(/^configuration .*yours/m)
  expect(lines).toContain('with your own slot, publication and tables')
})

it('quotes only what a shell would change', () => {
  expect(shellWord('--address')).toBe('--address')
  expect(shellWord('a b')).toBe("'a b'")
  expect(shellWord("it's")).toBe("'it'\\''s'")
  expect(shellWord('')).toBe("''")
})
