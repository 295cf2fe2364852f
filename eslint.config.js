import js from '@eslint/js'
import { createNodeResolver, importX } from 'eslint-plugin-import-x'
import { defineConfig } from 'eslint/config'
import tseslint from 'typescript-eslint'

import { roomsRule } from './scripts/lint/rooms.mjs'

const globals = (message, names) => names.map((name) => ({ name, message }))

/** Node's globals that plain JavaScript files use; TypeScript checks its own. */
const NODE_GLOBALS = Object.fromEntries(
  ['process', 'console', 'setTimeout', 'clearTimeout', 'URL', 'Buffer'].map((name) => [name, 'readonly']),
)

export default defineConfig(
  { ignores: ['dist/', 'coverage/', '.dev/', 'data/', 'node_modules/'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  js.configs.recommended,

  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-import-type-side-effects': 'error',
      // Type imports in signatures (`import('…').T`) hide a dependency from a reader of the import list.
      '@typescript-eslint/consistent-type-imports': ['error', { disallowTypeAnnotations: true }],
      '@typescript-eslint/consistent-type-exports': 'error',
      // A new member of a union must be handled wherever the union is; `default: x satisfies never` does not hide it.
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        {
          allowDefaultCaseForExhaustiveSwitch: true,
          considerDefaultExhaustiveForUnions: false,
          requireDefaultForNonUnion: true,
        },
      ],
      '@typescript-eslint/no-unused-vars': [
        'error',
        { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrorsIgnorePattern: '^_', ignoreRestSiblings: true },
      ],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: 'only-allowed-literals' }],
      // An implementation of an asynchronous contract need not have anything to wait for.
      '@typescript-eslint/require-await': 'off',
      // Function types of a contract read better as what they are, and `type` and `interface` are not the same to payloads.
      '@typescript-eslint/consistent-type-definitions': 'off',
      // It asks for `!`, which no-non-null-assertion refuses.
      '@typescript-eslint/non-nullable-type-assertion-style': 'off',
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-console': 'error',
    },
  },

  {
    files: ['**/*.ts'],
    plugins: { 'import-x': importX },
    settings: {
      // Without these it reads no TypeScript file but the one being linted, and sees no cycle.
      'import-x/extensions': ['.ts', '.js'],
      'import-x/parsers': { '@typescript-eslint/parser': ['.ts'] },
      'import-x/resolver-next': [createNodeResolver({ extensions: ['.ts', '.js'] })],
    },
    rules: {
      'import-x/no-cycle': ['error', { ignoreExternal: true }],
      // What is published needs only what a user's `npm install` brings.
      'import-x/no-extraneous-dependencies': [
        'error',
        { devDependencies: ['test/**', 'bench/**', 'src/embedded/**', 'src/demo.ts', 'src/demo/**', 'src/dev.ts', '*.config.ts'] },
      ],
    },
  },

  // The rooms: src/ itself, and tests and benchmarks, which may use every room but run no program by importing it.
  {
    files: ['src/**/*.ts', 'test/**/*.ts', 'bench/**/*.ts'],
    plugins: { architecture: { rules: { rooms: roomsRule } } },
    rules: { 'architecture/rooms': 'error' },
  },
  {
    files: ['src/**/*.ts'],
    // The byte-level path, where an options object per cell would be most of the garbage.
    ignores: ['src/destinations/**', 'src/postgres/pgoutput/**'],
    rules: { '@typescript-eslint/max-params': ['error', { max: 3 }] },
  },
  {
    files: ['src/destinations/duckdb/**/*.ts'],
    rules: {
      'no-restricted-syntax': [
        'error',
        {
          selector: 'TemplateElement[value.raw=/\\bTRY\\(/i], Literal[value=/\\bTRY\\(/i]',
          message: 'DuckDB 1.5.5 writes outside a vector when TRY(…) tries row by row, and spoils other rows; use TRY_CAST.',
        },
      ],
    },
  },
  {
    files: ['src/**/*.ts'],
    rules: {
      'max-lines': ['error', { max: 400, skipBlankLines: true, skipComments: true }],
    },
  },
  {
    files: ['src/model/**/*.ts', 'src/workflows/**/*.ts'],
    rules: {
      'no-restricted-globals': [
        'error',
        ...globals('The workflow sandbox has none (model is bundled into workflows).', [
          'Buffer',
          'process',
          'crypto',
          'performance',
          'fetch',
          'require',
          'setImmediate',
        ]),
      ],
    },
  },
  {
    files: ['src/model/**/*.ts', 'src/pipeline/**/*.ts'],
    rules: {
      'no-restricted-syntax': [
        'error',
        {
          selector: 'CallExpression[callee.name=/^(setTimeout|setInterval)$/]',
          message: 'model and pipeline are pure: time belongs to who calls them.',
        },
      ],
    },
  },
  // Programs talk to a terminal.
  {
    files: [
      ...['src/cli.ts', 'src/cli/**/*.ts', 'src/worker.ts', 'src/demo.ts', 'src/demo/**/*.ts', 'src/dev.ts', 'src/embedded/**/*.ts'],
      ...['bench/**/*.ts', 'scripts/**', 'test/support/**'],
    ],
    rules: { 'no-console': 'off' },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      'no-restricted-syntax': [
        'error',
        {
          selector: 'MemberExpression[object.name=/^(describe|it|test|suite)$/][property.name=/^(only|skip|todo)$/]',
          message: 'Nothing is skipped silently, and nothing is singled out in a commit.',
        },
      ],
      '@typescript-eslint/no-empty-function': 'off',
    },
  },
  { files: ['**/*.js', '**/*.mjs'], languageOptions: { globals: NODE_GLOBALS } },
)
