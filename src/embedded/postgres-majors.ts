/** The major versions that replication supports, oldest first. */
export const postgresMajors = [14, 15, 16, 17, 18] as const

/** A supported PostgreSQL major version. */
export type PostgresMajor = (typeof postgresMajors)[number]

/** The major version that development servers have unless told otherwise: that of the development dependency. */
export const defaultPostgresMajor: PostgresMajor = 18

/** Parses `18`; throws an error that lists the supported versions. */
export function parsePostgresMajor(text: string): PostgresMajor {
  const major = postgresMajors.find((candidate) => String(candidate) === text)
  if (major === undefined) throw new Error(`PostgreSQL ${text} is not supported: choose one of ${postgresMajors.join(', ')}`)
  return major
}
