import type { Destination, PipelineKey, PipelineState } from '../model/destination.ts'
import { DomainError } from '../model/errors.ts'

/** How this worker's destinations are looked at. */
export interface Destinations {
  /** Every destination of this worker's configuration. */
  readonly destinationNames: () => readonly string[]
  /** True where the destination has been written before: looking at it creates nothing. */
  readonly hasDestination: (destinationName: string) => boolean
  readonly openDestination: (destinationName: string) => Promise<Destination>
}

/**
 * What the destination with this id holds of a slot, where it is one of this worker's others: its claim counts for a start into another
 * destination too (contract §4: one replication per source and slot). Null where no destination here has that id, it knows nothing of the
 * slot, or another process has its file: then the note and the slot itself have to speak.
 */
export async function findPipelineElsewhere(
  destinations: Destinations,
  pipeline: { readonly key: PipelineKey; readonly destinationId: string; readonly except: string },
): Promise<PipelineState | null> {
  for (const name of destinations.destinationNames()) {
    if (name === pipeline.except) continue
    try {
      if (!destinations.hasDestination(name)) continue
      const destination = await destinations.openDestination(name)
      try {
        if (destination.id === pipeline.destinationId) return await destination.loadPipeline(pipeline.key)
      } finally {
        await destination.close()
      }
    } catch (error) {
      // Not supported, broken, or open elsewhere: no reason to refuse a start that does not need it.
      if (!(error instanceof DomainError)) throw error
    }
  }
  return null
}
