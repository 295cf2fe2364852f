import { randomBytes } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { context, propagation } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import { Resource } from '@opentelemetry/resources'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { Client, Connection } from '@temporalio/client'
import { OpenTelemetryPlugin } from '@temporalio/interceptors-opentelemetry'
import { NativeConnection, Worker } from '@temporalio/worker'
import { pino } from 'pino'
import protobuf from 'protobufjs'
import { afterEach, beforeEach, expect, inject, it } from 'vitest'
import { loadConfig, PgReplicationPlugin } from '../../src/index.ts'
import { syncChanges } from '../../src/workflows/index.ts'
import { FileSource } from '../support/file-source.ts'
import { WorkerHarness } from '../support/worker-harness.ts'
import { quietRuntime } from '../support/workflow-harness.ts'

/** What of a request to a collector is read here: https://github.com/open-telemetry/opentelemetry-proto */
const REQUEST = protobuf
  .parse(
    `syntax = "proto3";
    message Request { repeated ResourceSpans resource_spans = 1; }
    message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; }
    message Resource { repeated Attribute attributes = 1; }
    message ScopeSpans { repeated Span spans = 2; }
    message Span { bytes trace_id = 1; bytes span_id = 2; bytes parent_span_id = 4; string name = 5; repeated Attribute attributes = 9; }
    message Attribute { string key = 1; Value value = 2; }
    message Value { string string_value = 1; }`,
  )
  .root.lookupType('Request')

interface Attribute {
  readonly key: string
  readonly value?: { readonly stringValue?: string }
}

interface Span {
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string
  readonly attributes: readonly Attribute[]
}

interface Request {
  readonly resourceSpans?: readonly { readonly resource?: { readonly attributes?: readonly Attribute[] }; readonly scopeSpans?: readonly { readonly spans?: readonly Span[] }[] }[]
}

const source = new FileSource()

