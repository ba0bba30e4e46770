"""The checks with aiokafka. The contract is in ../../README.md."""

import asyncio
import logging
import os
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

import checks
from checks import expect, texts


async def until(what, condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (result := await condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come about")
        await asyncio.sleep(0.05)
    return result


class Client:
    def __init__(self, bootstrap, prefix):
        self.bootstrap = bootstrap
        self.prefix = prefix

    def __getattr__(self, name):
        """The check NAME: its coroutine run to the end."""
        check = getattr(type(self), f"check_{name}", None)
        if check is None:
            raise AttributeError(name)
        return lambda: asyncio.run(check(self))

    @asynccontextmanager
    async def opened(self, kind, *positional, **options):
        client = kind(*positional, bootstrap_servers=self.bootstrap, **options)
        await client.start()
        try:
            yield client
        finally:
            if kind is AIOKafkaAdminClient:
                await client.close()
            else:
                await client.stop()

    def admin(self):
        return self.opened(AIOKafkaAdminClient)

    def producer(self, **options):
        return self.opened(AIOKafkaProducer, **options)

    def consumer(self, *topics, **options):
        return self.opened(AIOKafkaConsumer, *topics, **{"auto_offset_reset": "earliest", **options})

    async def topic(self, name, partitions=1):
        topic = f"{self.prefix}-{name}"
        async with self.admin() as admin:
            await admin.create_topics([NewTopic(topic, partitions, 1)])
        return topic

    async def send(self, topic, values, **options):
        async with self.producer(**options) as producer:
            await self.send_with(producer, topic, values)

    @staticmethod
    async def send_with(producer, topic, values, partition=0):
        sent = [await producer.send(topic, value, partition=partition) for value in values]
        await asyncio.gather(*sent)

    @staticmethod
    async def take(consumer, count, seconds=30):
        """The next COUNT records; then there must be no further one."""
        records = []
        deadline = time.monotonic() + seconds
        while len(records) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(records)} of {count} records came")
            for some in (await consumer.getmany(timeout_ms=500)).values():
                records += some
        for some in (await consumer.getmany(timeout_ms=300)).values():
            records += some
        expect("records", len(records), count)
        return records

    async def read(self, topic, count, **options):
        async with self.consumer(**options) as consumer:
            partition = TopicPartition(topic, 0)
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            return await self.take(consumer, count)

    async def codec(self, name):
        topic = await self.topic(f"codec-{name}")
        await self.send(topic, texts(200), compression_type=None if name == "none" else name)
        expect("values", [record.value for record in await self.read(topic, 200)], texts(200))

    async def check_codec_none(self):
        await self.codec("none")

    async def check_codec_gzip(self):
        await self.codec("gzip")

    async def check_codec_snappy(self):
        await self.codec("snappy")

    async def check_codec_lz4(self):
        await self.codec("lz4")

    async def check_codec_zstd(self):
        await self.codec("zstd")

    async def check_group_consume(self):
        topic = await self.topic("group", 3)
        options = {"group_id": topic, "enable_auto_commit": False}
        async with self.producer() as producer:
            for partition in range(3):
                await self.send_with(producer, topic, texts(50, partition * 50), partition)
            async with self.consumer(topic, **options) as consumer:
                got = await self.take(consumer, 150)
                expect("values", sorted(record.value for record in got), sorted(texts(150)))
                await consumer.commit()
            await self.send_with(producer, topic, texts(10, 150), 1)
            async with self.consumer(topic, **options) as consumer:
                got = await self.take(consumer, 10)
                expect("values after the commit", [record.value for record in got], texts(10, 150))

    async def check_group_rebalance(self):
        topic = await self.topic("rebalance", 4)
        options = {"group_id": topic, "heartbeat_interval_ms": 300, "session_timeout_ms": 10000, "metadata_max_age_ms": 1000}
        seen = set()
        sent = 0

        async def drain(consumer):
            for some in (await consumer.getmany(timeout_ms=100)).values():
                seen.update(record.value for record in some)

        async def some_more(producer):
            nonlocal sent
            for partition in range(4):
                await self.send_with(producer, topic, texts(10, sent), partition)
                sent += 10

        async def shares(wanted, *consumers):
            async def reached():
                for consumer in consumers:
                    await drain(consumer)
                return [len(consumer.assignment()) for consumer in consumers] == wanted

            await until(f"an assignment of {wanted}", reached)

        async with self.producer() as producer, self.consumer(topic, **options) as first:
            await shares([4], first)
            await some_more(producer)
            async with self.consumer(topic, **options) as second:
                await shares([2, 2], first, second)
                await some_more(producer)
                for consumer in (first, second, first, second):
                    await drain(consumer)
            await some_more(producer)
            await shares([4], first)

            async def all_seen():
                await drain(first)
                return len(seen) == sent

            await until("every record", all_seen)

    async def check_idempotence(self):
        topic = await self.topic("idempotence")
        await self.send(topic, texts(500), enable_idempotence=True)
        expect("values", [record.value for record in await self.read(topic, 500)], texts(500))

    async def check_transaction_commit_abort(self):
        topic = await self.topic("transaction")
        async with self.producer(transactional_id=topic) as producer:
            for start, ends in ((0, True), (5, False), (10, True)):
                await producer.begin_transaction()
                await self.send_with(producer, topic, texts(5, start))
                await (producer.commit_transaction() if ends else producer.abort_transaction())
        committed = await self.read(topic, 10, isolation_level="read_committed")
        expect("read_committed", [record.value for record in committed], texts(5) + texts(5, 10))
        everything = await self.read(topic, 15, isolation_level="read_uncommitted")
        expect("read_uncommitted", [record.value for record in everything], texts(15))

    async def check_transaction_offsets(self):
        topic, out = await self.topic("offsets-in"), await self.topic("offsets-out")
        await self.send(topic, texts(20))
        partition = TopicPartition(topic, 0)
        options = {"group_id": topic, "enable_auto_commit": False, "isolation_level": "read_committed"}
        async with self.consumer(topic, **options) as consumer, self.producer(transactional_id=topic) as producer:
            await self.take(consumer, 20)
            for offset, ends in ((10, True), (20, False)):
                await producer.begin_transaction()
                await self.send_with(producer, out, texts(1, offset))
                await producer.send_offsets_to_transaction({partition: offset}, topic)
                await (producer.commit_transaction() if ends else producer.abort_transaction())
            expect("committed offset", await consumer.committed(partition), 10)
        await self.read(out, 1, isolation_level="read_committed")

    async def check_seek(self):
        topic = await self.topic("seek")
        await self.send(topic, texts(100))
        partition = TopicPartition(topic, 0)
        async with self.consumer() as consumer:
            consumer.assign([partition])
            for offset in (42, 99, 7):
                consumer.seek(partition, offset)
                expect("offset", (await consumer.getone()).offset, offset)
            await consumer.seek_to_beginning(partition)
            expect("first", (await consumer.getone()).offset, 0)
            await consumer.seek_to_end(partition)
            expect("end", await consumer.position(partition), 100)

    async def check_timestamp_lookup(self):
        topic = await self.topic("timestamps")
        base = int(time.time() * 1000) - 100_000
        async with self.producer() as producer:
            for i in range(10):
                await producer.send_and_wait(topic, b"x", partition=0, timestamp_ms=base + i * 1000)
        partition = TopicPartition(topic, 0)
        async with self.consumer() as consumer:
            for after, offset in ((0, 0), (4500, 5), (9000, 9)):
                found = (await consumer.offsets_for_times({partition: base + after}))[partition]
                expect(f"offset {after} ms later", (found.offset, found.timestamp), (offset, base + offset * 1000))
            expect("past the end", (await consumer.offsets_for_times({partition: base + 10_000}))[partition], None)
            expect("beginning", await consumer.beginning_offsets([partition]), {partition: 0})
            expect("end", await consumer.end_offsets([partition]), {partition: 10})

    async def one(self, name, **record):
        topic = await self.topic(name)
        async with self.producer(max_request_size=2_000_000) as producer:
            await producer.send_and_wait(topic, partition=0, **record)
        [got] = await self.read(topic, 1, max_partition_fetch_bytes=2_000_000)
        return got

    async def check_headers(self):
        headers = [("a", b"1"), ("a", b"2"), ("empty", b""), ("null", None), ("binary", bytes(range(256)))]
        got = await self.one("headers", value=b"x", headers=headers)
        expect("headers", list(got.headers), headers)

    async def check_large_record(self):
        value = os.urandom(900_000)
        got = await self.one("large", key=b"k", value=value)
        expect("same value", got.value == value, True)

    async def check_empty_record(self):
        got = await self.one("empty", key=b"", value=b"")
        expect("key and value", (got.key, got.value), (b"", b""))

    async def check_tombstone(self):
        got = await self.one("tombstone", key=b"k", value=None)
        expect("key and value", (got.key, got.value), (b"k", None))

    async def check_admin_topics(self):
        topic = await self.topic("admin", 3)
        async with self.admin() as admin:
            [description] = await admin.describe_topics([topic])
            expect("partitions", len(description["partitions"]), 3)
            expect("listed", topic in await admin.list_topics(), True)
            await admin.delete_topics([topic])

            # Not by describing it: that creates it anew where topics are created when they are asked for.
            async def gone():
                return topic not in await admin.list_topics()

            await until("the topic's end", gone)

    async def check_admin_config(self):
        topic = await self.topic("config")
        async with self.admin() as admin:
            resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "123456"})
            await admin.alter_configs([resource])
            [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            [(error, _, _, _, entries)] = response.resources
            expect("error", error, 0)
            expect("retention.ms", {entry[0]: entry[1] for entry in entries}["retention.ms"], "123456")

    async def check_reconnect(self):
        topic = await self.topic("reconnect")
        options = {"group_id": topic, "enable_auto_commit": False}
        async with self.producer(enable_idempotence=True) as producer, self.consumer(topic, **options) as consumer:
            await self.send_with(producer, topic, texts(10))
            await self.take(consumer, 10)
            await asyncio.get_running_loop().run_in_executor(None, checks.restart_broker)
            await self.send_with(producer, topic, texts(10, 10))
            got = await self.take(consumer, 10)
            expect("values", [record.value for record in got], texts(10, 10))
        everything = await self.read(topic, 20)
        expect("all values", [record.value for record in everything], texts(20))


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    checks.run(Client(*checks.arguments()))
