// The checks with @confluentinc/kafka-javascript, by its interface that is KafkaJS's. The contract is in ../../README.md.
'use strict'

const crypto = require('node:crypto')
const { KafkaJS, features } = require('@confluentinc/kafka-javascript')
const { Skipped, wait, until, texts, expect, restartBroker, run } = require('./checks.js')

const { CompressionTypes, Kafka, logLevel } = KafkaJS

function checks(bootstrap, prefix) {
  const say = (message, extra) => console.error(message, extra ?? '')
  // Standard output is for the checks' lines.
  const logger = { info: say, warn: say, error: say, debug: () => {}, namespace: () => logger, setLogLevel: () => {} }
  const kafka = new Kafka({
    'reconnect.backoff.max.ms': 500,
    kafkaJS: { clientId: 'smoke', brokers: [bootstrap], logLevel: logLevel.WARN, logger },
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
  const withProducer = (options, work) =>
    using(kafka.producer({ kafkaJS: options, 'linger.ms': 20, 'message.max.bytes': 2000000 }), work)
  const withAdmin = work => using(kafka.admin(), work)

  async function newTopic(name, numPartitions = 1) {
    const topic = `${prefix}-${name}`
    await withAdmin(async admin => {
      await admin.createTopics({ topics: [{ topic, numPartitions, replicationFactor: 1 }] })
      await until('the topic', async () => (await admin.listTopics()).includes(topic))
    })
    return topic
  }

  const messages = (values, partition = 0) => values.map(value => ({ value, partition }))

  // A consumer that reads TOPIC from where its group is, and what it has got.
  async function withReader(topic, options, work) {
    const groupId = `${topic}-reader-${groups++}`
    const consumer = kafka.consumer({
      kafkaJS: { groupId, fromBeginning: true, autoCommit: false, sessionTimeout: 10000, heartbeatInterval: 300, ...options },
      'fetch.wait.max.ms': 200,
    })
    const got = []
    return using(consumer, async () => {
      await consumer.subscribe({ topic })
      await consumer.run({ eachMessage: async ({ message, partition }) => got.push({ ...message, partition }) })
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
    await withProducer({ compression }, producer => producer.send({ topic, messages: messages(texts(200)) }))
    expect('values', values(await read(topic, 200)), texts(200))
  }

  async function one(name, message) {
    const topic = await newTopic(name)
    await withProducer({}, producer => producer.send({ topic, messages: [{ partition: 0, ...message }] }))
    return (await read(topic, 1))[0]
  }

  const transactional = transactionalId => ({ transactionalId, idempotent: true })

  return {
    'codec-none': () => codec('none', CompressionTypes.None),
    'codec-gzip': () => codec('gzip', CompressionTypes.GZIP),
    'codec-snappy': () => codec('snappy', CompressionTypes.SNAPPY),
    'codec-lz4': () => codec('lz4', CompressionTypes.LZ4),
    async 'codec-zstd'() {
      if (!features.includes('zstd')) throw new Skipped('built without zstd, whose headers are not installed')
      await codec('zstd', CompressionTypes.ZSTD)
    },

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
      const seen = new Set()
      let sent = 0
      const shares = consumer => consumer.assignment().length
      await withProducer({}, producer =>
        withReader(topic, { groupId: topic }, async (first, firstGot) => {
          const more = async () => {
            for (let i = 0; i < 4; i++, sent += 10) await producer.send({ topic, messages: messages(texts(10, sent), i) })
          }
          await until('all partitions for the first', () => shares(first) === 4)
          await more()
          await withReader(topic, { groupId: topic }, async (second, secondGot) => {
            await until('two partitions each', () => shares(first) === 2 && shares(second) === 2)
            await more()
            await until('records for the second', () => secondGot.length > 0)
            values(secondGot).forEach(value => seen.add(value))
          })
          await more()
          await until('all partitions for the first again', () => shares(first) === 4)
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
      await withProducer({}, producer => producer.send({ topic, messages: messages(texts(20)) }))
      await withReader(topic, { groupId: topic }, async (consumer, got) => {
        await take(got, 20)
        await withProducer(transactional(topic), async producer => {
          for (const [offset, end] of [['10', 'commit'], ['20', 'abort']]) {
            const transaction = await producer.transaction()
            await transaction.send({ topic: out, messages: messages([offset]) })
            await transaction.sendOffsets({ consumer, topics: [{ topic, partitions: [{ partition: 0, offset }] }] })
            await transaction[end]()
          }
        })
        const [{ offset }] = await consumer.committed([{ topic, partition: 0 }], 30000)
        expect('committed offset', offset, '10')
      })
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
          const [found] = await admin.fetchTopicOffsetsByTimestamp(topic, base + after)
          expect(`offset ${after} ms later`, found.offset, offset)
        }
        const [{ high, low }] = await admin.fetchTopicOffsets(topic)
        expect('ends', { high, low }, { high: '10', low: '0' })
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
        const [{ partitions }] = await admin.fetchTopicMetadata({ topics: [topic] })
        expect('partitions', partitions.length, 3)
        await admin.deleteTopics({ topics: [topic] })
        await until("the topic's end", async () => !(await admin.listTopics()).includes(topic))
      })
    },

    'admin-config': () => {
      throw new Skipped("this library can't ask for settings")
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
  }
}

run(checks)
