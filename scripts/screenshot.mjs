/**
 * Takes the pictures of the demo's workflow in the Temporal UI that the documents show: `node scripts/screenshot.mjs [workflow URL]`. Without
 * a URL it runs `npm run demo -- --keep`, takes the pictures of its workflow and ends it.
 *
 * Needs a Chromium or Chrome on the machine (`CHROMIUM=/path/to/it` where it is not on PATH). It is driven over its debugging pipe, so that
 * the project needs no browser package for one picture.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = fileURLToPath(new URL('../', import.meta.url))
const PROGRAMS = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome']
const VIEW = { width: 1440, height: 960, deviceScaleFactor: 1, mobile: false }
const LIMIT_MS = 60_000

/** Chrome's debugging protocol over the file descriptors 3 and 4: JSON messages that end with a NUL. */
class Browser {
  #process
  #profile
  #nextId = 1
  #waiting = new Map()

  static async start() {
    const given = process.env.CHROMIUM
    for (const program of given === undefined ? PROGRAMS : [given]) {
      const browser = new Browser()
      if (await browser.#open(program)) return browser
    }
    throw new Error('no Chromium found: install one, or set CHROMIUM to its path')
  }

  async #open(program) {
    this.#profile = mkdtempSync(join(tmpdir(), 'screenshot-'))
    const args = ['--headless=new', '--remote-debugging-pipe', '--disable-gpu', '--hide-scrollbars', `--user-data-dir=${this.#profile}`]
    // Its sandbox refuses root.
    if (process.getuid?.() === 0) args.push('--no-sandbox')
    this.#process = spawn(program, [...args, 'about:blank'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] })
    const isStarted = await Promise.race([once(this.#process, 'spawn').then(() => true), once(this.#process, 'error').then(() => false)])
    if (!isStarted) {
      rmSync(this.#profile, { recursive: true, force: true })
      return false
    }
    let rest = ''
    this.#process.stdio[4].setEncoding('utf8').on('data', (chunk) => {
      const parts = (rest + chunk).split('\0')
      rest = parts.pop()
      for (const part of parts) this.#receive(JSON.parse(part))
    })
    return true
  }

  #receive({ id, result, error }) {
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (error === undefined) waiting?.resolve(result)
    else waiting?.reject(new Error(error.message))
  }

  async call(method, params = {}, sessionId = undefined) {
    const id = this.#nextId++
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }))
    this.#process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`)
    return await answer
  }

  async close() {
    const ended = once(this.#process, 'exit')
    await this.call('Browser.close').catch(() => undefined)
    await ended
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** Opens the workflow's page and takes a picture of its timeline and one of its current details. */
async function takePictures(url, directory) {
  const browser = await Browser.start()
  try {
    const { targetId } = await browser.call('Target.createTarget', { url: 'about:blank' })
    const { sessionId } = await browser.call('Target.attachToTarget', { targetId, flatten: true })
    const page = async (method, params) => await browser.call(method, params, sessionId)
    const evaluate = async (expression) => (await page('Runtime.evaluate', { expression, returnByValue: true })).result.value
    const show = async (address, text) => {
      await page('Page.navigate', { url: address })
      const deadline = Date.now() + LIMIT_MS
      while (!String(await evaluate('document.body?.innerText ?? ""')).includes(text)) {
        if (Date.now() > deadline) throw new Error(`${address} does not show "${text}"`)
        await sleep(250)
      }
      // Frames and fonts come after the text.
      await sleep(3_000)
    }
    const take = async (name) => {
      const { data } = await page('Page.captureScreenshot', { format: 'png' })
      const file = join(directory, name)
      writeFileSync(file, Buffer.from(data, 'base64'))
      console.log(`written: ${file}`)
    }
    await page('Emulation.setDeviceMetricsOverride', VIEW)
    await show(url, 'replicateSlice')
    await take('temporal-ui.png')
    // The page has put the run's id into its address.
    const run = /^.*\/workflows\/[^/]+\/[0-9a-f-]{36}/.exec(await evaluate('location.href'))
    if (run === null) throw new Error('the page has no address of a run')
    await show(`${run[0]}/user-metadata`, 'Current Details')
    await take('temporal-ui-details.png')
  } finally {
    await browser.close()
  }
}

/** Runs the demo until it says where its workflow is seen; `end` is Ctrl-C. */
async function runDemo() {
  const demo = spawn('npm', ['run', 'demo', '--', '--keep'], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'], detached: true })
  let output = ''
  // Not closed at the return: the demo goes on writing.
  for await (const chunk of demo.stdout.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
    process.stdout.write(chunk)
    output += chunk
    const url = /Temporal UI +(http\S+)/.exec(output)?.[1]
    if (url === undefined || !output.includes('Ctrl-C')) continue
    demo.stdout.resume()
    const end = async () => {
      process.kill(-demo.pid, 'SIGINT')
      await once(demo, 'exit')
    }
    return { url, end }
  }
  throw new Error('the demo ended before its workflow could be seen')
}

const { positionals } = parseArgs({ allowPositionals: true })
const demo = positionals[0] === undefined ? await runDemo() : { url: positionals[0], end: async () => undefined }
try {
  // A few slices more, so that there is something in the history.
  if (positionals[0] === undefined) await sleep(45_000)
  await takePictures(demo.url, join(root, 'docs/images'))
} finally {
  await demo.end()
}
