/** One line of `doctor`'s table. */
export interface Check {
  /** What it is about: `config`, `source shop`, `destination warehouse`, `temporal`. */
  readonly subject: string
  readonly name: string
  readonly state: 'ok' | 'warning' | 'failure'
  readonly message: string
  /** What to do; null where nothing is to be done. */
  readonly remedy: string | null
}
