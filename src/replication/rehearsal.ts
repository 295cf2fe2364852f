import type { TupleView } from '../model/change.ts'
import { type ChunkStage, type CopyRecord, type Destination, type Fence, type RowLookup, type TableRecord, type TableRegistration, type TargetColumn, unplannedCopy } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'
import { ZERO_LSN } from '../model/lsn.ts'
import { reloadName } from '../model/table-schema.ts'

/** Rows are tried this many at a time, or these many bytes. */
const TRIED_ROWS = 100_000
const TRIED_BYTES = 64 * 2 ** 20

const KEY = { source: 'rehearsal', slotName: 'rehearsal' } as const

/** Nothing is asked of the source: rows that are only copied need nothing. */
const NO_LOOKUP: RowLookup = {
  readRows: async () => Promise.resolve({ rows: [], lsn: ZERO_LSN }),
  locateKeys: async () => Promise.resolve([]),
  judge: () => 'apply',
}

export interface RehearsedColumn {
  /** As it would be made. */
  readonly column: TargetColumn
  /** False where a value was not held exactly: it would be widened, or stop the table where a hint pins it. */
  readonly isExact: boolean
}

/**
 * Tries whether a destination would hold a table's values: they are copied into it as the first load would copy them, and what became of its
 * columns is told. Hints do not pin here, so that one pass tells of every column. `destination` is an empty one that nobody else uses and that is
 * thrown away afterwards; no more than one part of the rows is in it at a time. `read` hands rows over as `readValues` does.
 *
 * Throws what `register` would refuse, and what reading throws.
 */
export async function rehearse(
  destination: Destination,
  registration: TableRegistration,
  read: (onRow: (tuple: TupleView) => Promise<void> | undefined) => Promise<unknown>,
): Promise<readonly RehearsedColumn[]> {
  const { epoch } = await destination.claim(KEY, 'rehearsal', null)
  const fence: Fence = { ...KEY, owner: 'rehearsal', epoch }
  const identity = { systemIdentifier: '0', timeline: 1, databaseName: '', serverVersion: 0 }
  const [registered] = await destination.register(fence, {
    ...{ identity, publicationName: '', appliedLsn: ZERO_LSN, replacesPosition: true, gone: new Set<number>() },
    tables: [{ ...registration, initialState: 'pending' }],
  })
  if (registered === undefined) throw new RangeError('a table was registered and is not there')
  let record: TableRecord = { ...registered, columns: registered.columns.map((column) => ({ ...column, isPinned: false })) }
  let stage: ChunkStage | null = null as ChunkStage | null

  const tryStaged = async (): Promise<void> => {
    const staged = stage
    stage = null
    if (staged === null) return
    record = { ...record, state: 'snapshotting', copy: onePart(record) }
    await destination.prepareCopies(fence, [record])
    staged.withRecord(record)
    try {
      const [tried] = await destination.applyChunks(fence, [staged], NO_LOOKUP)
      if (tried?.error != null) throw failed(tried.error)
      record = tried ?? record
    } finally {
      staged.discard()
    }
  }
  try {
    await read((tuple) => {
      stage ??= destination.newChunk({ ...record, copy: onePart(record) }, { index: 0, snapshot: '1:1:', lsn: ZERO_LSN, rowLsn: ZERO_LSN, timeMicros: 0n })
      stage.add(tuple)
      return stage.rowCount >= TRIED_ROWS || stage.byteCount >= TRIED_BYTES ? tryStaged() : undefined
    })
    await tryStaged()
  } finally {
    stage?.discard()
  }
  return registered.columns.map((column) => ({ column, isExact: record.columns.find(({ name }) => name === column.name)?.type === column.type }))
}

/** The parts before this one are not needed any more: what is filled is made anew. */
function onePart({ target }: TableRecord): CopyRecord {
  return unplannedCopy({ generation: 1, into: reloadName(target) })
}

function failed({ type, message, remedy }: NonNullable<TableRecord['error']>): DomainError {
  return new DomainError({ kind: type, message, remedy })
}
