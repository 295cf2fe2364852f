import { createRequire } from 'node:module'
import type { WorkerOptions } from '@temporalio/worker'
import type { Logger } from 'pino'
import { DomainError } from './model/errors.ts'

/** A worker that sends traces. */
export interface Tracing {
  /** What a worker is to be made with, beside the bundle with {@link tracedWorkflowModules}. */
  readonly workerOptions: Pick<WorkerOptions, 'interceptors' | 'sinks'>
  /** Sends what has ended by now; waits for {@link SEND_LIMIT_MS} at most. */
  close(): Promise<void>
}

/** How long a worker that ends waits for a collector. */
const SEND_LIMIT_MS = 5_000
/** A collector that is away is told of this often at most. */
const WARN_INTERVAL_MS = 60_000
const SERVICE_NAME = 'temporal-pg-replication'
const PROTOCOL = 'http/protobuf'

const INTERCEPTORS = '@temporalio/interceptors-opentelemetry'

/** What a bundle of workflows that are traced holds beside them. */
export function tracedWorkflowModules(): string[] {
  return [createRequire(import.meta.url).resolve(`${INTERCEPTORS}/lib/workflow-interceptors`)]
}

/** Are traces asked for? By OpenTelemetry's own variables: an endpoint, and nothing that turns them off. */
export function isTracingAsked(env: NodeJS.ProcessEnv): boolean {
  if (env['OTEL_SDK_DISABLED']?.toLowerCase() === 'true' || env['OTEL_TRACES_EXPORTER'] === 'none') return false
  return [env['OTEL_EXPORTER_OTLP_ENDPOINT'], env['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT']].some((endpoint) => endpoint !== undefined && endpoint !== '')
}

/**
 * Traces of workflows and activities, sent to an OpenTelemetry collector where `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) names one; null where none is.
 * The exporter reads the other variables of the standard by itself (headers, timeout, certificate, `OTEL_BSP_…`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`). Its packages are
 * loaded only here. A collector that does not answer costs its spans and a warning a minute, nothing else.
 *
 * Throws `InvalidConfig` for a protocol other than `http/protobuf`.
 */
export async function openTracing(env: NodeJS.ProcessEnv, logger: Logger): Promise<Tracing | null> {
  if (!isTracingAsked(env)) return null
  requireProtocol(env)
  const [{ context, diag, DiagLogLevel, propagation }, { AsyncLocalStorageContextManager }, { W3CTraceContextPropagator }, { OTLPTraceExporter }, { detectResourcesSync, envDetectorSync, Resource }, { BasicTracerProvider, BatchSpanProcessor }, interceptors] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/context-async-hooks'),
    import('@opentelemetry/core'),
    import('@opentelemetry/exporter-trace-otlp-proto'),
    import('@opentelemetry/resources'),
    import('@opentelemetry/sdk-trace-base'),
    import('@temporalio/interceptors-opentelemetry'),
  ])
  diag.setLogger(warningsTo(logger), { logLevel: DiagLogLevel.ERROR })
  // By these an activity finds the span of its workflow in the headers of its task.
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  propagation.setGlobalPropagator(new W3CTraceContextPropagator())
  const resource = new Resource({ 'service.name': SERVICE_NAME, ...detectResourcesSync({ detectors: [envDetectorSync] }).attributes })
  const processor = new BatchSpanProcessor(new OTLPTraceExporter())
  const provider = new BasicTracerProvider({ resource, spanProcessors: [processor] })
  const tracer = provider.getTracer(SERVICE_NAME)
  logger.info('traces are sent to the OpenTelemetry collector that OTEL_EXPORTER_OTLP_ENDPOINT names')
  return {
    workerOptions: {
      interceptors: {
        activity: [(activity) => ({ inbound: new interceptors.OpenTelemetryActivityInboundInterceptor(activity, { tracer }) })],
      },
      sinks: { exporter: interceptors.makeWorkflowExporter(processor, resource) },
    },
    close: async () => {
      let timer: NodeJS.Timeout | undefined
      const limit = new Promise<void>((resolve) => { timer = setTimeout(resolve, SEND_LIMIT_MS) })
      await Promise.race([provider.shutdown().catch(() => undefined), limit])
      clearTimeout(timer)
    },
  }
}

function requireProtocol(env: NodeJS.ProcessEnv): void {
  const variable = ['OTEL_EXPORTER_OTLP_TRACES_PROTOCOL', 'OTEL_EXPORTER_OTLP_PROTOCOL'].find((name) => env[name] !== undefined && env[name] !== '')
  if (variable === undefined || env[variable] === PROTOCOL) return
  throw new DomainError({
    kind: 'InvalidConfig',
    message: `${variable} asks for another protocol than ${PROTOCOL}, the only one by which traces are sent`,
    remedy: `set ${variable} to ${PROTOCOL} and the endpoint to the collector's HTTP port (4318)`,
  })
}

/** OpenTelemetry's own reports repeat what a server answered: they are told of, not shown. */
function warningsTo(logger: Logger): { error(): void; warn(): void; info(): void; debug(): void; verbose(): void } {
  let quietUntilMs = 0
  const pass = (): void => undefined
  const error = (): void => {
    if (performance.now() < quietUntilMs) return
    quietUntilMs = performance.now() + WARN_INTERVAL_MS
    logger.warn('traces could not be sent to the OpenTelemetry collector; they are lost, the replication goes on')
  }
  return { error, warn: pass, info: pass, debug: pass, verbose: pass }
}
