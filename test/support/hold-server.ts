/**
 * Run by server-holder.ts: starts the server named by the argument, says `holding` and then waits to be ended.
 * `cluster` stops where PostgreSQL's data is being made.
 */
import { createInterface } from 'node:readline'
import { startPostgres } from '../../src/embedded/postgres-server.ts'
import { startTemporal } from '../../src/embedded/temporal-server.ts'

const what = process.argv[2]
const sayHolding = (): boolean => process.stdout.write('holding\n')

createInterface({ input: process.stdin }).on('line', (line) => {
  if (line === 'exit') process.exit(3)
  throw new Error('ended by an exception, as asked for')
})

if (what === 'temporal') {
  await startTemporal({ reuseRunning: false, headless: true })
  sayHolding()
} else if (what === 'cluster') {
  await startPostgres({ onProgress: (line) => line.includes('making') && setTimeout(sayHolding, 100) })
} else {
  await startPostgres()
  sayHolding()
}
