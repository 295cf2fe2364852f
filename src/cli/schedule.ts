import { type Client, ScheduleAlreadyRunning, type ScheduleDescription, ScheduleNotFoundError, ScheduleOverlapPolicy, type ScheduleUpdateOptions } from '@temporalio/client'
import { type Command, InvalidArgumentError } from 'commander'

import colors from '../terminal-colors.ts'
import { configuredTaskQueue } from '../config.ts'
import { shellWord } from '../model/remedy.ts'
import { type InputOrigin, parseReplicationInput, parseVerifyInput, parseXminInput } from '../model/spec-parse.ts'
import { type Answer, answer } from './answer.ts'
import { CliError, usageError } from './failure.ts'
import { listOpenReplications } from './replication-status.ts'
import { countFailedRuns, outcomeOf, scheduledRunOf } from './scheduled-runs.ts'
import { addSpecOptions, addTypeOption, checkedSpecInput, pipelineOf, specInput, typeOf } from './spec-options.ts'
import { textTable } from './status-text.ts'
import { asObject, withClient, workflowInput } from './temporal.ts'
import { addVerifyOptions, verifyFields, type VerifyOptions } from './verify.ts'

/** What a schedule can run; the first by default. */
const WORKFLOW_TYPES = ['syncChanges', 'syncByXmin', 'verifyReplication'] as const
/** One missed run is enough: each applies everything that was committed before it. */
const DEFAULT_CATCHUP_WINDOW_MS = 600_000

const UNITS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** `90s`, `5m`, `1h`, `1d` in milliseconds. */
export function parseDuration(text: string): number {
  const match = /^(\d+)\s*([smhd])$/.exec(text)
  const unit = UNITS[match?.[2] ?? '']
  if (match?.[1] === undefined || unit === undefined || Number(match[1]) === 0) {
    throw new InvalidArgumentError('write it like 90s, 5m, 1h or 1d.')
  }
  return Number(match[1]) * unit
}

/** The same, or `0`: none. */
export function parseJitter(text: string): number {
  return text === '0' ? 0 : parseDuration(text)
}

/** As `show` has it; times in milliseconds. */
interface Timing {
  readonly everyMs: number | null
  readonly jitterMs: number
  readonly overlap: ScheduleOverlapPolicy | undefined
  readonly catchupWindowMs: number
}

interface TimingOptions {
  readonly every?: number
  readonly cron?: readonly string[]
  readonly timezone?: string
  readonly jitter?: number
  readonly catchupWindow?: number
  readonly paused?: true
  readonly now?: true
}

/** `schedule create|update|list|show|pause|unpause|trigger|delete`: Temporal schedules of `syncChanges`, `syncByXmin` or `verifyReplication`. */
export function addSchedule(program: Command): void {
  const schedule = program.command('schedule').description('run syncChanges, syncByXmin or verifyReplication by a Temporal schedule')
  addCreate(schedule)
  addUpdate(schedule)
  addList(schedule)
  addShow(schedule)
  addSimple(schedule)
}

/** Checks the input of a workflow type. */
function parserOf(workflowType: string): (input: unknown, origin: InputOrigin) => unknown {
  if (workflowType === 'syncByXmin') return parseXminInput
  return workflowType === 'verifyReplication' ? parseVerifyInput : parseReplicationInput
}

function addText(text: string, previous: readonly string[] | undefined): readonly string[] {
  return [...(previous ?? []), text]
}

function addTimingOptions(command: Command): Command {
  return command
    .option('--every <duration>', 'how often: 90s, 5m, 1h, 1d', parseDuration)
    .option('--cron <expression>', 'when, as a cron expression; may be given more than once', addText)
    .option('--timezone <name>', 'time zone of --cron (default: UTC)')
    .option('--jitter <duration>', 'start each run by up to this later, at random, so that schedules of one time do not start together (default: 0)', parseJitter)
    .option('--catchup-window <duration>', 'how late a run that was missed is still started (default: 10m)', parseDuration)
}

