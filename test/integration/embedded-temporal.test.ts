import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client, Connection } from '@temporalio/client'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { checkSha256 } from '../../src/embedded/temporal-downloads.ts'
import { startTemporal, type TemporalServer } from '../../src/embedded/temporal-server.ts'
import { endHolder, expectNoRemains, startHolder } from '../support/server-holder.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'embedded-test-'))
})
afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

async function withClient<Result>(server: TemporalServer, use: (client: Client) => Promise<Result>): Promise<Result> {
  const connection = await Connection.connect({ address: server.address })
  try {
    return await use(new Client({ connection, namespace: server.namespace }))
  } finally {
    await connection.close()
  }
}

describe('startTemporal', () => {
  it('gives a server with a UI on loopback ports of its own', async () => {
    await using server = await startTemporal({ reuseRunning: false })
    expect(server).toMatchObject({ owned: true, namespace: 'default' })
    expect(server.address).toMatch(/^127\.0\.0\.1:\d+$/)
    const page = await fetch(server.uiUrl ?? '')
    expect(page.status).toBe(200)
  })

  it('keeps workflows in its file over a crash', async () => {
    await using server = await startTemporal({
      reuseRunning: false,
      headless: true,
      databaseFile: join(folder, 'temporal.db'),
    })
    await withClient(server, async (client) => {
      await client.workflow.start('kept', { workflowId: 'kept', taskQueue: 'nobody-polls' })
    })
    await server.kill()
    expect(server.pid).toBeUndefined()
    await server.restart()
    await withClient(server, async (client) => {
      const description = await client.workflow.getHandle('kept').describe()
      expect(description.status.name).toBe('RUNNING')
    })
  })

  it('uses a given address and leaves it alone', async () => {
    const server = await startTemporal({ address: '127.0.0.1:1', namespace: 'elsewhere' })
    expect(server).toMatchObject({ address: '127.0.0.1:1', namespace: 'elsewhere', owned: false })
    await server.stop()
    await expect(server.kill()).rejects.toThrow(/not started here/)
  })

  it('takes another port when the wanted one is in use', async () => {
    const squatter = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => squatter.once('listening', resolve))
    const address = squatter.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    try {
      await using server = await startTemporal({ reuseRunning: false, headless: true, port })
      expect(server.address).not.toBe(`127.0.0.1:${port}`)
    } finally {
      squatter.close()
    }
  })

  it.each(['SIGKILL', 'exit'] as const)('leaves nothing running when the parent ends by %s', async (how) => {
    const holder = await startHolder('temporal')
    await endHolder(holder, how)
    await expectNoRemains(holder)
  })
})

it('refuses a downloaded program that is not the examined one', async () => {
  const path = join(folder, 'temporal')
  await writeFile(path, 'something else')
  await expect(checkSha256(path, 'f'.repeat(64))).rejects.toThrow(/has SHA-256 .* expected f/)
  await expect(checkSha256(path, undefined)).rejects.toThrow(/expected none for this platform/)
  await checkSha256(path, createHash('sha256').update('something else').digest('hex'))
})
