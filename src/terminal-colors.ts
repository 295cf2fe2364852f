import { isatty } from 'node:tty'
import picocolors from 'picocolors'

/** Colours for people at a terminal only: a pipe gets plain text, in CI too (picocolors alone would colour it there). */
const colors = picocolors.createColors(isatty(1) && isatty(2) && process.env['NO_COLOR'] === undefined)

export default colors
