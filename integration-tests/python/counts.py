"""The running count of each hour, for the partitions that a processor owns. The topic of counts is where they live."""

import time

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

RESTORE_TIMEOUT_S = 60


class Counts:
    def __init__(self, options, log):
        self._bootstrap = options.bootstrap
        self._topic = options.counts
        self._log = log
        self._committed = {}

    def restore(self, partitions):
        """Reads what earlier owners committed.

        The caller has already been told the partitions' stable offsets, so whatever those offsets cover lies below the
        high watermark asked for here. The last stable offset would not do: it may still be held back by the open
        transaction of an owner that is gone, in front of counts that a later owner committed.
        """
        targets = [TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in partitions]
        ends = self._high_watermarks(targets)
        restored = {partition: {} for partition in partitions}
        missing = {partition for partition in partitions if ends[partition] > 0}
        consumer = Consumer({
            "bootstrap.servers": self._bootstrap,
            "group.id": "unused: nothing is committed and no group is joined",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,
        })
        try:
            consumer.assign([target for target in targets if target.partition in missing])
            deadline = time.monotonic() + RESTORE_TIMEOUT_S
            while missing:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"counts of partitions {missing} not restored in time to {ends}")
                for message in consumer.consume(1000, 0.1):
                    self._take(message, restored, ends, missing)
        finally:
            consumer.close()
        self._committed.update(restored)
        self._log(f"restored to {ends}: {restored}")

    def _high_watermarks(self, targets):
        admin = AdminClient({"bootstrap.servers": self._bootstrap})
        specs = {TopicPartition(t.topic, t.partition): OffsetSpec.latest() for t in targets}
        futures = admin.list_offsets(specs, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=30)
        return {target.partition: future.result().offset for target, future in futures.items()}

    @staticmethod
    def _take(message, restored, ends, missing):
        error = message.error()
        if error is None:
            restored[message.partition()][message.key().decode()] = int(message.value())
        elif error.code() == KafkaError._PARTITION_EOF:
            # The end as read_committed sees it. It is told again whenever it has moved, also over records that are not shown.
            if message.offset() >= ends[message.partition()]:
                missing.discard(message.partition())
        elif not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:
            raise KafkaException(error)

    def forget(self, partitions):
        for partition in partitions:
            self._committed.pop(partition, None)

    def draft(self):
        return Draft(self._committed)


class Draft:
    """The counts as one transaction sees them: `keep` makes them the state, dropping the draft undoes them."""

    def __init__(self, committed):
        self._committed = committed
        self._changed = {}

    def next(self, partition, hour):
        before = self._changed.get((partition, hour))
        if before is None:
            before = self._committed[partition].get(hour, 0)
        self._changed[partition, hour] = before + 1
        return before + 1

    def keep(self):
        for (partition, hour), count in self._changed.items():
            self._committed[partition][hour] = count
