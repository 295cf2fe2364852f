import { DefaultFailureConverter } from '@temporalio/common'

/** Messages and stacks of failures go through the codec, too; their types stay readable. */
export const failureConverter = new DefaultFailureConverter({ encodeCommonAttributes: true })
