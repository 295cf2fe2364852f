import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { TYPES_PAGE, withCurrentTypes } from '../../../scripts/types-docs.ts'
import { TYPE_ROWS } from '../../../src/destinations/duckdb/type-mapping.ts'

it('documents every type as the code maps it (npx tsx scripts/types-docs.ts)', () => {
  const page = readFileSync(TYPES_PAGE, 'utf8')
  expect(page).toBe(withCurrentTypes(page))
  for (const { type, cannotHold } of TYPE_ROWS) {
    expect(page).toContain(`\`${type}\``)
    expect(page).toContain(cannotHold)
  }
})
