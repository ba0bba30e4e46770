"""A member of a group that reads, processes and writes in transactions, with aiokafka. The contract is in ../README.md."""

import argparse
import asyncio
import logging
import signal
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError

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
        # aiokafka rebalances in a task of its own: not in the middle of a transaction.
        self.busy = asyncio.Lock()
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            group_id=options.group,
            client_id=options.transactional_id,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=6000,
            rebalance_timeout_ms=10000,
            heartbeat_interval_ms=500,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )

    async def on_partitions_revoked(self, revoked):
        async with self.busy:
            self.fresh.clear()
            for partition in revoked:
                if producer := self.producers.pop(partition, None):
                    await producer.stop()

    async def on_partitions_assigned(self, assigned):
        self.fresh.update(assigned)

    async def run(self):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stop)
        self.consumer.subscribe([self.options["in"]], listener=self)
        await self.consumer.start()
        while not self.stopping:
            polled = await self.consumer.getmany(timeout_ms=100, max_records=BATCH)
            async with self.busy:
                fresh, self.fresh = self.fresh, set()
                for partition in fresh & self.consumer.assignment():
                    await self.take(partition)
                if fresh:
                    shown = ",".join(sorted(str(partition.partition) for partition in self.producers))
                    print(f"assigned {shown}", flush=True)
                for partition, records in polled.items():
                    # What was read before the position was set is read again.
                    if partition in self.producers and partition not in fresh:
                        await self.process(partition, records)
        for producer in self.producers.values():
            await producer.stop()
        self.producers.clear()
        await self.consumer.stop()

    def stop(self):
        self.stopping = True

    async def take(self, partition):
        """Fences the last owner's transactions, and only then asks where they have come to."""
        if producer := self.producers.pop(partition, None):
            await producer.stop()
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            client_id=self.options["transactional_id"],
            transactional_id=f"{self.options['transactional_id']}-{partition.partition}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        await asyncio.wait_for(producer.start(), CALL_SECONDS)
        self.producers[partition] = producer
        self.consumer.seek(partition, await self.consumer.committed(partition) or 0)

    async def process(self, partition, records):
        producer = self.producers[partition]
        self.transactions += 1
        try:
            await asyncio.wait_for(self.transaction(producer, partition, records), CALL_SECONDS)
        except (KafkaError, asyncio.TimeoutError) as error:
            # Committed or not: the next producer of this id learns it from the group's offset.
            logging.warning("transaction of %s failed: %r", partition, error)
            self.fresh.add(partition)

    async def transaction(self, producer, partition, records):
        await producer.begin_transaction()
        for record in records:
            await producer.send_and_wait(self.options["out"], value=record.value, partition=partition.partition)
        offsets = {partition: records[-1].offset + 1}
        await producer.send_offsets_to_transaction(offsets, self.options["group"])
        if self.transactions % ABORT_EVERY == 0:
            await producer.abort_transaction()
            self.consumer.seek(partition, records[0].offset)
            print("aborted", flush=True)
            return
        await producer.commit_transaction()
        self.committed += len(records)
        print(f"committed {self.committed}", flush=True)


async def run(options):
    await Member(options).run()


def main():
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    try:
        asyncio.run(run(arguments()))
    except (KafkaError, asyncio.TimeoutError):
        logging.exception("fatal")
        sys.exit(3)


if __name__ == "__main__":
    main()
