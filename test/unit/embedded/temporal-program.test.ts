import { describe, expect, it } from 'vitest'
import {
  compareVersions,
  findTemporalProgram,
  orderSources,
  parseTemporalVersion,
  type TemporalProgramSource,
} from '../../../src/embedded/temporal-program.ts'

const silent = (): void => undefined

function has(name: string, path = `/${name}`): TemporalProgramSource {
  return { name, find: async () => path }
}
function hasNot(name: string): TemporalProgramSource {
  return { name, find: async () => undefined }
}
function fails(name: string, message: string): TemporalProgramSource {
  return { name, find: async () => Promise.reject(new Error(message)) }
}
const current = async (path: string) => ({ path, cliVersion: '1.9.1', serverVersion: '1.32.0' })

describe('findTemporalProgram', () => {
  it('takes the first source that has the program and asks no later one', async () => {
    const never = fails('later', 'asked')
    await expect(findTemporalProgram([hasNot('path'), has('cache'), never], silent, current)).resolves.toMatchObject({
      path: '/cache',
    })
  })

  it('goes on after a source that fails', async () => {
    await expect(findTemporalProgram([fails('download', 'no network'), has('python')], silent, current)).resolves.toMatchObject({
      path: '/python',
    })
  })

  it('passes over a program whose server is too old', async () => {
    const inspect = async (path: string) => ({
      path,
      cliVersion: '1.0.0',
      serverVersion: path === '/path' ? '1.24.2' : '1.28.0',
    })
    await expect(findTemporalProgram([has('path'), has('cache')], silent, inspect)).resolves.toMatchObject({
      path: '/cache',
    })
  })

  it('ends in one error that lists what was tried and says what to do', async () => {
    const sources = [hasNot('`temporal` on the PATH'), fails('download', 'dns error\nand more')]
    await expect(findTemporalProgram(sources, silent, current)).rejects.toThrow(
      [
        'no Temporal server, and no program to start one:',
        '  - `temporal` on the PATH: not there',
        '  - download: dns error',
        'Install the Temporal CLI (https://docs.temporal.io/cli/setup-cli) so that `temporal` is on the PATH, or set TEMPORAL_ADDRESS to a running server.',
      ].join('\n'),
    )
  })

  it('still tries a source that failed lately when no other has the program', async () => {
    const sources = [{ ...has('sdk'), failedLately: true }, hasNot('python')]
    expect(orderSources(sources).map((source) => source.name)).toEqual(['python', 'sdk'])
    await expect(findTemporalProgram(sources, silent, current)).resolves.toMatchObject({ path: '/sdk' })
  })
})

it('reads the CLI’s answer to --version', () => {
  expect(parseTemporalVersion('temporal version 1.9.1 (Server 1.32.0, UI 2.54.1)\n')).toEqual({
    cliVersion: '1.9.1',
    serverVersion: '1.32.0',
  })
  expect(() => parseTemporalVersion('something else')).toThrow(/not the Temporal CLI/)
})

it.each([
  ['1.28.0', '1.28.0', 0],
  ['1.9.0', '1.28.0', -1],
  ['2.0.0', '1.28.9', 1],
])('compares %s with %s by number', (left, right, sign) => {
  expect(Math.sign(compareVersions(left, right))).toBe(sign)
})