/** When it runs by these options; of `former`, a schedule's that is changed, stays what they do not say. Null where they say nothing. */
function specOf(options: TimingOptions, former: Partial<ScheduleDescription['spec']> = {}): ScheduleUpdateOptions['spec'] | null {
  const { every, cron, timezone = former.timezone, jitter = former.jitter } = options
  if (every !== undefined && cron !== undefined) throw usageError('--every and --cron exclude each other', 'use one of them')
  if (every !== undefined && options.timezone !== undefined) throw usageError('--timezone is that of --cron', 'leave it out: --every is the same in every time zone')
  const lasting = { ...(timezone === undefined ? {} : { timezone }), ...(jitter === undefined ? {} : { jitter }) }
  if (every !== undefined) return { ...lasting, intervals: [{ every }] }
  if (cron !== undefined) return { ...lasting, cronExpressions: [...cron] }
  return options.timezone === undefined && options.jitter === undefined ? null : { ...former, ...lasting }
}

/** What Temporal says of a time that it does not understand; any other error as it is. */
function refusedTime(error: unknown): unknown {
  return error instanceof TypeError ? usageError(`Temporal does not take this time: ${error.message}`, 'for example --every 5m, or --cron "0 3 * * *" --timezone Europe/Berlin') : error
}

function addCreate(schedule: Command): void {
  const command = addTimingOptions(schedule.command('create'))
    .description('make a schedule; a run that is still going when the next is due is not joined by it')
    .argument('[scheduleId]', 'id of the schedule (default: sync-<slot>, sync-xmin-<source>, or verify-<slot>)')
    .option('--verify', 'compare source and destination: the same as --type verifyReplication')
    .option('--paused', 'make it paused')
    .option('--now', 'run once at once')
  answer(addVerifyOptions(addSpecOptions(addTypeOption(command, WORKFLOW_TYPES))), async ([given]) => {
    const options = command.opts<TimingOptions & VerifyOptions & { readonly verify?: true }>()
    const spec = options.every === undefined && options.cron === undefined ? null : specOf(options)
    if (spec === null) throw usageError('when is it to run?', 'give --every 5m, or --cron "0 * * * *"')
    const workflowType = options.verify === true ? 'verifyReplication' : typeOf(command)
    const input = { ...checkedSpecInput(command, workflowType), ...verifyFields(options) }
    parserOf(workflowType)(input, { of: workflowType, storedIn: null })
    const workflowId = `${workflowType === 'verifyReplication' ? 'verify' : 'sync'}-${pipelineOf(input)}`
    const scheduleId = given ?? workflowId
    return await withClient(async (client) => {
      try {
        const created = await client.schedule.create({
          scheduleId,
          spec,
          action: { type: 'startWorkflow', workflowType, workflowId, taskQueue: configuredTaskQueue(process.env), args: [input] },
          policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: options.catchupWindow ?? DEFAULT_CATCHUP_WINDOW_MS },
          state: { paused: options.paused === true },
        })
        // By itself Temporal starts the first run whatever its policy says, and counts it as none that the next one would have to wait for.
        if (options.now === true) await created.trigger(ScheduleOverlapPolicy.SKIP)
      } catch (error) {
        if (!(error instanceof ScheduleAlreadyRunning)) throw refusedTime(error)
        throw new CliError({
          type: 'AlreadyScheduled',
          message: `there already is a schedule ${scheduleId}`,
          remedy: `change it (npm run cli -- schedule update ${scheduleId} …), or give another id`,
        })
      }
      const shown = await showSchedule(client, scheduleId)
      const holder = workflowType === 'syncChanges' ? await replicationOf(client, input) : null
      if (holder === null) return shown
      const warning = `${holder} replicates slot ${String(input['slotName'])}: while it does, each run fails with AlreadyReplicating; npm run cli -- schedule pause ${shellWord(scheduleId)}, or stop it`
      return { document: { ...asObject(shown.document), warnings: [warning] }, text: `${shown.text}\n${colors.yellow('warning')}: ${warning}` }
    })
  })
}

