import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { isTracingAsked, openTracing } from '../../src/tracing.ts'

const ENDPOINT = 'http://127.0.0.1:4318'

describe('traces are asked for', () => {
  it.each([
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: ENDPOINT }, true],
    [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${ENDPOINT}/v1/traces` }, true],
    [{}, false],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: '' }, false],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: ENDPOINT, OTEL_TRACES_EXPORTER: 'none' }, false],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: ENDPOINT, OTEL_SDK_DISABLED: 'TRUE' }, false],
  ])('%j: %s', (env, isAsked) => {
    expect(isTracingAsked(env)).toBe(isAsked)
  })
})

it('refuses a protocol that it does not speak', async () => {
  const logger = pino({ level: 'silent' })
  await expect(openTracing({ OTEL_EXPORTER_OTLP_ENDPOINT: ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }, logger)).rejects.toMatchObject({ kind: 'InvalidConfig', message: expect.stringContaining('OTEL_EXPORTER_OTLP_PROTOCOL') as string })
  expect(await openTracing({ OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }, logger)).toBeNull()
})
