/**
 * The lint rule that holds the rooms of the architecture: which folder of src/ may import which other folders and which
 * packages. Everything not listed is refused, so a new folder or a new dependency of an inner room is a decision that shows
 * in this table. It looks at every form of import: static, re-export, dynamic `import()`, `require` and `import('…')` types.
 */
import { isBuiltin } from 'node:module'
import { dirname, relative, resolve, sep } from 'node:path'

/**
 * @typedef {object} Room
 * @property {readonly string[]} rooms        rooms that it may import, beside itself
 * @property {readonly string[]} [typesOf]    rooms of which it may `import type`
 * @property {'none' | 'any' | readonly string[]} packages  npm packages that it may import
 * @property {readonly string[]} [typesOfPackages]  npm packages of which it may `import type`
 * @property {readonly RegExp[]} [butNot]     packages refused all the same
 * @property {boolean} node                   whether Node's own modules may be imported
 * @property {string} why                     what breaks otherwise; ends the lint message
 */

const TEMPORAL = /^@temporalio\//

/** A destination or source adapter: it knows its own system, and nothing of who drives it. */
const adapter = {
  rooms: ['model', 'pipeline'],
  packages: 'any',
  butNot: [TEMPORAL],
  node: true,
  why: 'an adapter knows its own system, model and pipeline; it runs without Temporal and without the other adapters',
}

/** @type {Readonly<Record<string, Room>>} */
const ROOMS = {
  model: {
    rooms: [],
    packages: ['zod'],
    node: false,
    why: 'model is the pure vocabulary: it is bundled into workflows, where neither Node nor an adapter exists',
  },
  pipeline: {
    rooms: ['model'],
    packages: 'none',
    node: false,
    why: 'pipeline is pure: it turns values into values, and its tests need nothing',
  },
  workflows: {
    rooms: ['model'],
    typesOf: ['activities'],
    packages: ['@temporalio/workflow', '@temporalio/common'],
    node: false,
    why: 'workflow code is deterministic and replayed: it does everything else through activities, whose types it imports',
  },
  postgres: adapter,
  'destinations/*': adapter,
  destinations: {
    ...adapter,
    rooms: ['model', 'pipeline', 'destinations/*'],
    why: 'what stands directly in src/destinations chooses among the destinations, and does nothing else',
  },
  replication: {
    rooms: ['model', 'pipeline', 'postgres'],
    packages: 'any',
    butNot: [TEMPORAL],
    node: true,
    why: 'the engine writes to any destination through the contract in model, and runs without Temporal',
  },
  activities: {
    rooms: ['model', 'pipeline', 'replication'],
    typesOf: ['config', 'postgres'],
    packages: 'any',
    butNot: [/^@temporalio\/(?!activity$|common$)/],
    typesOfPackages: ['@temporalio/client'],
    node: true,
    why: 'activities translate between Temporal and the domain; who does the work is handed to them',
  },
  config: {
    rooms: ['model'],
    packages: 'any',
    node: true,
    why: 'configuration is read before any adapter exists',
  },
  embedded: {
    rooms: ['model'],
    packages: 'any',
    node: true,
    why: 'the development servers know nothing of replication',
  },
  // Composition roots and what belongs to them may use every room but the development servers.
  cli: { rooms: ['*'], packages: 'any', node: true, why: 'development servers are never part of what users run' },
  root: { rooms: ['*'], packages: 'any', node: true, why: 'development servers are never part of what users run' },
  development: { rooms: ['*', 'embedded'], packages: 'any', node: true, why: '' },
}

/** Programs: importing one would run it. */
const PROGRAMS = ['worker.ts', 'cli.ts', 'demo.ts', 'dev.ts']
const DEVELOPMENT_PROGRAMS = ['demo.ts', 'dev.ts']

/** Path from `from` to `to` with `/` on every system. */
const pathBetween = (from, to) => relative(from, to).split(sep).join('/')

/**
 * The room of a file: a key of ROOMS, with `room` telling destinations apart; undefined for a folder that the table does
 * not know. Tests and benchmarks are outside src/ and use every room.
 */
