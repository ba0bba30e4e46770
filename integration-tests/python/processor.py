"""Reads a batch, processes it and writes the results and the offsets in one transaction."""

import json
import signal
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaException, Producer, TopicPartition

from counts import Counts

LATE_MINUTES = 15
POLL_S = 0.2
CALL_TIMEOUT_S = 60
# A call of the transactional producer is made again after this long.
TRANSACTION_CALL_S = 10


class Fatal(Exception):
    """This process cannot go on safely; a new one with the same transactional id can."""


def log(line):
    now = time.time()
    print(f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now % 1 * 1000):03} {line}", file=sys.stderr, flush=True)


class Processor:
    def __init__(self, options):
        self._options = options
        self._stopping = False
        self._transaction = 0
        self._committed = 0
        self._batch = []
        self._counts = Counts(options, log)
        self._producer = Producer({
            "bootstrap.servers": options.bootstrap,
            "transactional.id": options.transactional_id,
            "transaction.timeout.ms": 20000,
            "linger.ms": 2,
            "reconnect.backoff.max.ms": 500,
            # The default, rebootstrap, forgets the brokers when the last connection is lost and knows them anew afterwards, but
            # sending offsets goes on waiting, without end, for the coordinator's forgotten one (librdkafka 2.16.0, with Apache
            # Kafka 4.3.1 as well). Nothing is lost here: the bootstrap address is the broker's.
            "metadata.recovery.strategy": "none",
        })
        self._consumer = Consumer({
            "bootstrap.servers": options.bootstrap,
            "group.id": options.group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 1500,
            "max.poll.interval.ms": 120000,
            "reconnect.backoff.max.ms": 500,
        })

    def run(self):
        signal.signal(signal.SIGTERM, self._stop)
        self._retrying(self._producer.init_transactions)
        self._consumer.subscribe(
            [getattr(self._options, "in")],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )
        while not self._stopping:
            self._collect()
            if self._batch:
                self._process()
        self._consumer.close()

    def _stop(self, _signal, _frame):
        self._stopping = True

    # Membership. Callbacks run inside poll, so never between the beginning and the end of a transaction.

    def _on_assign(self, consumer, partitions):
        # Stable offsets first: from then on no earlier owner's commit can appear behind the end that counts are restored to.
        positions = self._stable_offsets(partitions)
        log(f"assigned {shown(positions)}")
        try:
            self._counts.restore([partition.partition for partition in partitions])
        except (KafkaException, TimeoutError) as error:
            raise Fatal(f"counts not restored: {error}") from error
        consumer.assign(positions)

    def _on_revoke(self, _consumer, partitions):
        numbers = [partition.partition for partition in partitions]
        log(f"revoked {numbers}")
        self._counts.forget(numbers)
        # What is collected but not processed is somebody else's now.
        self._batch = [message for message in self._batch if message.partition() not in numbers]

    def _stable_offsets(self, partitions):
        """The committed offsets once no transaction is about to change them (librdkafka asks so under read_committed)."""
        offsets = self._consumer.committed([TopicPartition(p.topic, p.partition) for p in partitions], CALL_TIMEOUT_S)
        for offset in offsets:
            # An invalid offset with an error does not mean that nothing is committed yet.
            if offset.error is not None:
                raise Fatal(f"no committed offset: {offset.error}")
            if offset.offset == OFFSET_INVALID:
                offset.offset = OFFSET_BEGINNING
        return offsets

    # One batch.

    def _collect(self):
        """Single polls: a batch call can return messages of a partition that a rebalance inside the call has given away."""
        deadline = time.monotonic() + POLL_S
        while len(self._batch) < self._options.batch and not self._stopping:
            message = self._consumer.poll(max(0.0, deadline - time.monotonic()))
            if message is None:
                if time.monotonic() >= deadline:
                    return
            elif message.error() is None:
                self._batch.append(message)
            elif message.error().fatal():
                raise Fatal(f"consumer: {message.error()}")
            else:
                log(f"consumer: {message.error()}")

    def _process(self):
        batch, self._batch = self._batch, []
        last = {message.partition(): message.offset() for message in batch}
        offsets = [TopicPartition(batch[0].topic(), partition, offset + 1) for partition, offset in last.items()]
        self._transaction += 1
        try:
            if self._options.offsets_first:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            self._producer.begin_transaction()
            draft = self._counts.draft()
            for message in batch:
                self._write(message, draft)
            if not self._options.offsets_first:
                membership = self._consumer.consumer_group_metadata()
                self._retrying(self._producer.send_offsets_to_transaction, offsets, membership, TRANSACTION_CALL_S)
            if self._transaction % self._options.abort_every == 0:
                self._producer.flush()  # so that the log really holds what nobody may see
                self._abort()
                print("aborted", flush=True)
                return
            self._retrying(self._producer.commit_transaction, TRANSACTION_CALL_S)
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise
            log(f"transaction {self._transaction} failed: {error}")
            self._abort()
            return
        draft.keep()
        self._committed += len(batch)
        log(f"committed transaction {self._transaction} {shown(offsets)}")
        print(f"committed {self._committed}", flush=True)

    def _write(self, message, draft):
        options = self._options
        flight, hour = json.loads(message.value()), message.key().decode()
        answer = {"index": flight["index"], "hour": int(hour), "late": flight["delay"] > LATE_MINUTES}
        writer = f"{options.transactional_id}/{options.instance}/{self._transaction}"
        count = draft.next(message.partition(), hour)
        for topic, value in ((options.out, json.dumps(answer)), (options.counts, str(count))):
            self._producer.produce(topic, value, hour, message.partition(), headers={"writer": writer})

    def _abort(self):
        """Aborts and goes back to the committed offsets. What fails here ends the process: it must not go on from a guess."""
        self._retrying(self._producer.abort_transaction, TRANSACTION_CALL_S)
        positions = self._stable_offsets(self._consumer.assignment())
        for position in positions:
            self._consumer.seek(position)
        log(f"aborted transaction {self._transaction}, back to {shown(positions)}")

    @staticmethod
    def _retrying(call, *arguments):
        """Calls again while the client says that doing so is safe, as it is for a commit whose outcome is not known yet."""
        while True:
            try:
                return call(*arguments)
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
                log(f"retrying after {error}")


def shown(offsets):
    return {offset.partition: offset.offset for offset in offsets}
