// Runs the checks of one JavaScript library and prints a line for each. The contract is in ../README.md.
// `build` puts it next to the library's driver.
'use strict'

const assert = require('node:assert')
const readline = require('node:readline')
const { parseArgs } = require('node:util')

const CHECKS = [
  'codec-none', 'codec-gzip', 'codec-snappy', 'codec-lz4', 'codec-zstd', 'group-consume', 'group-rebalance', 'idempotence',
  'transaction-commit-abort', 'transaction-offsets', 'seek', 'timestamp-lookup', 'headers', 'large-record', 'empty-record',
  'tombstone', 'admin-topics', 'admin-config', 'reconnect',
]
// A check that takes longer than this hangs.
const LIMIT_MS = 120000

// The library can't do what the check asks for.
class Skipped extends Error {}

const wait = ms => new Promise(resolve => setTimeout(resolve, ms))

// What CONDITION returns once that is true.
async function until(what, condition, ms = 30000) {
  for (const deadline = Date.now() + ms; ; await wait(50)) {
    const result = await condition()
    if (result) return result
    if (Date.now() > deadline) throw new Error(`${what} did not come about`)
  }
}

// Records that compress well.
const texts = (count, start = 0) => Array.from({ length: count }, (_, i) => `record ${start + i} `.repeat(10))

function expect(what, got, wanted) {
  try {
    assert.deepStrictEqual(got, wanted)
  } catch {
    const shown = value => require('node:util').inspect(value, { breakLength: Infinity }).slice(0, 200)
    throw new Error(`${what}: ${shown(got)} instead of ${shown(wanted)}`)
  }
}

const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]()

// Ends once the broker was killed and started again; skips where it is not ours.
async function restartBroker() {
  console.log('restart')
  if ((await answers.next()).value !== 'restarted') throw new Skipped("this broker can't be restarted")
}

async function one(check) {
  let timer
  const limit = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no end within ${LIMIT_MS / 1000} s`)), LIMIT_MS)
  })
  try {
    await Promise.race([check(), limit])
    return ['ok', '']
  } catch (error) {
    const text = error instanceof Skipped ? error.message : `${error?.name}: ${error?.message} ${error?.cause?.message ?? ''}`
    return [error instanceof Skipped ? 'skipped' : 'failed', `: ${text.trim().replaceAll(/\s+/g, ' ')}`]
  } finally {
    clearTimeout(timer)
  }
}

// CHECKS_OF(BOOTSTRAP, PREFIX) has a function for each of CHECKS, and may have more of them.
async function run(checksOf) {
  const { values } = parseArgs({ options: { bootstrap: { type: 'string' }, prefix: { type: 'string' } } })
  process.on('unhandledRejection', error => console.error('unhandled', error))
  process.on('uncaughtException', error => console.error('uncaught', error))
  const checks = checksOf(values.bootstrap, values.prefix)
  let failed = false
  for (const name of new Set([...CHECKS, ...Object.keys(checks)])) {
    const [word, reason] = await one(async () => checks[name]())
    failed ||= word === 'failed'
    console.log(`${word} ${name}${reason}`)
  }
  // The library's timers may still run.
  process.exit(failed ? 1 : 0)
}

module.exports = { Skipped, wait, until, texts, expect, restartBroker, run }
