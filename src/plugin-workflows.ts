/**
 * What a worker's bundle is made of when somebody's own worker has workflows and our plugin: the plugin's bundler hook points the
 * second name at theirs. Ours win where both have a workflow type of one name.
 */
export * from './workflows/index.ts'
// @ts-expect-error: resolved by the alias that src/plugin.ts gives the bundler.
export * from 'host-workflows'
