import { access, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { isAlive } from '../../src/embedded/postgres-lock.ts'
import { Supervisor } from '../../src/embedded/supervisor.ts'

const inherit = { tag: 'inherit' } as const

it('tells how a program ended and keeps what it wrote', async () => {
  await using supervisor = await Supervisor.open()
  const folder = await mkdtemp(join(tmpdir(), 'supervisor-'))
  supervisor.removeAtEnd(folder)
  const path = join(folder, 'log')
  const program = await supervisor.run({
    command: 'sh',
    args: ['-c', 'echo out; echo err >&2; exit 7'],
    output: { tag: 'file', path },
  })
  expect(await program.exited).toEqual({ code: 7, signal: null })
  expect(await readFile(path, 'utf8')).toBe('out\nerr\n')
})

it('refuses a program that is not there', async () => {
  await using supervisor = await Supervisor.open()
  await expect(supervisor.run({ command: '/no/such/program', args: [], output: inherit })).rejects.toMatchObject({
    code: 'ENOENT',
  })
})

it('kills a program that does not heed its stop signals', async () => {
  await using supervisor = await Supervisor.open()
  const program = await supervisor.run({
    command: 'sh',
    args: ['-c', "trap '' TERM; echo ready; while :; do sleep 0.1; done"],
    stopSignals: [{ signal: 'SIGTERM', graceMs: 200 }],
    output: inherit,
  })
  await new Promise((resolve) => supervisor.output.stdout.once('data', resolve))
  expect(await program.stop()).toEqual({ code: null, signal: 'SIGKILL' })
  expect(isAlive(program.pid)).toBe(false)
})

it('stops every program and removes what it was told to when it closes', async () => {
  const supervisor = await Supervisor.open()
  const folder = await mkdtemp(join(tmpdir(), 'supervisor-'))
  await writeFile(join(folder, 'file'), 'x')
  supervisor.removeAtEnd(folder)
  const programs = [
    await supervisor.run({ command: 'sleep', args: ['60'], output: inherit }),
    await supervisor.run({ command: 'sleep', args: ['60'], output: inherit }),
  ]
  await supervisor.close()
  expect(programs.map((program) => program.exit)).toEqual([
    { code: null, signal: 'SIGTERM' },
    { code: null, signal: 'SIGTERM' },
  ])
  await expect(access(folder)).rejects.toThrow()
  await expect(supervisor.run({ command: 'true', args: [], output: inherit })).rejects.toThrow('closed')
})

it('does not lose its programs when it is killed itself', async () => {
  const supervisor = await Supervisor.open()
  const program = await supervisor.run({ command: 'sleep', args: ['60'], output: inherit })
  process.kill(supervisor.pid ?? 0, 'SIGKILL')
  await program.exited
  await expect.poll(async () => await isRunning(program.pid)).toBe(false)
})

/** False for a zombie too: without its supervisor nobody may be there to take notice of its end. */
async function isRunning(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  if (process.platform === 'linux') return status !== undefined && !status.includes(') Z ')
  return isAlive(pid)
}