/** The open `replicate` that has the slot of this input; null = none. Another source may have a slot of that name: it counts where both inputs name theirs. */
async function replicationOf(client: Client, { slotName, source }: Readonly<Record<string, unknown>>): Promise<string | null> {
  const open = await listOpenReplications(client)
  const inputs = await Promise.all(open.map(async (workflowId) => ({ workflowId, input: await workflowInput(client, client.workflow.getHandle(workflowId)) })))
  const isSame = (other: unknown): boolean => other === source || other === undefined || source === undefined
  return inputs.find(({ input }) => input['slotName'] === slotName && isSame(input['source']))?.workflowId ?? null
}

function addUpdate(schedule: Command): void {
  const command = addTimingOptions(schedule.command('update'))
    .description('change a schedule; what is not given stays')
    .argument('<scheduleId>', 'id of the schedule')
  answer(addVerifyOptions(addSpecOptions(command)), async ([scheduleId = '']) => {
    const options = command.opts<TimingOptions & VerifyOptions>()
    specOf(options)
    const given = { ...specInput(command), ...verifyFields(options) }
    return await withSchedule(scheduleId, async (client) => {
      const changing = client.schedule.getHandle(scheduleId).update((current) => {
        const input = { ...asObject(current.action.args?.[0]), ...given }
        const { workflowType } = current.action
        const spec = specOf(options, current.spec)
        parserOf(workflowType)(input, { of: workflowType, storedIn: null })
        return {
          ...current,
          action: { ...current.action, args: [input] },
          ...(spec === null ? {} : { spec }),
          policies: { ...current.policies, ...(options.catchupWindow === undefined ? {} : { catchupWindow: options.catchupWindow }) },
        }
      })
      await changing.catch((error: unknown) => { throw refusedTime(error) })
      return await showSchedule(client, scheduleId)
    })
  })
}

function addList(schedule: Command): void {
  answer(schedule.command('list').description('list the schedules of syncChanges, syncByXmin and verifyReplication'), async () => {
    return await withClient(async (client) => {
      const schedules = []
      for await (const summary of client.schedule.list()) {
        if (!WORKFLOW_TYPES.some((type) => type === summary.action?.workflowType)) continue
        schedules.push({
          scheduleId: summary.scheduleId,
          paused: summary.state.paused,
          next: summary.info.nextActionTimes[0]?.toISOString() ?? null,
          last: summary.info.recentActions.at(-1)?.takenAt.toISOString() ?? null,
        })
      }
      const rows = schedules.map(({ scheduleId, paused, next, last }) => [scheduleId, paused ? 'paused' : 'active', next ?? '–', last ?? '–'])
      return {
        document: schedules,
        text: schedules.length === 0 ? 'no schedules (npm run cli -- schedule create makes one)' : textTable(['schedule id', 'state', 'next run', 'last run'], rows),
      }
    })
  })
}

function addShow(schedule: Command): void {
  const command = schedule.command('show').description('show a schedule').argument('<scheduleId>', 'id of the schedule')
  answer(command, async ([scheduleId = '']) => await withSchedule(scheduleId, async (client) => await showSchedule(client, scheduleId)))
}

/** Verbs that take the id only. */
function addSimple(schedule: Command): void {
  const add = (name: string, description: string, run: (client: Client, scheduleId: string) => Promise<unknown>): void => {
    const command = schedule.command(name).description(description).argument('<scheduleId>', 'id of the schedule')
    answer(command, async ([scheduleId = '']) => {
      return await withSchedule(scheduleId, async (client) => {
        await run(client, scheduleId)
        return name === 'delete'
          ? { document: { scheduleId, deleted: true }, text: `deleted ${scheduleId}; a run that is going on goes on` }
          : await showSchedule(client, scheduleId)
      })
    })
  }
  add('pause', 'start no further runs', async (client, id) => await client.schedule.getHandle(id).pause())
  add('unpause', 'start runs again', async (client, id) => await client.schedule.getHandle(id).unpause())
  // Temporal's default for triggers starts a second run beside a running one.
  add('trigger', 'run once now, unless a run is going on', async (client, id) => await client.schedule.getHandle(id).trigger(ScheduleOverlapPolicy.SKIP))
  add('delete', 'remove a schedule', async (client, id) => await client.schedule.getHandle(id).delete())
}

