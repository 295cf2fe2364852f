import { createRequire } from 'node:module'

import { afterAll, beforeAll, describe, expect, it } from 'vitest'

import { type ConsumerProject, installPackedPackage } from '../support/packed-package.ts'

const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')
const MINUTES = 60_000

describe('the packed package, installed into an empty project', () => {
  let consumer: ConsumerProject
  beforeAll(async () => {
    consumer = await installPackedPackage(['@temporalio/client'])
  }, 10 * MINUTES)
  afterAll(async () => {
    await consumer.close()
  })

  it('holds what users run, and neither sources, tests nor development servers', () => {
    expect(consumer.packedFiles).toEqual(
      expect.arrayContaining([
        'package.json',
        'README.md',
        'LICENSE',
        'dist/index.js',
        'dist/index.d.ts',
        'dist/cli.js',
        'dist/workflows/index.js',
      ]),
    )
    expect(
      consumer.packedFiles.filter((path) => /^(src|test|bench|scripts)\/|\/embedded\/|dist\/(demo|dev)\.|replication\.toml$/.test(path)),
    ).toEqual([])
  })

  it('has a bin that lists its verbs', async () => {
    const help = await consumer.run('node_modules/.bin/temporal-pg-replication', ['--help'])
    expect(help).toMatchObject({ exitCode: 0, stderr: '' })
    for (const verb of ['init', 'doctor', 'start', 'status', 'show', 'pause', 'resume', 'stop', 'retry', 'drop', 'schedule', 'config']) {
      expect(help.stdout).toMatch(new RegExp(`^\\s+${verb}\\b`, 'm'))
    }
  })

  it('exports the plugin', async () => {
    await consumer.write(
      'plugin.js',
      "import { PgReplicationPlugin } from 'temporal-pg-replication';\nconsole.log(typeof PgReplicationPlugin);\n",
    )
    expect(await consumer.run(process.execPath, ['plugin.js'])).toMatchObject({ exitCode: 0, stdout: 'function\n' })
  })

  it('types a client by its workflows', async () => {
    await consumer.write(
      'client.ts',
      `import type { Client } from '@temporalio/client';
       import type { PgReplicationPlugin } from 'temporal-pg-replication';
       import type { initReplication, replicate } from 'temporal-pg-replication/workflows';

       export const plugins: PgReplicationPlugin[] = [];

       export async function start(client: Client): Promise<string> {
         const spec = { slotName: 'shop', publicationName: 'shop', tableNames: ['orders'] };
         const options = { taskQueue: 'pg-replication', workflowId: 'shop', args: [spec] } satisfies object;
         const result = await client.workflow.execute<typeof initReplication>('initReplication', { ...options, args: [spec] });
         const consistentPoint: string = result.consistentPoint;
         // @ts-expect-error the results are typed: there is no such field (and no \`any\`, for which there would be)
         result.noSuchField;
         // @ts-expect-error the input is typed: a slot name is text
         await client.workflow.start<typeof replicate>('replicate', { ...options, args: [{ ...spec, slotName: 1 }] });
         return consistentPoint;
       }
      `,
    )
    const compilerOptions = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2023', '--skipLibCheck']
    expect(await consumer.run(process.execPath, [tsc, ...compilerOptions, 'client.ts'])).toEqual({ exitCode: 0, stdout: '', stderr: '' })
  })
})
