// The checks with @platformatic/kafka. The contract is in ../../README.md.
'use strict'

const crypto = require('node:crypto')
const zlib = require('node:zlib')
const { Skipped, wait, until, texts, expect, restartBroker, run } = require('./checks.js')

function checks(library, bootstrap, prefix) {
  const { Admin, Consumer, Producer, ConfigResourceTypes, FetchIsolationLevels, IncrementalAlterConfigOperationTypes } = library
  const base = { clientId: 'smoke', bootstrapBrokers: [bootstrap], retries: 100, retryDelay: 200 }
  let groups = 0

  async function using(client, work) {
    try {
      return await work(client)
    } finally {
      await client.close(true)
    }
  }
  const withProducer = (options, work) => using(new Producer({ ...base, ...options }), work)
  const withAdmin = work => using(new Admin(base), work)

  async function newTopic(name, partitions = 1) {
    const topic = `${prefix}-${name}`
    await withAdmin(admin => admin.createTopics({ topics: [topic], partitions, replicas: 1 }))
    return topic
  }

  const messages = (topic, values, partition = 0) => values.map(value => ({ topic, partition, value: Buffer.from(value) }))
  const send = (topic, values, options = {}) => withProducer(options, producer => producer.send({ messages: messages(topic, values), acks: -1 }))

  // A stream of TOPIC in a group, and what it has brought.
  async function withReader(topic, { consume, ...options }, work) {
    const consumer = new Consumer({
      ...base, groupId: `${topic}-reader-${groups++}`, autocommit: false, maxWaitTime: 200, sessionTimeout: 10000,
      heartbeatInterval: 300, rebalanceTimeout: 10000, ...options,
    })
    consumer.shares = () => (consumer.assignments ?? []).flatMap(({ partitions }) => partitions).length
    const got = []
    return using(consumer, async () => {
      const stream = await consumer.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', ...consume })
      stream.on('data', message => got.push(message))
      stream.on('error', error => console.error('stream', error))
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

  async function codec(compression) {
    const topic = await newTopic(`codec-${compression}`)
    await send(topic, texts(200), { compression })
    expect('values', values(await read(topic, 200)), texts(200))
  }

  async function one(name, message) {
    const topic = await newTopic(name)
    await withProducer({}, producer => producer.send({ messages: [{ topic, partition: 0, ...message }], acks: -1 }))
    return (await read(topic, 1))[0]
  }

  const transactional = transactionalId => ({ transactionalId, idempotent: true })

  return {
    'codec-none': () => codec('none'),
    'codec-gzip': () => codec('gzip'),
    'codec-snappy': () => codec('snappy'),
    'codec-lz4': () => codec('lz4'),
    async 'codec-zstd'() {
      if (!zlib.zstdCompressSync) throw new Skipped(`takes zstd from Node 22.15 or later, and this is ${process.version}`)
      await codec('zstd')
    },

    async 'group-consume'() {
      const topic = await newTopic('group', 3)
      await withProducer({}, async producer => {
        for (let i = 0; i < 3; i++) await producer.send({ messages: messages(topic, texts(50, i * 50), i) })
        await withReader(topic, { groupId: topic }, async (consumer, got) => {
          expect('values', values(await take(got, 150)).sort(), texts(150).sort())
          await consumer.commit({ offsets: [0, 1, 2].map(partition => ({ topic, partition, offset: 50n, leaderEpoch: 0 })) })
        })
        await producer.send({ messages: messages(topic, texts(10, 150), 1) })
        await withReader(topic, { groupId: topic }, async (_, got) => {
          expect('values after the commit', values(await take(got, 10)), texts(10, 150))
        })
      })
    },

    async 'group-rebalance'() {
      const topic = await newTopic('rebalance', 4)
      const seen = new Set()
      let sent = 0
      await withProducer({}, producer =>
        withReader(topic, { groupId: topic }, async (first, firstGot) => {
          const more = async () => {
            for (let i = 0; i < 4; i++, sent += 10) await producer.send({ messages: messages(topic, texts(10, sent), i) })
          }
          await until('all partitions for the first', () => first.shares() === 4)
          await more()
          await withReader(topic, { groupId: topic }, async (second, secondGot) => {
            await until('two partitions each', () => first.shares() === 2 && second.shares() === 2)
            await more()
            await until('records for the second', () => secondGot.length > 0)
            values(secondGot).forEach(value => seen.add(value))
          })
          await more()
          await until('all partitions for the first again', () => first.shares() === 4)
          await until('every record', () => new Set([...seen, ...values(firstGot)]).size === sent)
        }))
    },

    async idempotence() {
      const topic = await newTopic('idempotence')
      await withProducer({ idempotent: true }, async producer => {
        for (let i = 0; i < 10; i++) await producer.send({ messages: messages(topic, texts(50, i * 50)) })
      })
      expect('values', values(await read(topic, 500)), texts(500))
    },

    async 'transaction-commit-abort'() {
      const topic = await newTopic('transaction')
      await withProducer(transactional(topic), async producer => {
        for (const [start, end] of [[0, 'commit'], [5, 'abort'], [10, 'commit']]) {
          const transaction = await producer.beginTransaction()
          await transaction.send({ messages: messages(topic, texts(5, start)) })
          await transaction[end]()
        }
      })
      const committed = await read(topic, 10, { isolationLevel: FetchIsolationLevels.READ_COMMITTED })
      expect('read_committed', values(committed), [...texts(5), ...texts(5, 10)])
      const everything = await read(topic, 15, { isolationLevel: FetchIsolationLevels.READ_UNCOMMITTED })
      expect('read_uncommitted', values(everything), texts(15))
    },

    async 'transaction-offsets'() {
      const topic = await newTopic('offsets-in')
      const out = await newTopic('offsets-out')
      await send(topic, texts(20))
      await withReader(topic, { groupId: topic }, async (consumer, got) => {
        const input = await take(got, 20)
        await withProducer(transactional(topic), async producer => {
          for (const [last, end] of [[9, 'commit'], [19, 'abort']]) {
            const transaction = await producer.beginTransaction()
            await transaction.addConsumer(consumer)
            await transaction.send({ messages: messages(out, [String(last)]) })
            await transaction.addOffset(input[last])
            await transaction[end]()
          }
        })
        const committed = await consumer.listCommittedOffsets({ topics: [{ topic, partitions: [0] }] })
        expect('committed offset', committed.get(topic), [10n])
      })
      expect('output', values(await read(out, 1)), ['9'])
    },

    // A stream is told where to begin; there is no other way to go elsewhere.
    async seek() {
      const topic = await newTopic('seek')
      await send(topic, texts(100))
      for (const offset of [42, 99, 7, 0]) {
        const consume = { mode: 'manual', fallbackMode: 'fail', offsets: [{ topic, partition: 0, offset: BigInt(offset) }] }
        expect('first', (await read(topic, 100 - offset, { consume }))[0].offset, BigInt(offset))
      }
    },

    async 'timestamp-lookup'() {
      const topic = await newTopic('timestamps')
      const stamp = BigInt(Date.now() - 100000)
      const stamped = messages(topic, Array(10).fill('x')).map((message, i) => ({ ...message, timestamp: stamp + BigInt(i * 1000) }))
      await withProducer({}, producer => producer.send({ messages: stamped, acks: -1 }))
      await using(new Consumer({ ...base, groupId: topic }), async consumer => {
        for (const [after, offset] of [[0, 0n], [4500, 5n], [9000, 9n], [10000, -1n]]) {
          const found = await consumer.listOffsetsWithTimestamps({ topics: [topic], timestamp: stamp + BigInt(after) })
          const timestamp = offset < 0 ? -1n : stamp + offset * 1000n
          expect(`offset ${after} ms later`, found.get(topic).get(0), { offset, timestamp })
        }
        expect('beginning', (await consumer.listOffsets({ topics: [topic], timestamp: -2n })).get(topic), [0n])
        expect('end', (await consumer.listOffsets({ topics: [topic], timestamp: -1n })).get(topic), [10n])
      })
    },

    async headers() {
      const binary = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
      const headers = [['a', Buffer.from('1')], ['a', Buffer.from('2')], ['empty', Buffer.alloc(0)], ['binary', binary]]
        .map(([name, value]) => [Buffer.from(name), value])
      const got = await one('headers', { value: Buffer.from('x'), headers: new Map(headers) })
      expect('headers', [...got.headers], headers)
    },

    async 'large-record'() {
      const value = crypto.randomBytes(900000)
      expect('same value', (await one('large', { key: Buffer.from('k'), value })).value.equals(value), true)
    },

    async 'empty-record'() {
      const { key, value } = await one('empty', { key: Buffer.alloc(0), value: Buffer.alloc(0) })
      expect('key and value', [key, value], [Buffer.alloc(0), Buffer.alloc(0)])
    },

    async tombstone() {
      const { key, value } = await one('tombstone', { key: Buffer.from('k'), value: null })
      expect('key and value', [key, value], [Buffer.from('k'), undefined])
    },

    async 'admin-topics'() {
      const topic = await newTopic('admin', 3)
      await withAdmin(async admin => {
        const { topics } = await admin.metadata({ topics: [topic] })
        expect('partitions', topics.get(topic).partitionsCount, 3)
        expect('listed', (await admin.listTopics()).includes(topic), true)
        await admin.deleteTopics({ topics: [topic] })
        await until("the topic's end", async () => !(await admin.listTopics()).includes(topic))
      })
    },

    async 'admin-config'() {
      const topic = await newTopic('config')
      const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: topic }
      await withAdmin(async admin => {
        const configs = [{ name: 'retention.ms', value: '123456', configOperation: IncrementalAlterConfigOperationTypes.SET }]
        await admin.incrementalAlterConfigs({ resources: [{ ...resource, configs }] })
        const [described] = await admin.describeConfigs({ resources: [{ ...resource, configurationKeys: ['retention.ms'] }] })
        expect('retention.ms', described.configs[0].value, '123456')
      })
    },

    async reconnect() {
      const topic = await newTopic('reconnect')
      await withProducer({ idempotent: true }, producer =>
        withReader(topic, { groupId: topic }, async (_, got) => {
          await producer.send({ messages: messages(topic, texts(10)) })
          await take(got, 10)
          await restartBroker()
          await producer.send({ messages: messages(topic, texts(10, 10)) })
          expect('values', values(await take(got, 10)), texts(10, 10))
        }))
      expect('all values', values(await read(topic, 20)), texts(20))
    },
  }
}

import('@platformatic/kafka').then(library => run((bootstrap, prefix) => checks(library, bootstrap, prefix)))
