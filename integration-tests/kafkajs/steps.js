// One transactional step at a time with KafkaJS, as the harness says. The contract is in ../README.md.
'use strict'

const readline = require('node:readline')
const { parseArgs } = require('node:util')
const { Kafka, logLevel } = require('kafkajs')

// A request without an answer is given up after this long.
const REQUEST_TIMEOUT_MS = 2500

const names = ['bootstrap', 'transactional-id', 'out', 'in', 'group', 'delivery-timeout-ms']
const { values: options } = parseArgs({
  args: process.argv.slice(3),
  options: Object.fromEntries(names.map(name => [name, { type: 'string' }])),
})
// KafkaJS counts tries, not time: an impatient client tries once more, the least it allows with idempotence.
const isImpatient = Number(options['delivery-timeout-ms']) < REQUEST_TIMEOUT_MS

const kafka = new Kafka({
  clientId: options['transactional-id'],
  brokers: options.bootstrap.split(','),
  requestTimeout: REQUEST_TIMEOUT_MS,
  enforceRequestTimeout: true,
  retry: { initialRetryTime: 100, maxRetryTime: 2000, retries: isImpatient ? 1 : 8 },
  // Standard output is the protocol with the harness.
  logLevel: logLevel.WARN,
  logCreator: () => ({ log, namespace }) => console.error(`${log.timestamp} ${namespace} ${log.message} ${log.error ?? ''}`),
})
const producer = kafka.producer({
  transactionalId: options['transactional-id'],
  idempotent: true,
  maxInFlightRequests: 1,
  transactionTimeout: 60000,
})
let transaction
// After a lost connection KafkaJS can stay without its coordinator until there is a new producer, also against Apache Kafka;
// and it aborts on its own what the broker may still come to know of. So a producer that has failed is not used again.
let isBroken = false

const steps = {
  async begin() {
    transaction = await producer.transaction()
  },
  async send(partition, value) {
    await transaction.send({ topic: options.out, acks: -1, messages: [{ partition: Number(partition), value }] })
  },
  async offsets(offset) {
    await transaction.sendOffsets({
      consumerGroupId: options.group,
      topics: [{ topic: options.in, partitions: [{ partition: 0, offset }] }],
    })
  },
  async commit() {
    await transaction.commit()
  },
  async abort() {
    await transaction.abort()
    if (isBroken) throw new Error('a new producer is needed')
  },
}

// Where a transaction of the one before is still to be ended, KafkaJS says so once its tries are over.
async function initialised() {
  for (let tries = 0; ; tries++) {
    try {
      return await producer.connect()
    } catch (error) {
      if (tries >= 50) throw error
      await new Promise(resolve => setTimeout(resolve, 200))
    }
  }
}

async function main() {
  await initialised()
  console.log('ok')
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [word, ...rest] = line.trim().split(' ')
    try {
      await steps[word](...rest)
      console.log('ok')
    } catch (error) {
      isBroken = true
      console.log(`failed ${String(error).replaceAll('\n', ' ')}`)
    }
  }
  // Not disconnect(): it waits for what a failed transaction has left.
  process.exit(0)
}

main().catch(error => {
  console.log(`failed ${String(error).replaceAll('\n', ' ')}`)
  process.exit(1)
})
