/**
 * `npm run build`: src/ → dist/ as JavaScript, declarations and source maps (tsconfig.build.json says of what), from an
 * empty dist/ so that no file of an earlier build is ever packed, and dist/cli.js made executable as the package's bin.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const SHEBANG = '#!/usr/bin/env node\n'
const root = dirname(dirname(fileURLToPath(import.meta.url)))
const dist = join(root, 'dist')

rmSync(dist, { recursive: true, force: true })

const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')
const compiled = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' })
if (compiled.status !== 0) process.exit(compiled.status ?? 1)

// A worker of the package need not make it at each start.
const { bundleWorkflowsApart } = await import(pathToFileURL(join(dist, 'workflow-bundle.js')).href)
writeFileSync(join(dist, 'workflow-bundle-code.js'), (await bundleWorkflowsApart()).code)

const cli = join(dist, 'cli.js')
const source = readFileSync(cli, 'utf8')
if (!source.startsWith('#!')) {
  writeFileSync(cli, SHEBANG + source)
  // One more line at the top is one more `;` in the source map, or every stack trace points a line too low.
  const map = JSON.parse(readFileSync(`${cli}.map`, 'utf8'))
  writeFileSync(`${cli}.map`, JSON.stringify({ ...map, mappings: `;${map.mappings}` }))
}
chmodSync(cli, 0o755)