function roomOf(root, file) {
  const path = pathBetween(root, file)
  if (!path.startsWith('src/')) return { kind: 'development', room: 'outside src' }
  const [first, ...rest] = path.slice('src/'.length).split('/')
  // src/demo/ holds the parts of src/demo.ts.
  if (DEVELOPMENT_PROGRAMS.includes(`${first}.ts`)) return { kind: 'development', room: 'development' }
  if (rest.length === 0) {
    if (DEVELOPMENT_PROGRAMS.includes(first)) return { kind: 'development', room: 'development' }
    return first === 'config.ts' ? { kind: 'config', room: 'config' } : { kind: 'root', room: 'root' }
  }
  if (first === 'destinations' && rest.length > 1) return { kind: 'destinations/*', room: `destinations/${rest[0]}` }
  return { kind: first, room: first }
}

/** `@scope/name/sub` → `@scope/name`; `name/sub` → `name`. */
const packageOf = (specifier) => specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/')

/** Why the import is refused, or undefined when it is allowed. */
function refusal(root, importer, specifier, isType) {
  const from = roomOf(root, importer)
  const rules = Object.hasOwn(ROOMS, from.kind) ? ROOMS[from.kind] : undefined
  if (rules === undefined) return `src/${from.room} is not a known room: add it to scripts/lint/rooms.mjs`

  if (!specifier.startsWith('.')) {
    if (isBuiltin(specifier)) return rules.node ? undefined : `${from.room} must not import Node's ${specifier}: ${rules.why}`
    const name = packageOf(specifier)
    if (isType && rules.typesOfPackages?.includes(name)) return undefined
    const listed = rules.packages === 'any' || (rules.packages !== 'none' && rules.packages.includes(name))
    const refused = rules.butNot?.some((pattern) => pattern.test(name)) ?? false
    return listed && !refused ? undefined : `${from.room} must not import the package ${name}: ${rules.why}`
  }

  const target = resolve(dirname(importer), specifier)
  const path = pathBetween(root, target)
  if (PROGRAMS.some((program) => path === `src/${program}`)) return `nothing imports ${path}: it is a program, and importing it runs it`
  const to = roomOf(root, target)
  if (to.room === from.room) return undefined
  if (from.kind !== 'development' && to.kind === 'development') return `${from.room} must not import ${path}: ${rules.why}`
  if (to.kind === 'embedded') {
    return rules.rooms.includes('embedded')
      ? undefined
      : `${from.room} must not import ${path}: development servers are never part of what users run`
  }
  const allowed = isType ? [...rules.rooms, ...(rules.typesOf ?? [])] : rules.rooms
  if (allowed.includes('*') || allowed.includes(to.kind)) return undefined
  const onlyTypes = rules.typesOf?.includes(to.kind) ? ` other than by \`import type\`` : ''
  return `${from.room} must not import ${path}${onlyTypes}: ${rules.why}`
}

/** Whether nothing of the statement is left at run time. (`verbatimModuleSyntax` keeps `import { type A }` as an import for its effects.) */
const isTypeOnly = (node) => node.importKind === 'type' || node.exportKind === 'type'

/** @type {import('eslint').Rule.RuleModule} */
export const roomsRule = {
  meta: { type: 'problem', schema: [], docs: { description: 'imports follow the rooms of the architecture' } },
  create(context) {
    const check = (node, source, isType) => {
      if (source?.type !== 'Literal' || typeof source.value !== 'string') return
      const message = refusal(context.cwd, context.filename, source.value, isType)
      if (message !== undefined) context.report({ node: source, message })
    }
    const checkStatement = (node) => check(node, node.source, isTypeOnly(node))
    return {
      ImportDeclaration: checkStatement,
      ExportNamedDeclaration: checkStatement,
      ExportAllDeclaration: checkStatement,
      ImportExpression: (node) => check(node, node.source, false),
      TSImportType: (node) => check(node, node.source, true),
      'CallExpression[callee.name="require"]': (node) => check(node, node.arguments[0], false),
    }
  },
}
