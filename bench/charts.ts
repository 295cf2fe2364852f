import type { WorkloadReport } from './report.ts'

/** A drawing, and the name of its file without `.svg`. */
export interface Chart {
  readonly name: string
  readonly svg: string
}

const WIDTH = 720
const LEFT = 190
const RIGHT = 90
const BAR_HEIGHT = 20
const STYLE = `<style>text{font:13px system-ui,sans-serif;fill:#57606a}.title{font-weight:600}.ours{fill:#0969da}.other{fill:#afb8c1}.axis{stroke:#afb8c1;stroke-width:1}.line{fill:none;stroke:#0969da;stroke-width:2}@media(prefers-color-scheme:dark){text{fill:#9198a1}.ours{fill:#4493f8}.line{stroke:#4493f8}.other{fill:#656c76}}</style>`

/** Rows a second of each workload beside its references, and one chart for each workload that grows. */
export function drawCharts(reports: readonly WorkloadReport[]): readonly Chart[] {
  const throughput = reports.filter(({ rowsPerSecond, ratios }) => rowsPerSecond !== null && rowsPerSecond > 0 && ratios.length > 0)
  return [
    ...(throughput.length === 0 ? [] : [{ name: 'throughput', svg: drawBars(throughput) }]),
    ...reports.filter(({ steps }) => steps.length > 1).map((report) => ({ name: `growth-${report.workload.toLowerCase()}`, svg: drawGrowth(report) })),
  ]
}

function drawBars(reports: readonly WorkloadReport[]): string {
  const bars = reports.flatMap(({ workload, size, rowsPerSecond, ratios }) => [
    { label: workload, value: rowsPerSecond ?? 0, isOurs: true },
    ...ratios.map(({ reference, referenceSeconds }) => ({ label: reference, value: size / referenceSeconds, isOurs: false })),
  ])
  const largest = Math.max(...bars.map(({ value }) => value))
  let y = 40
  const lines = bars.map(({ label, value, isOurs }) => {
    if (isOurs) y += 8
    const width = Math.max(1, (value / largest) * (WIDTH - LEFT - RIGHT))
    const line = `<text x="${LEFT - 8}" y="${y + 15}" text-anchor="end"${isOurs ? ' class="title"' : ''}>${escaped(label)}</text><rect x="${LEFT}" y="${y}" width="${width.toFixed(1)}" height="${BAR_HEIGHT - 4}" class="${isOurs ? 'ours' : 'other'}"/><text x="${(LEFT + width + 6).toFixed(1)}" y="${y + 13}">${thousands(value)}</text>`
    y += BAR_HEIGHT
    return line
  })
  return svg(y + 16, 'Rows or changes a second, thousands', lines)
}

/** Both axes are logarithmic: cost that grows like size is a line of 45°. */
function drawGrowth({ workload, title, steps }: WorkloadReport): string {
  const height = 320
  const [top, bottom] = [48, height - 44]
  const scale = (values: readonly number[], from: number, to: number): ((value: number) => number) => {
    const [low, high] = [Math.log10(Math.min(...values)), Math.log10(Math.max(...values))]
    return (value) => from + ((Math.log10(value) - low) / Math.max(high - low, 1e-9)) * (to - from)
  }
  const x = scale(steps.map(({ size }) => size), LEFT, WIDTH - RIGHT)
  const y = scale(steps.map(({ seconds }) => seconds), bottom, top)
  const points = steps.map(({ size, seconds }) => `${x(size).toFixed(1)},${y(seconds).toFixed(1)}`).join(' ')
  const marks = steps.map(({ size, seconds }) => `<circle cx="${x(size).toFixed(1)}" cy="${y(seconds).toFixed(1)}" r="4" class="ours"/><text x="${x(size).toFixed(1)}" y="${(y(seconds) - 10).toFixed(1)}" text-anchor="middle">${seconds.toFixed(2)} s</text><text x="${x(size).toFixed(1)}" y="${bottom + 20}" text-anchor="middle">${size.toLocaleString('en')}</text>`)
  return svg(height, `${workload}: ${title}`, [`<line x1="${LEFT}" y1="${bottom}" x2="${WIDTH - RIGHT}" y2="${bottom}" class="axis"/>`, `<polyline points="${points}" class="line"/>`, ...marks])
}

function svg(height: number, title: string, parts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escaped(title)}">${STYLE}<text x="12" y="24" class="title">${escaped(title)}</text>\n${parts.join('\n')}\n</svg>\n`
}

function thousands(value: number): string {
  return `${Math.round(value / 1000).toLocaleString('en')} k`
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}
