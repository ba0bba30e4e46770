"""The checks with kafka-python. The contract is in ../../README.md."""

import logging
import os
import sys
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.structs import OffsetAndMetadata

import checks
from checks import expect, texts, until


class Client:
    def __init__(self, bootstrap, prefix):
        self.bootstrap = bootstrap
        self.prefix = prefix

    def admin(self):
        return closing(KafkaAdminClient(bootstrap_servers=self.bootstrap))

    def producer(self, **options):
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap, **{"acks": "all", "reconnect_backoff_max_ms": 500, **options}
        )
        if "transactional_id" in options:
            producer.init_transactions()
        return closing(producer)

    def consumer(self, *topics, **options):
        consumer = KafkaConsumer(
            *topics,
            bootstrap_servers=self.bootstrap,
            **{"auto_offset_reset": "earliest", "reconnect_backoff_max_ms": 500, **options},
        )
        for topic in topics:
            # A member that leads its group before it knows the partitions can wait for ever, with Apache Kafka too.
            consumer.partitions_for_topic(topic)
        return closing(consumer)

    def topic(self, name, partitions=1):
        topic = f"{self.prefix}-{name}"
        with self.admin() as admin:
            admin.create_topics(
                {topic: {"num_partitions": partitions, "replication_factor": 1}}, wait_for_metadata=True
            )
        return topic

    def send(self, topic, values, **options):
        with self.producer(**options) as producer:
            self.send_with(producer, topic, values)

    @staticmethod
    def send_with(producer, topic, values, partition=0):
        for sent in [producer.send(topic, value, partition=partition) for value in values]:
            sent.get(timeout=30)

    @staticmethod
    def take(consumer, count, seconds=30):
        """The next COUNT records; then there must be no further one."""
        records = []
        deadline = time.monotonic() + seconds
        while len(records) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(records)} of {count} records came")
            for some in consumer.poll(timeout_ms=500).values():
                records += some
        for some in consumer.poll(timeout_ms=300).values():
            records += some
        expect("records", len(records), count)
        return records

    def read(self, topic, count, **options):
        with self.consumer(**options) as consumer:
            partition = TopicPartition(topic, 0)
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            return self.take(consumer, count)

    def codec(self, name):
        topic = self.topic(f"codec-{name}")
        self.send(topic, texts(200), compression_type=None if name == "none" else name)
        expect("values", [record.value for record in self.read(topic, 200)], texts(200))

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
        options = {"group_id": topic, "enable_auto_commit": False}
        with self.producer() as producer:
            for partition in range(3):
                self.send_with(producer, topic, texts(50, partition * 50), partition)
            with self.consumer(topic, **options) as consumer:
                got = self.take(consumer, 150)
                expect("values", sorted(record.value for record in got), sorted(texts(150)))
                consumer.commit()
            self.send_with(producer, topic, texts(10, 150), 1)
            with self.consumer(topic, **options) as consumer:
                got = self.take(consumer, 10)
                expect("values after the commit", [record.value for record in got], texts(10, 150))

    def group_rebalance(self):
        topic = self.topic("rebalance", 4)
        options = {"group_id": topic, "heartbeat_interval_ms": 300, "session_timeout_ms": 10000}
        seen = set()
        sent = 0

        def drain(consumer):
            for some in consumer.poll(timeout_ms=100).values():
                seen.update(record.value for record in some)

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

        with self.producer() as producer, self.consumer(topic, **options) as first:
            shares([4], first)
            some_more(producer)
            with self.consumer(topic, **options) as second:
                shares([2, 2], first, second)
                some_more(producer)
                for consumer in (first, second, first, second):
                    drain(consumer)
            some_more(producer)
            shares([4], first)
            until("every record", all_seen)

    def idempotence(self):
        topic = self.topic("idempotence")
        self.send(topic, texts(500), enable_idempotence=True)
        expect("values", [record.value for record in self.read(topic, 500)], texts(500))

    def transaction_commit_abort(self):
        topic = self.topic("transaction")
        with self.producer(transactional_id=topic) as producer:
            for start, commits in ((0, True), (5, False), (10, True)):
                producer.begin_transaction()
                self.send_with(producer, topic, texts(5, start))
                (producer.commit_transaction if commits else producer.abort_transaction)()
        committed = self.read(topic, 10, isolation_level="read_committed")
        expect("read_committed", [record.value for record in committed], texts(5) + texts(5, 10))
        everything = self.read(topic, 15, isolation_level="read_uncommitted")
        expect("read_uncommitted", [record.value for record in everything], texts(15))

    def transaction_offsets(self):
        topic, out = self.topic("offsets-in"), self.topic("offsets-out")
        self.send(topic, texts(20))
        partition = TopicPartition(topic, 0)
        options = {"group_id": topic, "enable_auto_commit": False, "isolation_level": "read_committed"}
        with self.consumer(topic, **options) as consumer, self.producer(transactional_id=topic) as producer:
            self.take(consumer, 20)
            for offset, commits in ((10, True), (20, False)):
                producer.begin_transaction()
                self.send_with(producer, out, texts(1, offset))
                offsets = {partition: OffsetAndMetadata(offset, "", -1)}
                producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
                (producer.commit_transaction if commits else producer.abort_transaction)()
            expect("committed offset", consumer.committed(partition), 10)
        self.read(out, 1, isolation_level="read_committed")

    def seek(self):
        topic = self.topic("seek")
        self.send(topic, texts(100))
        partition = TopicPartition(topic, 0)
        with self.consumer() as consumer:
            consumer.assign([partition])
            for offset in (42, 99, 7):
                consumer.seek(partition, offset)
                expect("offset", next(consumer).offset, offset)
            consumer.seek_to_beginning(partition)
            expect("first", next(consumer).offset, 0)
            consumer.seek_to_end(partition)
            expect("end", consumer.position(partition), 100)

    def timestamp_lookup(self):
        topic = self.topic("timestamps")
        base = int(time.time() * 1000) - 100_000
        with self.producer() as producer:
            for i in range(10):
                producer.send(topic, b"x", partition=0, timestamp_ms=base + i * 1000).get(timeout=30)
        partition = TopicPartition(topic, 0)
        with self.consumer() as consumer:
            for after, offset in ((0, 0), (4500, 5), (9000, 9)):
                found = consumer.offsets_for_times({partition: base + after})[partition]
                expect(f"offset {after} ms later", (found.offset, found.timestamp), (offset, base + offset * 1000))
            expect("past the end", consumer.offsets_for_times({partition: base + 10_000})[partition], None)
            expect("beginning", consumer.beginning_offsets([partition]), {partition: 0})
            expect("end", consumer.end_offsets([partition]), {partition: 10})

    def one(self, name, **record):
        topic = self.topic(name)
        with self.producer(max_request_size=2_000_000) as producer:
            producer.send(topic, partition=0, **record).get(timeout=30)
        [got] = self.read(topic, 1)
        return got

    def headers(self):
        # The library refuses a header without a value.
        headers = [("a", b"1"), ("a", b"2"), ("empty", b""), ("binary", bytes(range(256)))]
        got = self.one("headers", value=b"x", headers=headers)
        expect("headers", list(got.headers), headers)

    def large_record(self):
        value = os.urandom(900_000)
        got = self.one("large", key=b"k", value=value)
        expect("same value", got.value == value, True)

    def empty_record(self):
        got = self.one("empty", key=b"", value=b"")
        expect("key and value", (got.key, got.value), (b"", b""))

    def tombstone(self):
        got = self.one("tombstone", key=b"k", value=None)
        expect("key and value", (got.key, got.value), (b"k", None))

    def admin_topics(self):
        topic = self.topic("admin", 3)
        with self.admin() as admin:
            [description] = admin.describe_topics([topic])
            expect("partitions", len(description["partitions"]), 3)
            expect("listed", topic in admin.list_topics(), True)
            admin.delete_topics([topic])
            # Not by describing it: that creates it anew where topics are created when they are asked for.
            until("the topic's end", lambda: topic not in admin.list_topics())

    def admin_config(self):
        topic = self.topic("config")
        with self.admin() as admin:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "123456"})])
            described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            expect("retention.ms", described["topic"][topic]["retention.ms"]["value"], "123456")

    def reconnect(self):
        topic = self.topic("reconnect")
        options = {"group_id": topic, "enable_auto_commit": False}
        with self.producer(enable_idempotence=True) as producer, self.consumer(topic, **options) as consumer:
            self.send_with(producer, topic, texts(10))
            self.take(consumer, 10)
            checks.restart_broker()
            self.send_with(producer, topic, texts(10, 10))
            got = self.take(consumer, 10)
            expect("values", [record.value for record in got], texts(10, 10))
        everything = self.read(topic, 20)
        expect("all values", [record.value for record in everything], texts(20))


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    checks.run(Client(*checks.arguments()))
