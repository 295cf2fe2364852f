import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { ERROR_POLICY } from '../../../src/model/errors.ts'
import { DROP_FIELDS, RETRY_FIELDS, SPEC_FIELDS, XMIN_FIELDS } from '../../../src/model/spec-parse-fields.ts'
import { MESSAGE_DESCRIPTIONS } from '../../../src/workflows/messages.ts'
import * as workflows from '../../../src/workflows/index.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const PAGES = ['README.md', ...readdirSync(join(root, 'docs')).filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)]

/** GitHub's anchor of a heading. */
function anchorOf(heading: string): string {
  return heading.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, '').trim().replaceAll(' ', '-')
}

function anchorsOf(page: string): readonly string[] {
  return [...page.matchAll(/^#+ (.+)$/gm)].map(([, heading]) => anchorOf(heading ?? ''))
}

describe('docs/operations.md', () => {
  const rows = new Map([...read('docs/operations.md').matchAll(/^\| `(\w+)` \| (yes)? ?\|/gm)].map(([, type, retried]) => [type, retried === 'yes']))

  it('has every error type, and says which are retried', () => {
    expect(Object.fromEntries(rows)).toMatchObject(Object.fromEntries(Object.entries(ERROR_POLICY).map(([type, { retry }]) => [type, retry])))
  })
})

describe('docs/workflows.md', () => {
  const page = read('docs/workflows.md')

  it.each([...Object.keys(SPEC_FIELDS), ...Object.keys(DROP_FIELDS), ...Object.keys(RETRY_FIELDS), ...Object.keys(XMIN_FIELDS)])('names the field %s', (field) => {
    expect(page).toMatch(new RegExp(`[\`"]${field}[\`"]`))
  })

  it('names every workflow, query and update', () => {
    const types = Object.keys(workflows).filter((name) => !/(Query|Update|Signal)$/.test(name))
    for (const name of [...types, ...Object.keys(MESSAGE_DESCRIPTIONS)]) expect(page).toContain(`\`${name}\``)
  })
})

describe.each(PAGES)('%s', (path) => {
  const page = read(path)

  it('links to what is there', () => {
    for (const [, target = ''] of page.matchAll(/\]\((?!https?:)([^)\s]+)\)/g)) {
      const [file = '', anchor] = target.split('#')
      const linked = file === '' ? path : join(dirname(path), file)
      expect([target, existsSync(join(root, linked))]).toEqual([target, true])
      if (anchor !== undefined) expect(anchorsOf(read(linked))).toContain(anchor)
    }
  })
})
