import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterAll, expect, it } from 'vitest'

import { DOCS_FILE, EXAMPLE_FILE, MONITORING_FILE, withCurrentTables } from '../../scripts/configuration-docs.ts'
import { DESTINATION_OPTIONS, SOURCE_OPTIONS } from '../../src/config/options.ts'
import { starterFile } from '../../src/config/starter.ts'
import { loadConfig } from '../../src/config.ts'
import { METRICS } from '../../src/model/metrics.ts'

const directory = mkdtempSync(join(tmpdir(), 'config-docs-'))

afterAll(() => {
  rmSync(directory, { recursive: true, force: true })
})

it('documents every option as the code has it (npx tsx scripts/configuration-docs.ts)', () => {
  const page = readFileSync(DOCS_FILE, 'utf8')
  expect(page).toBe(withCurrentTables(page))
  for (const { key } of [...SOURCE_OPTIONS, ...Object.values(DESTINATION_OPTIONS).flat()]) expect(page).toContain(`\`${key}\``)
})

it('documents every metric as the code has it', () => {
  const page = readFileSync(MONITORING_FILE, 'utf8')
  expect(page).toBe(withCurrentTables(page))
  for (const { name } of Object.values(METRICS)) expect(page).toContain(`| \`${name}\` |`)
})

it('has an example file that is the starter file', () => {
  expect(readFileSync(EXAMPLE_FILE, 'utf8')).toBe(starterFile())
})

it('accepts the starter file, with every comment in force too', () => {
  const path = join(directory, 'replication.toml')
  for (const toml of [starterFile(), starterFile().replaceAll(/^# (?=\w+ = )/gm, '')]) {
    writeFileSync(path, toml)
    const config = loadConfig({ env: { REPLICATION_CONFIG: path } })
    expect(Object.keys(config.sources)).toEqual(['shop'])
    expect(Object.keys(config.destinations)).toEqual(['warehouse'])
  }
})