/** A collector that keeps what it is sent. */
let collector: Server
let url: string
let paths: (string | undefined)[]
let bodies: Buffer[]
beforeEach(async () => {
  paths = []
  bodies = []
  collector = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      paths.push(request.url)
      bodies.push(Buffer.concat(chunks))
      response.setHeader('content-type', 'application/x-protobuf')
      response.end()
    })
  })
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${String((collector.address() as AddressInfo).port)}`
})
afterEach(async () => {
  collector.closeAllConnections()
  await new Promise((resolve) => collector.close(resolve))
})

function requests(): readonly Request[] {
  return bodies.map((body) => REQUEST.toObject(REQUEST.decode(body), { bytes: String, arrays: true }))
}

function spans(): readonly Span[] {
  return requests().flatMap(({ resourceSpans }) => resourceSpans ?? []).flatMap(({ scopeSpans }) => scopeSpans ?? []).flatMap(({ spans: some }) => some ?? [])
}

it('a worker sends the spans of workflows and activities to the collector that the environment names', async () => {
  await source.pool.query(`CREATE TABLE traced (id int PRIMARY KEY, v text); INSERT INTO traced VALUES (1, 'hidden value')`)
  await using harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: source.database.url, env: { OTEL_EXPORTER_OTLP_ENDPOINT: url, OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment=test' } })
  await harness.startWorker()
  const name = `traced_${source.database.name}`
  expect((await harness.sync({ slotName: name, publicationName: 'traced', tableNames: 'traced' }, `sync-${name}`)).tables).toHaveProperty(['public.traced'])
  expect(await harness.stopWorker()).toBe(0)

  const all = spans()
  const workflow = all.find((span) => span.name === 'RunWorkflow:syncChanges')
  const started = all.find((span) => span.name === 'StartActivity:replicateSlice')
  const run = all.find((span) => span.name === 'RunActivity:replicateSlice')
  expect([...new Set(all.map((span) => span.name))]).toEqual(expect.arrayContaining(['RunWorkflow:syncChanges', 'RunActivity:resolvePipeline', 'RunActivity:initializeReplication', 'RunActivity:replicateSlice']))
  expect(started?.parentSpanId).toBe(workflow?.spanId)
  expect(run).toMatchObject({ parentSpanId: started?.spanId, traceId: workflow?.traceId })
  expect(run?.attributes).toContainEqual(expect.objectContaining({ key: 'temporalWorkflowId', value: { stringValue: `sync-${name}` } }))
  const resources = requests().flatMap(({ resourceSpans }) => resourceSpans ?? []).flatMap(({ resource }) => resource?.attributes ?? [])
  expect(resources).toContainEqual({ key: 'service.name', value: { stringValue: 'temporal-pg-replication' } })
  expect(resources).toContainEqual({ key: 'deployment.environment', value: { stringValue: 'test' } })
  expect(new Set(paths)).toEqual(new Set(['/v1/traces']))
  for (const body of bodies) {
    expect(body.includes('hidden value')).toBe(false)
    expect(body.includes(source.database.url)).toBe(false)
  }
})

it('a worker whose collector does not answer replicates all the same, and says so once', async () => {
  await source.pool.query(`CREATE TABLE untraced (id int PRIMARY KEY); INSERT INTO untraced VALUES (1)`)
  await using harness = await WorkerHarness.open({
    temporalAddress: inject('temporalAddress'),
    sourceUrl: source.database.url,
    env: { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1', OTEL_BSP_SCHEDULE_DELAY: '100', OTEL_BSP_EXPORT_TIMEOUT: '1000', OTEL_EXPORTER_OTLP_TIMEOUT: '500' },
  })
  await harness.startWorker()
  const name = `untraced_${source.database.name}`
  expect((await harness.sync({ slotName: name, publicationName: 'untraced', tableNames: 'untraced' })).tables).toHaveProperty(['public.untraced'])
  expect(await harness.stopWorker()).toBe(0)
  expect(harness.lines.filter((line) => line.includes('traces could not be sent'))).toHaveLength(1)
})

it("is traced by Temporal's own plugin in somebody's own worker", async () => {
  await source.pool.query(`CREATE TABLE hosted (id int PRIMARY KEY); INSERT INTO hosted VALUES (1)`)
  quietRuntime()
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  propagation.setGlobalPropagator(new W3CTraceContextPropagator())
  const exporter = new InMemorySpanExporter()
  const spanProcessor = new SimpleSpanProcessor(exporter)
  const tracer = new BasicTracerProvider({ spanProcessors: [spanProcessor] }).getTracer('host')
  await using harness = await WorkerHarness.open({ temporalAddress: inject('temporalAddress'), sourceUrl: source.database.url })
  const config = loadConfig({ env: { REPLICATION_CONFIG: join(harness.directory, 'replication.toml') } })
  const native = await NativeConnection.connect({ address: inject('temporalAddress') })
  const connection = await Connection.connect({ address: inject('temporalAddress') })
  const taskQueue = `traced-${randomBytes(6).toString('hex')}`
  const tracing = new OpenTelemetryPlugin({ resource: new Resource({ 'service.name': 'host' }), spanProcessor, tracer })
  try {
    const worker = await Worker.create({ connection: native, taskQueue, plugins: [new PgReplicationPlugin({ config, logger: pino({ level: 'silent' }) }), tracing] })
    const name = `hosted_${source.database.name}`
    await worker.runUntil(new Client({ connection, plugins: [tracing] }).workflow.execute(syncChanges, { taskQueue, workflowId: name, args: [{ slotName: name, publicationName: 'hosted', tableNames: 'hosted' }] }))
  } finally {
    await native.close()
    await connection.close()
  }
  const finished = exporter.getFinishedSpans()
  const started = finished.find((span) => span.name === 'StartWorkflow:syncChanges')
  const run = finished.find((span) => span.name === 'RunActivity:replicateSlice')
  expect(run?.spanContext().traceId).toBe(started?.spanContext().traceId)
})
