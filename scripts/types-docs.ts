/**
 * Keeps the tables of docs/types.md in step with src/destinations/duckdb/type-mapping.ts, the one table of types:
 * `npx tsx scripts/types-docs.ts` writes them; a unit test fails where they differ.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { cannotHold } from '../src/destinations/duckdb/cannot-hold.ts'
import { mapType, TYPE_ROWS, typeOfHint } from '../src/destinations/duckdb/type-mapping.ts'
import type { TypeShape } from '../src/model/table-schema.ts'

export const TYPES_PAGE = join(fileURLToPath(new URL('../', import.meta.url)), 'docs/types.md')

/** SQL's names for those of pg_type. */
const SQL_NAMES: Readonly<Record<string, string>> = {
  int2: 'smallint',
  int4: 'integer',
  int8: 'bigint',
  float4: 'real',
  float8: 'double precision',
  bool: 'boolean',
  varchar: 'character varying',
  bpchar: 'character',
  char: '"char"',
  timetz: 'time with time zone',
  timestamptz: 'timestamp with time zone',
}

const NO_MODIFIER = -1

function base(name: string, typeModifier = NO_MODIFIER): TypeShape {
  return { tag: 'base', oid: 0, name, typeModifier }
}

/** numeric(precision, scale) as pg_attribute.atttypmod has it. */
function numeric(precision: number, scale: number): TypeShape {
  return base('numeric', ((precision << 16) | (scale & 0x7ff)) + 4)
}

function array(element: TypeShape): TypeShape {
  return { tag: 'array', oid: 0, element, delimiter: ',' }
}

const code = (text: string): string => `\`${text}\``
const typeOf = (shape: TypeShape): string => code(mapType(shape).type)

const unheldOf = (shape: TypeShape): string => cannotHold({ shape, type: mapType(shape).type })

const WIDENED = 'the column becomes `VARCHAR`'

function typeTable(): string {
  const rows = TYPE_ROWS.map(({ names, type, cannotHold: unheld }) => [
    names.map((name) => code(SQL_NAMES[name] ?? name)).join(', '),
    code(type),
    unheld === '' ? '' : `${unheld}: ${WIDENED}`,
  ])
  const more: readonly (readonly string[])[] = [
    [code('numeric(12, 2)'), typeOf(numeric(12, 2)), `${unheldOf(numeric(12, 2))}: ${WIDENED}`],
    [code('numeric(5, -2)'), typeOf(numeric(5, -2)), 'the same'],
    [code('numeric(3, 5)'), typeOf(numeric(3, 5)), 'the same'],
    [`${code('numeric')} without precision`, typeOf(base('numeric')), `${unheldOf(base('numeric'))}: ${WIDENED}`],
    [`${code('numeric(40, 2)')} and others over 38 digits`, typeOf(numeric(40, 2)), ''],
    ['an enum', typeOf({ tag: 'enum', oid: 0 }), ''],
    ['a domain', 'as the type that it is over', ''],
    [`an array of one of these, ${code('integer[]')}`, typeOf(array(base('int4'))), `${unheldOf(array(base('int4')))}: ${WIDENED}`],
    ['every other type (inet, ranges, composites, extensions’ …) and arrays of them', typeOf({ tag: 'other', oid: 0 }), 'its PostgreSQL text, as it is'],
  ]
  return table(['PostgreSQL', 'DuckDB', 'what it cannot hold, and what happens then'], [...rows, ...more])
}

/** dlt's names with a source type that takes each. */
const HINTS: readonly (readonly [dataType: string, shape: TypeShape])[] = [
  ['text', base('text')],
  ['double', base('float8')],
  ['bool', base('bool')],
  ['timestamp', base('timestamptz')],
  ['bigint', base('int8')],
  ['binary', base('bytea')],
  ['json', base('jsonb')],
  ['decimal', base('numeric')],
  ['wei', base('numeric')],
  ['date', base('date')],
  ['time', base('time')],
]

function hintTable(): string {
  return table(
    ['hint', 'DuckDB'],
    HINTS.map(([dataType, shape]) => [code(dataType), code(typeOfHint({ dataType }, shape, dataType))]),
  )
}

function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [headings, headings.map(() => '---'), ...rows]
  return lines.map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`).join('\n')
}

/** Tables by the name between `<!-- table:NAME -->` and `<!-- end -->`. */
const TABLES: Readonly<Record<string, () => string>> = { types: typeTable, hints: hintTable }

/** The page with its tables as the code has them. */
export function withCurrentTypes(page: string): string {
  return page.replaceAll(/(<!-- table:(\w+) -->\n)[\s\S]*?(<!-- end -->)/g, (_all, start: string, name: string, end: string) => {
    const content = TABLES[name]
    if (content === undefined) throw new Error(`${TYPES_PAGE} asks for an unknown table ${name}`)
    return `${start}\n${content()}\n\n${end}`
  })
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  writeFileSync(TYPES_PAGE, withCurrentTypes(readFileSync(TYPES_PAGE, 'utf8')))
}
