import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { DEFAULT_METRICS_ADDRESS, METRICS, type MetricEntry } from '../../../src/model/metrics.ts'
import { SEARCH_ATTRIBUTE_NAMES, SEARCH_ATTRIBUTES } from '../../../src/model/search-attributes.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

interface Rule {
  readonly alert: string
  readonly expr: string
  readonly for?: string
  readonly labels: { readonly severity: string }
  readonly annotations: { readonly summary: string; readonly description: string }
}

interface Dashboard {
  readonly panels: readonly {
    readonly id: number
    readonly title: string
    readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
    readonly targets: readonly { readonly expr: string; readonly refId: string }[]
  }[]
  readonly templating: { readonly list: readonly { readonly name: string; readonly query: string | { readonly query: string } }[] }
}

const { groups } = parse(read('examples/monitoring/alerts.yml')) as { readonly groups: readonly { readonly rules: readonly Rule[] }[] }
const rules = groups.flatMap((group) => group.rules)
const dashboard = JSON.parse(read('examples/monitoring/grafana-dashboard.json')) as Dashboard
const expressions = dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr))
const queries = dashboard.templating.list.flatMap(({ query }) => (typeof query === 'string' ? [] : [query.query]))

/** Every series that may be scraped, with the labels that it has. */
const SERIES = new Map(
  Object.values<MetricEntry>(METRICS).flatMap(({ name, kind, labels }): [string, readonly string[]][] =>
    kind === 'histogram' ? [[`${name}_bucket`, [...labels, 'le']], [`${name}_sum`, labels], [`${name}_count`, labels]] : [[name, labels]],
  ),
)
/** Labels that Prometheus adds. */
const OF_PROMETHEUS = ['instance', 'job']

/** The series that an expression names, and the labels that it asks each for. */
function uses(expression: string): readonly { readonly name: string; readonly labels: readonly string[] }[] {
  return [...expression.matchAll(/(pg_replication_\w+)(?:\{([^}]*)\})?/g)].map(([, name = '', matchers = '']) => ({
    name,
    labels: [...matchers.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map(([, label = '']) => label),
  }))
}

describe.each([...rules.map(({ alert, expr }) => [alert, expr] as const), ...[...expressions, ...queries].map((expr) => [expr, expr] as const)])('%s', (_, expression) => {
  it('uses series and labels that there are', () => {
    const used = uses(expression)
    expect(used.length + (expression.includes('up{') ? 1 : 0)).toBeGreaterThan(0)
    for (const { name, labels } of used) {
      expect(SERIES.has(name), name).toBe(true)
      for (const label of labels) expect([...(SERIES.get(name) ?? []), ...OF_PROMETHEUS], name).toContain(label)
    }
    const grouped = [...expression.matchAll(/\b(?:by|on) \(([^)]*)\)/g)].flatMap(([, list = '']) => list.split(',').map((label) => label.trim()))
    for (const label of grouped) expect([...used.flatMap(({ name }) => SERIES.get(name) ?? []), ...OF_PROMETHEUS]).toContain(label)
    const count = (character: string): number => expression.split(character).length
    for (const [open, close] of [['(', ')'], ['{', '}'], ['[', ']']] as const) expect(count(open)).toBe(count(close))
  })
})

it('shows every metric on the dashboard', () => {
  const shown = new Set(expressions.flatMap((expression) => uses(expression).map(({ name }) => name)))
  for (const { name, kind } of Object.values<MetricEntry>(METRICS)) expect([...shown].some((series) => series === name || (kind === 'histogram' && series.startsWith(`${name}_`))), name).toBe(true)
})

it('lays the panels of the dashboard out without one on another', () => {
  const cells = new Set<string>()
  for (const { title, gridPos } of dashboard.panels) {
    expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24)
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        expect(cells.has(`${String(x)} ${String(y)}`), title).toBe(false)
        cells.add(`${String(x)} ${String(y)}`)
      }
    }
  }
  expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length)
})

it('says of each alert what it means and what to do, there and in the documentation', () => {
  const page = read('docs/monitoring.md')
  expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length)
  for (const { alert, labels, annotations } of rules) {
    expect(page).toContain(`| \`${alert}\` |`)
    expect(['warning', 'critical']).toContain(labels.severity)
    expect(annotations.summary.length).toBeGreaterThan(10)
    expect(annotations.description.length).toBeGreaterThan(10)
  }
  const documented = [...page.matchAll(/^\| `(PgReplication\w+)` \|/gm)].map(([, alert]) => alert)
  expect(documented).toEqual(rules.map(({ alert }) => alert))
})

it('scrapes the address that a worker has by default', () => {
  const config = parse(read('examples/monitoring/prometheus.yml')) as { readonly scrape_configs: readonly { readonly job_name: string; readonly static_configs: readonly { readonly targets: readonly string[] }[] }[] }
  expect(config.scrape_configs).toMatchObject([{ job_name: 'pg-replication', static_configs: [{ targets: [DEFAULT_METRICS_ADDRESS] }] }])
})

it('names the search attributes as the code has them', () => {
  const page = read('docs/monitoring.md')
  for (const name of SEARCH_ATTRIBUTE_NAMES) {
    const { type, description } = SEARCH_ATTRIBUTES[name]
    expect(page).toContain(`| \`${name}\` | ${type === 'INT' ? 'Int' : 'Keyword'} | ${description} |`)
  }
})
