/**
 * The error types of contract §6. The name is what users see as the `type` of a Temporal failure.
 *
 * `retry` tells the one policy: can time alone mend it (a server that is down), or does it need somebody's hand?
 */
export const ERROR_POLICY = {
  InvalidInput: { retry: false },
  InvalidConfig: { retry: false },
  AuthenticationFailed: { retry: false },
  PrivilegeMissing: { retry: false },
  SourceNotReady: { retry: false },
  TableNotReplicable: { retry: false },
  SlotLost: { retry: false },
  SlotInUse: { retry: false },
  DifferentSource: { retry: false },
  DestinationLost: { retry: false },
  AlreadyReplicating: { retry: false },
  SourceUnavailable: { retry: true },
  UnrepresentableValue: { retry: false },
  SchemaChangeRefused: { retry: false },
  DestinationFailed: { retry: true },
  ProtocolViolation: { retry: false },
} as const satisfies Record<string, { readonly retry: boolean }>

export type ErrorKind = keyof typeof ERROR_POLICY

export interface DomainErrorInit {
  readonly kind: ErrorKind
  /** What happened, naming the object. Never a row value, never a credential. */
  readonly message: string
  /** The command to run or the thing to change; statements stand on lines of their own (remedy.ts). */
  readonly remedy: string
  readonly cause?: unknown
  /** True where time alone cannot mend it although its kind usually mends itself (a full disk is not one; a read-only file is). */
  readonly permanent?: boolean
}

/** An error of this domain: classified, naming its object, carrying its remedy; safe to show and to log. */
export class DomainError extends Error {
  readonly kind: ErrorKind
  readonly remedy: string
  readonly isRetryable: boolean

  constructor(init: DomainErrorInit) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause })
    this.name = init.kind
    this.kind = init.kind
    this.remedy = init.remedy
    this.isRetryable = ERROR_POLICY[init.kind].retry && init.permanent !== true
  }
}

/** Faults of one table; all others are of the whole replication. */
const TABLE_FAULTS: ReadonlySet<ErrorKind> = new Set(['PrivilegeMissing', 'TableNotReplicable', 'UnrepresentableValue', 'SchemaChangeRefused'])

/** Does it stop one table alone, where it comes of work on that table? */
export function isTableFault(error: unknown): error is DomainError {
  return error instanceof DomainError && TABLE_FAULTS.has(error.kind)
}

/** What `status` shows of an error. JSON-safe. */
export interface ErrorReport {
  readonly type: ErrorKind
  readonly message: string
  readonly remedy: string
}

export function reportOf(error: DomainError): ErrorReport {
  return { type: error.kind, message: error.message, remedy: error.remedy }
}
