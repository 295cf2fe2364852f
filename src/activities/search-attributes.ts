import type { Client } from '@temporalio/client'
import { SEARCH_ATTRIBUTE_NAMES, SEARCH_ATTRIBUTES, type SearchAttributeName } from '../model/search-attributes.ts'

const DEADLINE_MS = 2_000

/**
 * Which of our search attributes the namespace has, with the type that they are to have. Setting any other would fail the workflow's task, again and
 * again. Null where Temporal does not tell: the operator's service is not for everybody, and Temporal Cloud has none.
 */
export async function registeredSearchAttributes({ connection, options: { namespace } }: Client): Promise<readonly SearchAttributeName[] | null> {
  try {
    const { customAttributes } = await connection.withDeadline(Date.now() + DEADLINE_MS, async () => connection.operatorService.listSearchAttributes({ namespace }))
    return SEARCH_ATTRIBUTE_NAMES.filter((name) => Number(customAttributes[name]) === SEARCH_ATTRIBUTES[name].wireType)
  } catch {
    return null
  }
}
