// The checks with KafkaJS. The contract is in ../../README.md.
'use strict'

const crypto = require('node:crypto')
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs')
const SnappyCodec = require('kafkajs-snappy')
const { Skipped, wait, until, texts, expect, restartBroker, run } = require('./checks.js')

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec

function checks(bootstrap, prefix) {
  const kafka = new Kafka({
    clientId: 'smoke',
    brokers: [bootstrap],
    retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 60 },
    // Standard output is for the checks' lines.
    logLevel: logLevel.WARN,
    logCreator: () => ({ log, namespace }) => console.error(`${log.timestamp} ${namespace} ${log.message} ${log.error ?? ''}`),
  })
  let groups = 0

  async function using(client, work) {
    await client.connect()
    try {
      return await work(client)
    } finally {
      await client.disconnect()
    }
  }
  const withProducer = (options, work) => using(kafka.producer(options), work)
  const withAdmin = work => using(kafka.admin(), work)

  async function newTopic(name, numPartitions = 1) {
    const topic = `${prefix}-${name}`
    await withAdmin(admin => admin.createTopics({ topics: [{ topic, numPartitions, replicationFactor: 1 }] }))
    return topic
  }

  const messages = (values, partition = 0) => values.map(value => ({ value, partition }))

  // A consumer that reads TOPIC from where its group is, and what it has got.
  async function withReader(topic, options, work) {
    const consumer = kafka.consumer({ groupId: `${topic}-reader-${groups++}`, maxWaitTimeInMs: 200, ...options })
    const got = []
    consumer.shares = 0
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      consumer.shares = Object.values(payload.memberAssignment).flat().length
    })
    return using(consumer, async () => {
      await consumer.subscribe({ topic, fromBeginning: true })
      await consumer.run({ autoCommit: false, eachMessage: async ({ message, partition }) => got.push({ ...message, partition }) })
      return work(consumer, got)
    })
  }

  // COUNT records; then there must be no further one.
  async function take(got, count) {
    await until(`${count} records`, () => got.length >= count)
    await wait(300)
    expect('records', got.length, count)
    return got.splice(0)
  }

  const read = (topic, count, options = {}) => withReader(topic, options, (_, got) => take(got, count))
  const values = records => records.map(({ value }) => value.toString())

  async function codec(name, compression) {
    const topic = await newTopic(`codec-${name}`)
    await withProducer({}, producer => producer.send({ topic, compression, messages: messages(texts(200)) }))
    expect('values', values(await read(topic, 200)), texts(200))
  }

  async function one(name, message) {
    const topic = await newTopic(name)
    await withProducer({}, producer => producer.send({ topic, messages: [{ partition: 0, ...message }] }))
    return (await read(topic, 1))[0]
  }

  const transactional = transactionalId => ({ transactionalId, idempotent: true, maxInFlightRequests: 1 })
  const native = name => () => {
    throw new Skipped(`KafkaJS has no ${name}; it takes a plug-in that compiles native code`)
  }

  return {
    'codec-none': () => codec('none', CompressionTypes.None),
    'codec-gzip': () => codec('gzip', CompressionTypes.GZIP),
    'codec-snappy': () => codec('snappy', CompressionTypes.Snappy),
    'codec-lz4': native('lz4'),
    'codec-zstd': native('zstd'),

    async 'group-consume'() {
      const topic = await newTopic('group', 3)
      await withProducer({}, async producer => {
        for (let i = 0; i < 3; i++) await producer.send({ topic, messages: messages(texts(50, i * 50), i) })
        await withReader(topic, { groupId: topic }, async (consumer, got) => {
          expect('values', values(await take(got, 150)).sort(), texts(150).sort())
          await consumer.commitOffsets([0, 1, 2].map(partition => ({ topic, partition, offset: '50' })))
        })
        await producer.send({ topic, messages: messages(texts(10, 150), 1) })
        await withReader(topic, { groupId: topic }, async (_, got) => {
          expect('values after the commit', values(await take(got, 10)), texts(10, 150))
        })
      })
    },

    async 'group-rebalance'() {
      const topic = await newTopic('rebalance', 4)
      const options = { groupId: topic, heartbeatInterval: 300, sessionTimeout: 10000 }
      const seen = new Set()
      let sent = 0
      await withProducer({}, producer =>
        withReader(topic, options, async (first, firstGot) => {
          const more = async () => {
            for (let i = 0; i < 4; i++, sent += 10) await producer.send({ topic, messages: messages(texts(10, sent), i) })
          }
          await until('all partitions for the first', () => first.shares === 4)
          await more()
          await withReader(topic, options, async (second, secondGot) => {
            await until('two partitions each', () => first.shares === 2 && second.shares === 2)
            await more()
            await until('records for the second', () => secondGot.length > 0)
            values(secondGot).forEach(value => seen.add(value))
          })
          await more()
          await until('all partitions for the first again', () => first.shares === 4)
          await until('every record', () => new Set([...seen, ...values(firstGot)]).size === sent)
        }))
    },

    async idempotence() {
      const topic = await newTopic('idempotence')
      await withProducer({ idempotent: true }, async producer => {
        for (let i = 0; i < 10; i++) await producer.send({ topic, messages: messages(texts(50, i * 50)) })
      })
      expect('values', values(await read(topic, 500)), texts(500))
    },

    async 'transaction-commit-abort'() {
      const topic = await newTopic('transaction')
      await withProducer(transactional(topic), async producer => {
        for (const [start, end] of [[0, 'commit'], [5, 'abort'], [10, 'commit']]) {
          const transaction = await producer.transaction()
          await transaction.send({ topic, messages: messages(texts(5, start)) })
          await transaction[end]()
        }
      })
      expect('read_committed', values(await read(topic, 10)), [...texts(5), ...texts(5, 10)])
      expect('read_uncommitted', values(await read(topic, 15, { readUncommitted: true })), texts(15))
    },

    async 'transaction-offsets'() {
      const topic = await newTopic('offsets-in')
      const out = await newTopic('offsets-out')
      await withProducer(transactional(topic), async producer => {
        for (const [offset, end] of [['10', 'commit'], ['20', 'abort']]) {
          const transaction = await producer.transaction()
          await transaction.send({ topic: out, messages: messages([offset]) })
          await transaction.sendOffsets({ consumerGroupId: topic, topics: [{ topic, partitions: [{ partition: 0, offset }] }] })
          await transaction[end]()
        }
      })
      const [{ partitions }] = await withAdmin(admin => admin.fetchOffsets({ groupId: topic, topics: [topic] }))
      expect('committed offset', partitions[0].offset, '10')
      expect('output', values(await read(out, 1)), ['10'])
    },

    async seek() {
      const topic = await newTopic('seek')
      await withProducer({}, producer => producer.send({ topic, messages: messages(texts(100)) }))
      await withReader(topic, {}, async (consumer, got) => {
        await take(got, 100)
        for (const offset of [42, 99, 7, 0]) {
          consumer.seek({ topic, partition: 0, offset: String(offset) })
          expect('first', (await take(got, 100 - offset))[0].offset, String(offset))
        }
      })
    },

    async 'timestamp-lookup'() {
      const topic = await newTopic('timestamps')
      const base = Date.now() - 100000
      const stamped = Array.from({ length: 10 }, (_, i) => ({ value: 'x', partition: 0, timestamp: String(base + i * 1000) }))
      await withProducer({}, producer => producer.send({ topic, messages: stamped }))
      await withAdmin(async admin => {
        // Past the end the library asks for the end.
        for (const [after, offset] of [[0, '0'], [4500, '5'], [9000, '9'], [10000, '10']]) {
          const found = await admin.fetchTopicOffsetsByTimestamp(topic, base + after)
          expect(`offset ${after} ms later`, found, [{ partition: 0, offset }])
        }
        expect('ends', await admin.fetchTopicOffsets(topic), [{ partition: 0, offset: '10', high: '10', low: '0' }])
      })
    },

    async headers() {
      const binary = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
      const { headers } = await one('headers', { value: 'x', headers: { a: ['1', '2'], empty: '', binary } })
      expect('headers', { ...headers }, { a: [Buffer.from('1'), Buffer.from('2')], empty: Buffer.alloc(0), binary })
    },

    async 'large-record'() {
      const value = crypto.randomBytes(900000)
      expect('same value', (await one('large', { key: 'k', value })).value.equals(value), true)
    },

    async 'empty-record'() {
      const { key, value } = await one('empty', { key: '', value: '' })
      expect('key and value', [key, value], [Buffer.alloc(0), Buffer.alloc(0)])
    },

    async tombstone() {
      const { key, value } = await one('tombstone', { key: 'k', value: null })
      expect('key and value', [key, value], [Buffer.from('k'), null])
    },

    async 'admin-topics'() {
      const topic = await newTopic('admin', 3)
      await withAdmin(async admin => {
        const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
        expect('partitions', topics[0].partitions.length, 3)
        expect('listed', (await admin.listTopics()).includes(topic), true)
        await admin.deleteTopics({ topics: [topic] })
        await until("the topic's end", async () => !(await admin.listTopics()).includes(topic))
      })
    },

    async 'admin-config'() {
      const topic = await newTopic('config')
      const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
      await withAdmin(async admin => {
        const configEntries = [{ name: 'retention.ms', value: '123456' }]
        await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries }] })
        const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [resource] })
        const entry = resources[0].configEntries.find(({ configName }) => configName === 'retention.ms')
        expect('retention.ms', entry.configValue, '123456')
      })
    },

    async reconnect() {
      const topic = await newTopic('reconnect')
      await withProducer({ idempotent: true }, producer =>
        withReader(topic, { groupId: topic }, async (_, got) => {
          await producer.send({ topic, messages: messages(texts(10)) })
          await take(got, 10)
          await restartBroker()
          await producer.send({ topic, messages: messages(texts(10, 10)) })
          // It goes on where it was or, as it has not committed, at the beginning.
          await until('the records after the restart', () => values(got).includes(texts(1, 19)[0]))
        }))
      expect('all values', values(await read(topic, 20)), texts(20))
    },

    // A younger producer of the same id ends an older one's transaction and work.
    async 'transaction-fencing'() {
      const topic = await newTopic('fencing')
      await withProducer(transactional(topic), async older => {
        const left = await older.transaction()
        await left.send({ topic, messages: messages(texts(5)) })
        await withProducer(transactional(topic), async younger => {
          const transaction = await younger.transaction()
          await transaction.send({ topic, messages: messages(texts(5, 5)) })
          const refusal = await left.commit().then(() => 'none', error => error.type ?? error.cause?.type)
          expect('fenced', ['PRODUCER_FENCED', 'INVALID_PRODUCER_EPOCH'].includes(refusal), true)
          await transaction.commit()
        })
      })
      expect('read_committed', values(await read(topic, 5)), texts(5, 5))
      expect('read_uncommitted', values(await read(topic, 10, { readUncommitted: true })), texts(10))
    },

    // Every fourth transaction is aborted and done again, and the consumer is started again half-way.
    async 'read-process-write'() {
      const [topic, out] = [await newTopic('process-in', 4), await newTopic('process-out', 4)]
      const count = 2000
      const ids = Array.from({ length: count }, (_, i) => String(i))
      await withProducer({ idempotent: true }, async producer => {
        // In batches of 50: one is the least that a fetch brings.
        for (let from = 0; from < count; from += 200) {
          for (let i = 0; i < 4; i++) await producer.send({ topic, messages: messages(ids.slice(from, from + 200).filter(id => id % 4 === i), i) })
        }
      })
      await withProducer(transactional(topic), async producer => {
        let [transactions, done] = [0, 0]
        for (const goal of [count / 2, count]) {
          const consumer = kafka.consumer({ groupId: topic, maxWaitTimeInMs: 200, maxBytesPerPartition: 1000, sessionTimeout: 10000 })
          await using(consumer, async () => {
            await consumer.subscribe({ topic, fromBeginning: true })
            await consumer.run({
              autoCommit: false,
              async eachBatch({ batch: { partition, messages: records }, resolveOffset, heartbeat, isStale }) {
                if (done >= goal || isStale()) return
                const offset = String(Number(records.at(-1).offset) + 1)
                for (let aborts = transactions++ % 4 === 3; ; aborts = false) {
                  const transaction = await producer.transaction()
                  await transaction.send({ topic: out, messages: messages(records.map(({ value }) => value), partition) })
                  await transaction.sendOffsets({ consumerGroupId: topic, topics: [{ topic, partitions: [{ partition, offset }] }] })
                  await (aborts ? transaction.abort() : transaction.commit())
                  if (!aborts) break
                }
                done += records.length
                resolveOffset(records.at(-1).offset)
                await heartbeat()
              },
            })
            await until(`${goal} records`, () => done >= goal)
          })
        }
        expect('transactions enough to abort some', transactions > 8, true)
      })
      const got = await read(out, count)
      expect('ids', values(got).map(Number).sort((a, b) => a - b), ids.map(Number))
      for (let i = 0; i < 4; i++) {
        const partition = values(got.filter(({ partition }) => partition === i))
        expect('in order', partition, ids.filter(id => id % 4 === i))
      }
      const [{ partitions }] = await withAdmin(admin => admin.fetchOffsets({ groupId: topic, topics: [topic] }))
      expect('offsets', partitions.map(({ offset }) => offset), Array(4).fill(String(count / 4)))
    },

    async 'group-state'() {
      const topic = await newTopic('state', 2)
      const state = () => withAdmin(async admin => (await admin.describeGroups([topic])).groups[0])
      await withReader(topic, { groupId: topic }, async consumer => {
        await until('a share', () => consumer.shares === 2)
        const { state: word, members, protocolType } = await state()
        expect('group', [word, members.length, protocolType], ['Stable', 1, 'consumer'])
        expect('listed', await withAdmin(async admin => (await admin.listGroups()).groups.some(({ groupId }) => groupId === topic)), true)
        await consumer.commitOffsets([{ topic, partition: 0, offset: '0' }])
      })
      expect('without members', (await state()).state, 'Empty')
      await withAdmin(admin => admin.deleteGroups([topic]))
      expect('deleted', (await state()).state, 'Dead')
    },

    async 'delete-records'() {
      const topic = await newTopic('delete-records')
      await withProducer({}, producer => producer.send({ topic, messages: messages(texts(10)) }))
      await withAdmin(async admin => {
        // The library deletes only where it has asked for the topic before.
        expect('ends before', await admin.fetchTopicOffsets(topic), [{ partition: 0, offset: '10', high: '10', low: '0' }])
        await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] })
        expect('ends', await admin.fetchTopicOffsets(topic), [{ partition: 0, offset: '10', high: '10', low: '4' }])
      })
      expect('what is left', values(await read(topic, 6)), texts(6, 4))
    },
  }
}

run(checks)
