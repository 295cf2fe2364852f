import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { DomainError } from '../../../src/model/errors.ts'
import { sqlStateOf, toDomainError } from '../../../src/postgres/sqlstate.ts'

const context = { subject: 'slot "s"' }

function serverError(code: string, fields: Record<string, string> = {}): Error {
  return Object.assign(new Error(fields['message'] ?? 'Nachricht'), { severity: 'FEHLER', code, ...fields })
}

describe('errors of the server, by SQLSTATE and routine', () => {
  it.each([
    ['28P01', {}, 'AuthenticationFailed', false],
    ['28000', {}, 'AuthenticationFailed', false],
    ['3D000', {}, 'InvalidConfig', false],
    ['42501', {}, 'PrivilegeMissing', false],
    ['55006', {}, 'SlotInUse', false],
    ['42704', { routine: 'ReplicationSlotAcquire' }, 'SlotLost', false],
    ['42704', { routine: 'SearchNamedReplicationSlot' }, 'SlotLost', false],
    ['42704', { routine: 'get_publication_oid' }, 'SourceNotReady', false],
    ['55000', { routine: 'CreateDecodingContext', message: 'can no longer get changes from replication slot "s"' }, 'SlotLost', false],
    ['55000', { routine: 'RaiseSlotInvalidationError' }, 'SlotLost', false],
    ['55000', { routine: 'CreateDecodingContext', message: 'cannot use physical replication slot for logical decoding' }, 'InvalidInput', false],
    ['55000', { routine: 'CreateDecodingContext', message: 'replication slot "s" was not created in this database' }, 'InvalidInput', false],
    ['55000', { routine: 'CheckLogicalDecodingRequirements' }, 'SourceNotReady', false],
    ['58P01', { routine: 'WalSndSegmentOpen' }, 'SlotLost', false],
    ['58P01', {}, 'SourceUnavailable', true],
    ['53400', {}, 'SourceNotReady', false],
    ['53300', {}, 'SourceUnavailable', true],
    ['53100', {}, 'SourceUnavailable', true],
    ['57P01', {}, 'SourceUnavailable', true],
    ['57P03', {}, 'SourceUnavailable', true],
    ['57014', {}, 'SourceUnavailable', true],
    ['55P03', {}, 'SourceUnavailable', true],
    ['40P01', {}, 'SourceUnavailable', true],
    ['08006', {}, 'SourceUnavailable', true],
    ['08P01', {}, 'SourceNotReady', false],
    ['22021', {}, 'UnrepresentableValue', false],
    ['22P05', {}, 'UnrepresentableValue', false],
    ['25006', {}, 'SourceNotReady', false],
    ['42P01', {}, 'InvalidInput', false],
    ['42601', {}, 'ProtocolViolation', false],
    ['XX000', {}, 'SourceUnavailable', true],
    ['XX000', { routine: 'MemoryContextSizeFailure', message: 'invalid memory alloc request size 1200000003' }, 'UnrepresentableValue', false],
    ['54000', { routine: 'enlargeStringInfo', message: 'out of memory' }, 'UnrepresentableValue', false],
    ['54000', { routine: 'transformColumnDefinition' }, 'ProtocolViolation', false],
    ['ZZ999', {}, 'ProtocolViolation', false],
  ] as const)('%s %j is %s', (code, fields, kind, isRetryable) => {
    const error = toDomainError(serverError(code, fields), context)
    expect(error).toMatchObject({ kind, isRetryable })
    expect(error.remedy).not.toBe('')
    expect(error.message).toContain('slot "s": ')
    expect(error.cause).toMatchObject({ code })
  })

  // Cause: it was taken for a server that cannot be reached, or for a fault of ours, and tried for ever.
  it('says of a row that the server cannot send what it is', () => {
    const error = toDomainError(serverError('54000', { routine: 'enlargeStringInfo', message: 'out of memory' }), context)
    expect(error).toMatchObject({ message: 'slot "s": a row is longer as text than the 1 GB that PostgreSQL can send (SQLSTATE 54000)', remedy: expect.stringContaining('includeColumns') as string })
  })

  it('takes a publication that was not there where the stream stands for a lost slot, and elsewhere for what it is', () => {
    const missing = serverError('42704', { routine: 'get_publication_oid', message: 'publication "p" does not exist' })
    expect(toDomainError(missing, { ...context, isDecoding: true })).toMatchObject({ kind: 'SlotLost', remedy: expect.stringContaining('recover') as string })
    expect(toDomainError(missing, context)).toMatchObject({ kind: 'SourceNotReady' })
  })

  it.each(['22P02', '23505', 'P0001', 'XX000'])('keeps the text of %s out, which may quote a row', (code) => {
    const error = toDomainError(serverError(code, { message: 'invalid input: "planted"', detail: 'Key (id)=(planted)', where: 'planted', hint: 'planted' }), context)
    expect(inspect(error, { depth: 10, showHidden: true })).not.toContain('planted')
    expect(error.message).toContain(code)
  })

  it('keeps detail, where and internal query out even where the text is safe', () => {
    const error = toDomainError(serverError('42501', { message: 'permission denied for table t', detail: 'planted', where: 'planted', internalQuery: 'planted' }), context)
    expect(error.message).toBe('slot "s": permission denied for table t (SQLSTATE 42501)')
    expect(inspect(error, { depth: 10, showHidden: true })).not.toContain('planted')
  })
})

describe('errors of socket and driver', () => {
  it.each([
    [Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:1'), { code: 'ECONNREFUSED' }), 'SourceUnavailable'],
    [Object.assign(new AggregateError([Object.assign(new Error('connect ECONNREFUSED ::1:1'), { code: 'ECONNREFUSED' })], ''), { code: 'ECONNREFUSED' }), 'SourceUnavailable'],
    [Object.assign(new Error('getaddrinfo ENOTFOUND h'), { code: 'ENOTFOUND' }), 'SourceUnavailable'],
    [new Error('timeout expired'), 'SourceUnavailable'],
    [new Error('Connection terminated unexpectedly'), 'SourceUnavailable'],
    [new Error('Client has encountered a connection error and is not queryable'), 'SourceUnavailable'],
    [new Error('The server does not support SSL connections'), 'InvalidConfig'],
    [new Error('SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a string'), 'AuthenticationFailed'],
    [Object.assign(new Error('self-signed certificate'), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' }), 'AuthenticationFailed'],
    [Object.assign(new Error('Hostname mismatch'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' }), 'AuthenticationFailed'],
  ])('%s is %s', (thrown, kind) => {
    expect(toDomainError(thrown, context).kind).toBe(kind)
  })

  it('names an unknown error, and repeats nothing of it', () => {
    const error = toDomainError(new TypeError('planted'), context)
    expect(error).toMatchObject({ kind: 'ProtocolViolation', message: 'slot "s": unexpected TypeError', isRetryable: false })
    expect(inspect(error, { depth: 10, showHidden: true })).not.toContain('planted')
    expect(toDomainError('planted', context).message).not.toContain('planted')
  })

  it('hands a DomainError on, and tells the server\'s codes from errnos', () => {
    const known = new DomainError({ kind: 'SlotLost', message: 'gone', remedy: 'reset' })
    expect(toDomainError(known, context)).toBe(known)
    expect(sqlStateOf(serverError('42704'))).toBe('42704')
    expect(sqlStateOf(Object.assign(new Error('broken'), { code: 'EPIPE' }))).toBeNull()
  })
})
