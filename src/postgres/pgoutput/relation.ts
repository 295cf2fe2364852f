import type { Relation, RelationColumn } from '../../model/change.ts'
import type { MessageReader } from './message-reader.ts'

const FLAG_KEY = 1

/** A schema's name; pgoutput writes `pg_catalog` as an empty string. */
export function readSchemaName(reader: MessageReader): string {
  const name = reader.string()
  return name === '' ? 'pg_catalog' : name
}

/**
 * Reads the body of a Relation message.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-RELATION
 */
export function readRelation(reader: MessageReader): Relation {
  const oid = reader.uint32()
  const schema = readSchemaName(reader)
  const name = reader.string()
  const replicaIdentity = readReplicaIdentity(reader)
  const columnCount = reader.uint16()
  const columns: RelationColumn[] = []
  for (let index = 0; index < columnCount; index++) columns.push(readColumn(reader))
  return { oid, schema, name, replicaIdentity, columns }
}

function readReplicaIdentity(reader: MessageReader): Relation['replicaIdentity'] {
  const code = String.fromCharCode(reader.uint8())
  if (code === 'd' || code === 'n' || code === 'f' || code === 'i') return code
  return reader.fail('unknown replica identity', reader.position - 1)
}

function readColumn(reader: MessageReader): RelationColumn {
  const flags = reader.uint8()
  if ((flags & ~FLAG_KEY) !== 0) reader.fail('unknown flags of a column', reader.position - 1)
  const name = reader.string()
  const typeOid = reader.uint32()
  const typeModifier = reader.int32()
  return { name, typeOid, typeModifier, isKey: (flags & FLAG_KEY) !== 0 }
}