async function withSchedule(scheduleId: string, run: (client: Client) => Promise<Answer>): Promise<Answer> {
  return await withClient(async (client) => {
    try {
      return await run(client)
    } catch (error) {
      if (!(error instanceof ScheduleNotFoundError)) throw error
      throw new CliError({
        type: 'ScheduleNotFound',
        message: `there is no schedule ${scheduleId}`,
        remedy: 'npm run cli -- schedule list shows them',
      })
    }
  })
}

const LETTERS = Object.entries(UNITS).reverse()

/** As it would be typed: `90s`, `5m`, `1h`. */
function shortDuration(durationMs: number): string {
  const [letter, unit] = LETTERS.find(([, size]) => durationMs >= size && durationMs % size === 0) ?? ['s', 1_000]
  return `${String(durationMs / unit)}${letter}`
}

/** `every 5m, up to 30s later; skipped while a run goes on; a missed run is started up to 10m late`. */
function timingText({ everyMs, jitterMs, overlap, catchupWindowMs }: Timing): string {
  return [
    `${everyMs === null ? 'by the calendar' : `every ${shortDuration(everyMs)}`}${jitterMs === 0 ? '' : `, up to ${shortDuration(jitterMs)} later`}`,
    overlap === ScheduleOverlapPolicy.SKIP ? 'skipped while a run goes on' : `overlap ${overlap ?? 'unknown'}`,
    `a missed run is started up to ${shortDuration(catchupWindowMs)} late`,
  ].join('; ')
}

async function showSchedule(client: Client, scheduleId: string): Promise<Answer> {
  const { action, spec, policies, state, info } = await client.schedule.getHandle(scheduleId).describe()
  const [recent, failedRuns] = await Promise.all([Promise.all(info.recentActions.map(async (run) => scheduledRunOf(client, run))), countFailedRuns(client, scheduleId)])
  const document = {
    scheduleId,
    paused: state.paused,
    everyMs: spec.intervals?.[0]?.every ?? null,
    calendars: spec.calendars ?? [],
    timezone: spec.timezone ?? 'UTC',
    jitterMs: spec.jitter ?? 0,
    overlap: policies.overlap,
    catchupWindowMs: policies.catchupWindow,
    workflowType: action.workflowType,
    workflowId: action.workflowId,
    taskQueue: action.taskQueue,
    input: asObject(action.args?.[0]),
    next: info.nextActionTimes.map((time) => time.toISOString()),
    recent,
    failedRuns,
    skippedForOverlap: info.numActionsSkippedOverlap,
  }
  const lines = [
    `${scheduleId}: ${state.paused ? 'paused' : 'active'}, runs ${action.workflowType} as ${action.workflowId} on ${action.taskQueue}`,
    `timing: ${timingText(document)}`,
    `next: ${document.next.slice(0, 3).join(', ') || '–'}`,
    `recent: ${recent.map((run) => `${run.workflowId} (${run.takenAt}, ${outcomeOf(run)})`).join(', ') || '–'}`,
    ...((failedRuns ?? 0) === 0 ? [] : [`failed runs that Temporal still keeps: ${String(failedRuns)}`]),
    ...recent.flatMap(({ workflowId, error }) => (error === undefined ? [] : [`${workflowId}: ${colors.red(error.type)}: ${error.message}\n  ${error.remedy.replaceAll('\n', '\n  ')}`])),
    `input: ${JSON.stringify(document.input)}`,
  ]
  return { document, text: lines.join('\n') }
}
