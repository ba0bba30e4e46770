"""The checks with confluent-kafka for Python. The contract is in ../../README.md."""

import logging
import os
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

import checks
from checks import expect, texts, until

TIMEOUT = 30


class Client:
    more = ("transaction_codecs", "transaction_fencing", "transaction_open", "transaction_timeout")

    def __init__(self, bootstrap, prefix):
        self.bootstrap = bootstrap
        self.prefix = prefix
        # The library drops the answers to a client that is no longer held.
        self.admin = AdminClient(self.config())

    def config(self, **options):
        # With the default, rebootstrap, librdkafka 2.16 can wait for ever in send_offsets_to_transaction (../../README.md).
        config = {"bootstrap.servers": self.bootstrap, "reconnect.backoff.max.ms": 500, "metadata.recovery.strategy": "none"}
        return config | {name.replace("_", "."): value for name, value in options.items()}

    @contextmanager
    def producer(self, **options):
        producer = Producer(self.config(**{"acks": "all", "linger_ms": 2, "message_max_bytes": 2_000_000, **options}))
        if "transactional_id" in options:
            producer.init_transactions(TIMEOUT)
        yield producer
        producer.purge()

    def consumer(self, *topics, **options):
        defaults = {"group_id": f"{self.prefix}-none", "auto_offset_reset": "earliest", "enable_auto_commit": False}
        intervals = {"heartbeat_interval_ms": 300, "session_timeout_ms": 10_000, "fetch_wait_max_ms": 200}
        consumer = Consumer(self.config(**{**defaults, **intervals, **options}))
        if topics:
            consumer.subscribe(list(topics))
        return closing(consumer)

    def topic(self, name, partitions=1):
        topic = f"{self.prefix}-{name}"
        [created] = self.admin.create_topics([NewTopic(topic, partitions, 1)]).values()
        created.result(TIMEOUT)
        return topic

    def send(self, topic, values, **options):
        with self.producer(**options) as producer:
            self.send_with(producer, topic, values)

    @staticmethod
    def send_with(producer, topic, values, partition=0, **record):
        delivered = []

        def note(error, message):
            delivered.append(error)

        for value in values:
            producer.produce(topic, value, partition=partition, on_delivery=note, **record)
        expect("records that are still on their way", producer.flush(TIMEOUT), 0)
        expect("delivery", delivered, [None] * len(values))

    @staticmethod
    def next(consumer, seconds):
        """The next record, or None. Errors that the library mends by itself are none."""
        message = consumer.poll(seconds)
        if message is None:
            return None
        if message.error() is not None:
            if message.error().fatal():
                raise KafkaException(message.error())
            return None
        return message

    def take(self, consumer, count, seconds=30):
        """The next COUNT records; then there must be no further one."""
        records = []
        deadline = time.monotonic() + seconds
        while len(records) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(records)} of {count} records came")
            if (message := self.next(consumer, 0.5)) is not None:
                records.append(message)
        expect("a further record", self.next(consumer, 0.3), None)
        return records

    def read(self, topic, count, **options):
        with self.consumer(**options) as consumer:
            consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
            return self.take(consumer, count)

    def values(self, topic, count, **options):
        return [record.value() for record in self.read(topic, count, **options)]

    def codec(self, name):
        topic = self.topic(f"codec-{name}")
        self.send(topic, texts(200), compression_type=name, linger_ms=100)
        expect("values", self.values(topic, 200), texts(200))

    def codec_none(self):
        self.codec("none")

    def codec_gzip(self):
        self.codec("gzip")

    def codec_snappy(self):
        self.codec("snappy")

    def codec_lz4(self):
        self.codec("lz4")

    def codec_zstd(self):
        self.codec("zstd")

    def group_consume(self):
        topic = self.topic("group", 3)
        with self.producer() as producer:
            for partition in range(3):
                self.send_with(producer, topic, texts(50, partition * 50), partition)
            with self.consumer(topic, group_id=topic) as consumer:
                got = self.take(consumer, 150)
                expect("values", sorted(record.value() for record in got), sorted(texts(150)))
                consumer.commit(asynchronous=False)
            self.send_with(producer, topic, texts(10, 150), 1)
            with self.consumer(topic, group_id=topic) as consumer:
                got = self.take(consumer, 10)
                expect("values after the commit", [record.value() for record in got], texts(10, 150))

    def group_rebalance(self):
        topic = self.topic("rebalance", 4)
        seen = set()
        sent = 0

        def drain(consumer):
            while (message := self.next(consumer, 0.1)) is not None:
                seen.add(message.value())

        def some_more(producer):
            nonlocal sent
            for partition in range(4):
                self.send_with(producer, topic, texts(10, sent), partition)
                sent += 10

        def shares(wanted, *consumers):
            def reached():
                for consumer in consumers:
                    drain(consumer)
                return [len(consumer.assignment()) for consumer in consumers] == wanted

            until(f"an assignment of {wanted}", reached)

        def all_seen():
            drain(first)
            return len(seen) == sent

        with self.producer() as producer, self.consumer(topic, group_id=topic) as first:
            shares([4], first)
            some_more(producer)
            with self.consumer(topic, group_id=topic) as second:
                shares([2, 2], first, second)
                some_more(producer)
                for consumer in (first, second):
                    drain(consumer)
            some_more(producer)
            shares([4], first)
            until("every record", all_seen)

    def idempotence(self):
        topic = self.topic("idempotence")
        self.send(topic, texts(500), enable_idempotence=True)
        expect("values", self.values(topic, 500), texts(500))

    def transaction_commit_abort(self):
        topic = self.topic("transaction")
        with self.producer(transactional_id=topic) as producer:
            for start, commits in ((0, True), (5, False), (10, True)):
                producer.begin_transaction()
                self.send_with(producer, topic, texts(5, start))
                (producer.commit_transaction if commits else producer.abort_transaction)(TIMEOUT)
        expect("read_committed", self.values(topic, 10, isolation_level="read_committed"), texts(5) + texts(5, 10))
        expect("read_uncommitted", self.values(topic, 15, isolation_level="read_uncommitted"), texts(15))

    def transaction_offsets(self):
        topic, out = self.topic("offsets-in"), self.topic("offsets-out")
        self.send(topic, texts(20))
        with self.consumer(topic, group_id=topic) as consumer, self.producer(transactional_id=topic) as producer:
            self.take(consumer, 20)
            for offset, commits in ((10, True), (20, False)):
                producer.begin_transaction()
                self.send_with(producer, out, texts(1, offset))
                offsets = [TopicPartition(topic, 0, offset)]
                producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), TIMEOUT)
                (producer.commit_transaction if commits else producer.abort_transaction)(TIMEOUT)
            [committed] = consumer.committed([TopicPartition(topic, 0)], timeout=TIMEOUT)
            expect("committed offset", (committed.error, committed.offset), (None, 10))
        expect("output", self.values(out, 1), texts(1, 10))

    def transaction_codecs(self):
        """Every codec inside transactions, one of two aborted."""
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            topic = self.topic(f"transaction-{codec}")
            with self.producer(transactional_id=topic, compression_type=codec, linger_ms=100) as producer:
                for start, commits in ((0, True), (100, False), (200, True)):
                    producer.begin_transaction()
                    self.send_with(producer, topic, texts(100, start))
                    (producer.commit_transaction if commits else producer.abort_transaction)(TIMEOUT)
            expect(codec, self.values(topic, 200, isolation_level="read_committed"), texts(100) + texts(100, 200))

    @staticmethod
    def expect_fenced(call):
        """CALL ends with a fatal error that says that the producer is no longer the one with its id."""
        try:
            call()
        except KafkaException as failure:
            error = failure.args[0]
            expect("fatal", error.fatal(), True)
            expect("fenced", error.name() in ("_FENCED", "INVALID_PRODUCER_EPOCH"), True)
        else:
            raise AssertionError("the older producer was not refused")

    def transaction_fencing(self):
        """A younger producer of the same id ends an older one's transaction and work."""
        topic = self.topic("fencing")
        with self.producer(transactional_id=topic) as older:
            older.begin_transaction()
            self.send_with(older, topic, texts(5))
            with self.producer(transactional_id=topic) as younger:
                younger.begin_transaction()
                self.send_with(younger, topic, texts(5, 5))
                self.expect_fenced(lambda: older.commit_transaction(TIMEOUT))
                younger.commit_transaction(TIMEOUT)
        expect("read_committed", self.values(topic, 5, isolation_level="read_committed"), texts(5, 5))
        expect("read_uncommitted", self.values(topic, 10, isolation_level="read_uncommitted"), texts(10))

    def transaction_open(self):
        """read_committed stops at an open transaction, read_uncommitted passes it."""
        topic = self.topic("open")
        with self.producer(transactional_id=topic) as producer:
            self.send(topic, texts(3))
            producer.begin_transaction()
            self.send_with(producer, topic, texts(3, 3))
            self.send(topic, texts(3, 6))
            expect("read_committed", self.values(topic, 3, isolation_level="read_committed"), texts(3))
            expect("read_uncommitted", self.values(topic, 9, isolation_level="read_uncommitted"), texts(9))
            producer.commit_transaction(TIMEOUT)
        expect("after the commit", self.values(topic, 9, isolation_level="read_committed"), texts(9))

    def transaction_timeout(self):
        """The broker aborts a transaction that is left open, and refuses its producer."""
        topic = self.topic("timeout")
        # Time enough for the records, on a busy machine too: they have the same limit.
        with self.producer(transactional_id=topic, transaction_timeout_ms=5000) as producer:
            producer.begin_transaction()
            self.send_with(producer, topic, texts(3))
            self.send(topic, texts(3, 3))
            expect("read_committed", self.values(topic, 3, isolation_level="read_committed"), texts(3, 3))
            self.refused(producer)
        expect("read_uncommitted", self.values(topic, 6, isolation_level="read_uncommitted"), texts(6))

    def refused(self, producer):
        try:
            producer.commit_transaction(TIMEOUT)
        except KafkaException as failure:
            # Kafka lets a producer of the new transaction flow go on with a new epoch once it has aborted (KIP-890).
            error = failure.args[0]
            expect("an error that ends the transaction", error.fatal() or error.txn_requires_abort(), True)
        else:
            raise AssertionError("a transaction that the broker aborted was committed")

    def seek(self):
        topic = self.topic("seek")
        self.send(topic, texts(100))
        with self.consumer() as consumer:
            consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
            self.take(consumer, 100)
            for offset in (42, 99, 7, 0):
                consumer.seek(TopicPartition(topic, 0, offset))
                expect("offset", self.take(consumer, 100 - offset)[0].offset(), offset)

    def timestamp_lookup(self):
        topic = self.topic("timestamps")
        base = int(time.time() * 1000) - 100_000
        with self.producer() as producer:
            for i in range(10):
                self.send_with(producer, topic, [b"x"], timestamp=base + i * 1000)
        with self.consumer() as consumer:
            for after, offset in ((0, 0), (4500, 5), (9000, 9), (10_000, OFFSET_END)):
                [found] = consumer.offsets_for_times([TopicPartition(topic, 0, base + after)], timeout=TIMEOUT)
                expect(f"offset {after} ms later", (found.error, found.offset), (None, offset))
            ends = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=TIMEOUT)
            expect("ends", ends, (0, 10))

    def one(self, name, value, **record):
        topic = self.topic(name)
        with self.producer() as producer:
            self.send_with(producer, topic, [value], **record)
        [got] = self.read(topic, 1)
        return got

    def headers(self):
        headers = [("a", b"1"), ("a", b"2"), ("empty", b""), ("null", None), ("binary", bytes(range(256)))]
        expect("headers", self.one("headers", b"x", headers=headers).headers(), headers)

    def large_record(self):
        value = os.urandom(900_000)
        expect("same value", self.one("large", value, key=b"k").value() == value, True)

    def empty_record(self):
        got = self.one("empty", b"", key=b"")
        expect("key and value", (got.key(), got.value()), (b"", b""))

    def tombstone(self):
        got = self.one("tombstone", None, key=b"k")
        expect("key and value", (got.key(), got.value()), (b"k", None))

    def admin_topics(self):
        topic = self.topic("admin", 3)
        expect("partitions", len(self.admin.list_topics(topic, TIMEOUT).topics[topic].partitions), 3)
        [deleted] = self.admin.delete_topics([topic]).values()
        deleted.result(TIMEOUT)
        until("the topic's end", lambda: topic not in self.admin.list_topics(timeout=TIMEOUT).topics)

    def admin_config(self):
        topic = self.topic("config")
        entry = ConfigEntry("retention.ms", "123456", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        [altered] = self.admin.incremental_alter_configs([resource]).values()
        altered.result(TIMEOUT)

        # Apache Kafka answers before the broker that is asked next has heard of it.
        def shown():
            [described] = self.admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
            return described.result(TIMEOUT)["retention.ms"].value == "123456"

        until("the new retention.ms", shown)

    def reconnect(self):
        topic = self.topic("reconnect")
        with self.producer(enable_idempotence=True) as producer, self.consumer(topic, group_id=topic) as consumer:
            self.send_with(producer, topic, texts(10))
            self.take(consumer, 10)
            consumer.commit(asynchronous=False)
            checks.restart_broker()
            self.send_with(producer, topic, texts(10, 10))
            got = self.take(consumer, 10)
            expect("values", [record.value() for record in got], texts(10, 10))
        expect("all values", self.values(topic, 20), texts(20))


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    checks.run(Client(*checks.arguments()))
