import { isIP } from 'node:net'
import { DEFAULT_METRICS_ADDRESS } from '../model/metrics.ts'
import type { ConfigProblem } from './problems.ts'

/** Where the worker serves its metrics. */
export interface MetricsAddress {
  /** `127.0.0.1:9464` or `[::1]:9464`. */
  readonly address: string
  /** Somebody has asked for this very address: where it cannot be had, the worker does not start. */
  readonly isGiven: boolean
}

const VARIABLE = 'REPLICATION_METRICS_ADDRESS'

/** Reads `REPLICATION_METRICS_ADDRESS`; null = off. */
export function readMetricsAddress(env: NodeJS.ProcessEnv, problems: ConfigProblem[]): MetricsAddress | null {
  const text = env[VARIABLE]?.trim() ?? ''
  if (text === '') return { address: DEFAULT_METRICS_ADDRESS, isGiven: false }
  if (text === 'off') return null
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]:|([^:]+):)?(\d{1,5})$/.exec(text) ?? []
  const host = bracketed ?? (plain === undefined || plain === 'localhost' ? '127.0.0.1' : plain)
  const port = Number(digits)
  const isAddress = isIP(host) === (bracketed === undefined ? 4 : 6)
  if (digits === undefined || !isAddress || port < 1 || port > 65_535) {
    problems.push({
      message: `the environment variable ${VARIABLE} must be an IP address and a port, a port, or off`,
      remedy: `for example ${VARIABLE}=${DEFAULT_METRICS_ADDRESS}, or 0.0.0.0:9464 for all interfaces`,
    })
    return null
  }
  return { address: bracketed === undefined ? `${host}:${String(port)}` : `[${host}]:${String(port)}`, isGiven: true }
}
