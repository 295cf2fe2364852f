import { fileURLToPath } from 'node:url'

import { ESLint } from 'eslint'
import tseslint from 'typescript-eslint'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../../../', import.meta.url))

/** The project's own configuration, less what needs types: files that exist only here belong to no TypeScript project. */
const eslint = new ESLint({ cwd: root, overrideConfig: [{ files: ['**/*.ts'], ...tseslint.configs.disableTypeChecked }] })

/** Messages of the rules that hold the rooms, for a file at that path. */
async function complaints(filePath: string, code: string): Promise<string[]> {
  const rules = ['architecture/rooms', 'no-restricted-globals', 'no-restricted-syntax']
  const [result] = await eslint.lintText(code, { filePath })
  const messages = result?.messages ?? []
  expect(messages.filter((message) => message.fatal === true)).toEqual([])
  return messages.filter((message) => rules.includes(message.ruleId ?? '')).map((message) => message.message)
}

const refused: readonly (readonly [string, string, string, RegExp])[] = [
  ['a workflow that imports pg', 'src/workflows/replicate.ts', "import pg from 'pg';", /workflows must not import the package pg/],
  [
    'a workflow that imports an adapter',
    'src/workflows/replicate.ts',
    "import { openSlot } from '../postgres/slot.ts';",
    /workflows must not import src\/postgres\/slot\.ts/,
  ],
  ['a workflow that imports a Node module', 'src/workflows/replicate.ts', "import { readFileSync } from 'node:fs';", /Node's node:fs/],
  [
    'a workflow that imports an activity as a value',
    'src/workflows/replicate.ts',
    "import { createActivities } from '../activities/index.ts';",
    /other than by `import type`/,
  ],
  ['a workflow that uses Buffer', 'src/workflows/replicate.ts', "export const empty = Buffer.from('');", /Buffer/],
  [
    'a workflow that imports the client',
    'src/workflows/replicate.ts',
    "import { Client } from '@temporalio/client';",
    /@temporalio\/client/,
  ],
  [
    'an adapter that imports Temporal',
    'src/postgres/slot.ts',
    "import { heartbeat } from '@temporalio/activity';",
    /postgres must not import the package @temporalio\/activity/,
  ],
  [
    'an adapter that imports Temporal by require',
    'src/postgres/slot.ts',
    "export const a: unknown = require('@temporalio/activity');",
    /@temporalio\/activity/,
  ],
  [
    'an adapter that imports only a type of Temporal',
    'src/postgres/pgoutput/decode.ts',
    "import type { Context } from '@temporalio/activity';",
    /@temporalio\/activity/,
  ],
  [
    'an adapter that re-exports Temporal',
    'src/destinations/duckdb/merge.ts',
    "export * from '@temporalio/common';",
    /destinations\/duckdb must not import the package @temporalio\/common/,
  ],
  [
    'an adapter that imports Temporal dynamically',
    'src/postgres/slot.ts',
    "export const load = () => import('@temporalio/activity');",
    /@temporalio\/activity/,
  ],
  [
    'an adapter that imports another adapter',
    'src/postgres/slot.ts',
    "import { merge } from '../destinations/duckdb/merge.ts';",
    /postgres must not import src\/destinations/,
  ],
  [
    'a destination that imports another destination',
    'src/destinations/postgres/ddl.ts',
    "import { ddl } from '../duckdb/ddl.ts';",
    /destinations\/postgres must not import src\/destinations\/duckdb/,
  ],
  [
    'a destination that imports the source',
    'src/destinations/duckdb/ddl.ts',
    "import { quote } from '../../postgres/sql.ts';",
    /must not import src\/postgres\/sql\.ts/,
  ],
  [
    'the model importing the pipeline',
    'src/model/change.ts',
    "import { batch } from '../pipeline/batch.ts';",
    /model must not import src\/pipeline/,
  ],
  ['the model using a timer', 'src/model/change.ts', 'setTimeout(() => undefined, 1);', /pure/],
  ['the pipeline importing a package', 'src/pipeline/batch.ts', "import pino from 'pino';", /pipeline must not import the package pino/],
  [
    'the engine importing a destination',
    'src/replication/session.ts',
    "import { merge } from '../destinations/duckdb/merge.ts';",
    /replication must not import src\/destinations/,
  ],
  [
    'the engine importing Temporal',
    'src/replication/session.ts',
    "import { heartbeat } from '@temporalio/activity';",
    /@temporalio\/activity/,
  ],
  [
    'an activity importing a destination',
    'src/activities/stream.ts',
    "import { merge } from '../destinations/duckdb/merge.ts';",
    /activities must not import src\/destinations/,
  ],
  [
    'an activity importing the worker package',
    'src/activities/stream.ts',
    "import { Worker } from '@temporalio/worker';",
    /@temporalio\/worker/,
  ],
  [
    'the worker importing a development server',
    'src/worker.ts',
    "import { startPostgres } from './embedded/postgres.ts';",
    /never part of what users run/,
  ],
  [
    'the command line importing a development server',
    'src/cli/doctor.ts',
    "import { startPostgres } from '../embedded/postgres.ts';",
    /never part of what users run/,
  ],
  ['a program imported by another', 'src/index.ts', "import './worker.ts';", /it is a program/],
  ['a program imported by a test', 'test/unit/cli.test.ts', "import '../../src/cli.ts';", /it is a program/],
  ['a folder that the table does not know', 'src/helpers/lsn.ts', "import '../model/lsn.ts';", /not a known room/],
  [
    'a test that is skipped',
    'test/unit/lsn.test.ts',
    "import { it } from 'vitest';\nit.skip('works', () => undefined);",
    /skipped silently/,
  ],
]

const allowed: readonly (readonly [string, string, string])[] = [
  [
    'a workflow that imports types of activities',
    'src/workflows/replicate.ts',
    "import { proxyActivities } from '@temporalio/workflow';\nimport type { Activities } from '../activities/index.ts';\nimport { lag } from '../model/lsn.ts';\nexport const activities = proxyActivities<Activities>({ startToCloseTimeout: 1 });\nexport const l = lag;",
  ],
  [
    'an adapter that imports its driver, the model and itself',
    'src/postgres/pgoutput/decode.ts',
    "import pg from 'pg';\nimport { lag } from '../../model/lsn.ts';\nimport { quote } from '../sql.ts';\nimport { Socket } from 'node:net';\nexport const x = [pg, lag, quote, Socket];",
  ],
  [
    'an activity that heartbeats',
    'src/activities/stream.ts',
    "import { heartbeat } from '@temporalio/activity';\nimport { openSession } from '../replication/session.ts';\nimport type { Config } from '../config.ts';\nexport const x = (config: Config): unknown => [heartbeat, openSession, config];",
  ],
  [
    'the engine that reads from PostgreSQL',
    'src/replication/session.ts',
    "import { openSlot } from '../postgres/slot.ts';\nexport const x = openSlot;",
  ],
  [
    'the worker that puts everything together',
    'src/worker.ts',
    "import { openDuckdb } from './destinations/duckdb/database.ts';\nimport { Worker } from '@temporalio/worker';\nexport const x = [openDuckdb, Worker];",
  ],
  [
    'the demo that starts a development server',
    'src/demo.ts',
    "import { startPostgres } from './embedded/postgres.ts';\nexport const x = startPostgres;",
  ],
  [
    'a test that uses any room',
    'test/integration/slot.test.ts',
    "import { openSlot } from '../../src/postgres/slot.ts';\nimport { startPostgres } from '../../src/embedded/postgres.ts';\nexport const x = [openSlot, startPostgres];",
  ],
]

describe('the rooms', () => {
  it.each(refused)('refuse %s', async (_what, filePath, code, message) => {
    expect(await complaints(filePath, code)).toEqual([expect.stringMatching(message)])
  })

  it.each(allowed)('allow %s', async (_what, filePath, code) => {
    expect(await complaints(filePath, code)).toEqual([])
  })
})

describe('the type-aware rules', () => {
  it.each([
    '@typescript-eslint/no-floating-promises',
    '@typescript-eslint/no-misused-promises',
    '@typescript-eslint/switch-exhaustiveness-check',
    '@typescript-eslint/consistent-type-imports',
    '@typescript-eslint/no-explicit-any',
    '@typescript-eslint/no-unsafe-assignment',
    '@typescript-eslint/no-non-null-assertion',
  ])('%s is an error', async (rule) => {
    const config = (await new ESLint({ cwd: root }).calculateConfigForFile('src/worker.ts')) as {
      rules: Record<string, [severity: number, ...unknown[]]>
    }
    expect(config.rules[rule]?.[0]).toBe(2)
  })
})
