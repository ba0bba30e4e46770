"""A member of a group that reads, processes and writes in transactions, with kafka-python. The contract is in ../README.md."""

import argparse
import logging
import signal
import sys

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

REQUEST_TIMEOUT_MS = 10000
# What a member that was killed has left open keeps its partitions' offsets back for as long.
TRANSACTION_TIMEOUT_MS = 6000
BATCH = 5
ABORT_EVERY = 6
CALL_SECONDS = 30


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    member = parser.add_subparsers(dest="role", required=True).add_parser("member")
    for name in ("--bootstrap", "--transactional-id", "--out", "--in", "--group"):
        member.add_argument(name, required=True)
    return parser.parse_args()


class Member(ConsumerRebalanceListener):
    def __init__(self, options):
        self.options = vars(options)
        self.bootstrap = options.bootstrap.split(",")
        self.producers = {}
        # Assigned, or left by a failed transaction: a producer and a position are still to be had.
        self.fresh = set()
        self.transactions = self.committed = 0
        self.stopping = False
        self.consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap,
            group_id=options.group,
            client_id=options.transactional_id,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=6000,
            max_poll_interval_ms=10000,
            heartbeat_interval_ms=500,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            reconnect_backoff_max_ms=500,
        )

    # Both are called inside poll, so never in a transaction.

    def on_partitions_revoked(self, revoked):
        for partition in revoked:
            self.fresh.discard(partition)
            if producer := self.producers.pop(partition, None):
                producer.close(timeout=1)

    def on_partitions_lost(self, lost):
        self.on_partitions_revoked(lost)

    def on_partitions_assigned(self, assigned):
        self.fresh.update(assigned)

    def run(self):
        signal.signal(signal.SIGTERM, self.stop)
        self.consumer.subscribe([self.options["in"]], listener=self)
        while not self.stopping:
            polled = self.consumer.poll(timeout_ms=100, max_records=BATCH)
            fresh, self.fresh = self.fresh, set()
            for partition in fresh:
                self.take(partition)
            if fresh:
                shown = ",".join(sorted(str(partition.partition) for partition in self.producers))
                print(f"assigned {shown}", flush=True)
            for partition, records in polled.items():
                # What was read before the position was set is read again.
                if partition in self.producers and partition not in fresh:
                    self.process(partition, records)
        for producer in self.producers.values():
            producer.close(timeout=1)
        self.consumer.close(autocommit=False)

    def stop(self, _signal, _frame):
        self.stopping = True

    def take(self, partition):
        """Fences the last owner's transactions, and only then asks where they have come to."""
        if producer := self.producers.pop(partition, None):
            producer.close(timeout=1)
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap,
            client_id=self.options["transactional_id"],
            transactional_id=f"{self.options['transactional_id']}-{partition.partition}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            acks="all",
            linger_ms=0,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            reconnect_backoff_max_ms=500,
        )
        producer.init_transactions()
        self.producers[partition] = producer
        self.consumer.seek(partition, self.consumer.committed(partition) or 0)

    def process(self, partition, records):
        producer = self.producers[partition]
        self.transactions += 1
        try:
            producer.begin_transaction()
            sent = [
                producer.send(self.options["out"], value=record.value, partition=partition.partition)
                for record in records
            ]
            for record in sent:
                record.get(timeout=CALL_SECONDS)
            offsets = {partition: OffsetAndMetadata(records[-1].offset + 1, "", -1)}
            producer.send_offsets_to_transaction(offsets, self.consumer.group_metadata())
            if self.transactions % ABORT_EVERY == 0:
                producer.abort_transaction()
                self.consumer.seek(partition, records[0].offset)
                print("aborted", flush=True)
                return
            producer.commit_transaction()
            self.committed += len(records)
            print(f"committed {self.committed}", flush=True)
        except KafkaError as error:
            # Committed or not: the next producer of this id learns it from the group's offset.
            logging.warning("transaction of %s failed: %r", partition, error)
            self.fresh.add(partition)


def main():
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    try:
        Member(arguments()).run()
    except KafkaError:
        logging.exception("fatal")
        sys.exit(3)


if __name__ == "__main__":
    main()
