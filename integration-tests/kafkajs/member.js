// A member of a group that reads, processes and writes in transactions, with KafkaJS. The contract is in ../README.md.
'use strict'

const { parseArgs } = require('node:util')
const { Kafka, logLevel } = require('kafkajs')

const BATCH = 5
const ABORT_EVERY = 6
// What a member that was killed has left open keeps its partitions' offsets back for as long.
const TRANSACTION_TIMEOUT_MS = 6000

const names = ['bootstrap', 'transactional-id', 'out', 'in', 'group']
const { values: options } = parseArgs({
  args: process.argv.slice(3),
  options: Object.fromEntries(names.map(name => [name, { type: 'string' }])),
})

const kafka = new Kafka({
  clientId: options['transactional-id'],
  brokers: options.bootstrap.split(','),
  requestTimeout: 10000,
  enforceRequestTimeout: true,
  retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 20 },
  // Standard output is the protocol with the harness.
  logLevel: logLevel.WARN,
  logCreator: () => ({ log, namespace }) => console.error(`${log.timestamp} ${namespace} ${log.message} ${log.error ?? ''}`),
})
const admin = kafka.admin()
const consumer = kafka.consumer({
  groupId: options.group,
  sessionTimeout: 6000,
  rebalanceTimeout: 10000,
  heartbeatInterval: 500,
  maxWaitTimeInMs: 200,
})
// By partition: a producer, and the offset that the group has come to.
const workers = new Map()
let transactions = 0
let committed = 0

// Fences the last owner's transactions, and only then asks where they have come to.
async function take(partition) {
  await drop(partition)
  const producer = kafka.producer({
    transactionalId: `${options['transactional-id']}-${partition}`,
    idempotent: true,
    maxInFlightRequests: 1,
    transactionTimeout: TRANSACTION_TIMEOUT_MS,
  })
  await producer.connect()
  const [{ partitions }] = await admin.fetchOffsets({ groupId: options.group, topics: [options.in] })
  const offset = partitions.find(found => found.partition === partition).offset
  const worker = { producer, offset: Math.max(Number(offset), 0) }
  workers.set(partition, worker)
  return worker
}

async function drop(partition) {
  const worker = workers.get(partition)
  workers.delete(partition)
  await worker?.producer.disconnect()
}

async function inTransaction({ producer }, partition, messages, aborts) {
  const transaction = await producer.transaction()
  for (const { value } of messages) {
    await transaction.send({ topic: options.out, acks: -1, messages: [{ partition, value }] })
  }
  const offset = String(Number(messages.at(-1).offset) + 1)
  await transaction.sendOffsets({
    consumerGroupId: options.group,
    topics: [{ topic: options.in, partitions: [{ partition, offset }] }],
  })
  await (aborts ? transaction.abort() : transaction.commit())
}

// One transaction; what is left to do of the messages.
async function processed(partition, messages) {
  const worker = workers.get(partition) ?? (await take(partition))
  messages = messages.filter(({ offset }) => Number(offset) >= worker.offset)
  const some = messages.slice(0, BATCH)
  if (some.length === 0) return []
  const aborts = ++transactions % ABORT_EVERY === 0
  await inTransaction(worker, partition, some, aborts)
  if (aborts) {
    console.log('aborted')
    return messages
  }
  worker.offset = Number(some.at(-1).offset) + 1
  committed += some.length
  console.log(`committed ${committed}`)
  return messages.slice(BATCH)
}

async function eachBatch({ batch, resolveOffset, heartbeat, isRunning, isStale }) {
  let { messages } = batch
  while (messages.length > 0 && isRunning() && !isStale()) {
    try {
      messages = await processed(batch.partition, messages)
    } catch (error) {
      // Committed or not: the next producer of this id learns it from the group's offset.
      console.error(`partition ${batch.partition}: ${error}`)
      await drop(batch.partition)
    }
    if (messages.length > 0) resolveOffset(String(Number(messages[0].offset) - 1))
    await heartbeat()
  }
  if (messages.length === 0) resolveOffset(batch.lastOffset())
}

async function main() {
  consumer.on(consumer.events.GROUP_JOIN, async ({ payload }) => {
    // What another member had meanwhile is taken anew.
    for (const partition of [...workers.keys()]) await drop(partition)
    const assigned = Object.values(payload.memberAssignment).flat().sort()
    console.log(`assigned ${assigned.join(',')}`)
  })
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    if (!payload.restart) process.exit(3)
  })
  process.on('SIGTERM', async () => {
    await consumer.disconnect()
    process.exit(0)
  })
  await admin.connect()
  await consumer.connect()
  await consumer.subscribe({ topic: options.in, fromBeginning: true })
  await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch })
}

main().catch(error => {
  console.error(`fatal: ${error}`)
  process.exit(3)
})
