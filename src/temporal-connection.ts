import { connect } from 'node:net'

import { Client, Connection, type ConnectionOptions } from '@temporalio/client'
import { loadClientConnectConfig } from '@temporalio/envconfig'
import type { NativeConnection, NativeConnectionOptions } from '@temporalio/worker'

import { DomainError } from './model/errors.ts'

/** Where Temporal is, by the standard `TEMPORAL_*` variables and the profile of `temporal.toml`. It may hold an API key. */
export interface TemporalSettings {
  readonly address: string
  readonly namespace: string
  readonly connection: Pick<NativeConnectionOptions, 'apiKey' | 'tls' | 'metadata'>
}

const DEFAULT_ADDRESS = 'localhost:7233'
const DEFAULT_NAMESPACE = 'default'
const CONNECT_TIMEOUT_MS = 10_000

/** Temporal does not answer. Not an error of a replication: it names the address that was tried. */
export class TemporalUnavailable extends Error {
  readonly address: string
  readonly remedy: string

  constructor(address: string, cause?: unknown) {
    super(`Temporal does not answer at ${address}`, cause === undefined ? undefined : { cause })
    this.name = 'TemporalUnavailable'
    this.address = address
    this.remedy = 'start one (npm run dev), or set TEMPORAL_ADDRESS (and TEMPORAL_NAMESPACE) to a server that runs'
  }
}

/**
 * Reads the settings; connects nowhere. Throws `InvalidConfig` where `temporal.toml` or a certificate file cannot be read or a
 * profile is missing; its text holds no line of the file, which may hold keys.
 *
 * Source: https://docs.temporal.io/develop/environment-configuration
 */
export function readTemporalSettings(env: NodeJS.ProcessEnv): TemporalSettings {
  const overrideEnvVars: Record<string, string> = {}
  for (const [name, value] of Object.entries(env)) if (value !== undefined && value !== '') overrideEnvVars[name] = value
  try {
    const { connectionOptions, namespace } = loadClientConnectConfig({ overrideEnvVars })
    const { address, apiKey, tls, metadata } = connectionOptions
    return {
      address: address ?? DEFAULT_ADDRESS,
      namespace: namespace ?? DEFAULT_NAMESPACE,
      connection: {
        ...(apiKey === undefined ? {} : { apiKey }),
        ...(tls === undefined ? {} : { tls }),
        ...(metadata === undefined ? {} : { metadata }),
      },
    }
  } catch (error) {
    const what = error instanceof Error ? (error.message.split('\n')[0] ?? '') : 'unreadable'
    throw new DomainError({
      kind: 'InvalidConfig',
      message: `the Temporal settings cannot be read: ${what}`,
      remedy: 'check the TEMPORAL_* variables and the profile in temporal.toml that TEMPORAL_PROFILE names (`temporal config list`)',
    })
  }
}

/** A client, connected. Close `client.connection`. Throws `TemporalUnavailable`. */
export async function connectClient(settings: TemporalSettings): Promise<Client> {
  const options: ConnectionOptions = { address: settings.address, connectTimeout: CONNECT_TIMEOUT_MS, ...settings.connection }
  // gRPC goes on trying for the whole timeout where nobody listens; a person should not have to wait for that.
  if (await isRefused(settings.address)) throw new TemporalUnavailable(settings.address)
  try {
    const connection = await Connection.connect(options)
    return new Client({ connection, namespace: settings.namespace })
  } catch (error) {
    throw new TemporalUnavailable(settings.address, error)
  }
}

/** A worker's connection. Throws `TemporalUnavailable`. */
export async function connectWorker(settings: TemporalSettings): Promise<NativeConnection> {
  // Loaded here, because the CLI should not wait for the worker's native code that it does not use.
  const { NativeConnection } = await import('@temporalio/worker')
  try {
    return await NativeConnection.connect({ address: settings.address, ...settings.connection })
  } catch (error) {
    throw new TemporalUnavailable(settings.address, error)
  }
}

/** Whether the host of a plain `host:port` says that nobody listens there. False wherever that cannot be told. */
async function isRefused(address: string): Promise<boolean> {
  const match = /^\[?([^/\]]+?)\]?:(\d+)$/.exec(address)
  const [, host, port] = match ?? []
  const hasProxy = ['grpc_proxy', 'https_proxy', 'http_proxy'].some((name) => (process.env[name] ?? '') !== '')
  if (host === undefined || port === undefined || hasProxy) return false
  return await new Promise((resolve) => {
    const socket = connect({ host, port: Number(port), timeout: CONNECT_TIMEOUT_MS })
    const answer = (isRefusedNow: boolean): void => {
      socket.destroy()
      resolve(isRefusedNow)
    }
    socket.once('connect', () => {
      answer(false)
    })
    socket.once('timeout', () => {
      answer(false)
    })
    socket.once('error', (error: NodeJS.ErrnoException) => {
      // Of a name with several addresses, the error holds one for each.
      const errors: readonly unknown[] = error instanceof AggregateError ? error.errors : [error]
      answer(errors.every((each) => each instanceof Error && 'code' in each && each.code === 'ECONNREFUSED'))
    })
  })
}
