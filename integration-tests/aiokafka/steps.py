"""One transactional step at a time with aiokafka, as the harness says. The contract is in ../README.md."""

import argparse
import asyncio
import logging
import sys

from aiokafka import AIOKafkaProducer, TopicPartition

# A request without an answer is given up after this long, and its connection with it.
REQUEST_TIMEOUT_MS = 2500
STEP_SECONDS = 60


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(dest="role", required=True).add_parser("steps")
    for name in ("--bootstrap", "--transactional-id", "--out", "--in", "--group"):
        steps.add_argument(name, required=True)
    steps.add_argument("--delivery-timeout-ms", type=int, required=True)
    return parser.parse_args()


class Steps:
    def __init__(self, options):
        self.options = vars(options)
        self.producer = AIOKafkaProducer(
            bootstrap_servers=options.bootstrap.split(","),
            client_id=options.transactional_id,
            transactional_id=options.transactional_id,
            # aiokafka has one limit for a request and for a record on its way.
            request_timeout_ms=min(REQUEST_TIMEOUT_MS, options.delivery_timeout_ms),
        )

    async def step(self, line):
        word, *rest = line.split(" ")
        await asyncio.wait_for(getattr(self, word)(*rest), STEP_SECONDS)

    async def begin(self):
        await self.producer.begin_transaction()

    async def send(self, partition, value):
        await self.producer.send_and_wait(self.options["out"], value=value.encode(), partition=int(partition))

    async def offsets(self, offset):
        offsets = {TopicPartition(self.options["in"], 0): int(offset)}
        await self.producer.send_offsets_to_transaction(offsets, self.options["group"])

    async def commit(self):
        await self.producer.commit_transaction()

    async def abort(self):
        await self.producer.abort_transaction()


async def run():
    steps = Steps(arguments())
    await steps.producer.start()
    print("ok", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            await steps.step(line.strip())
            print("ok", flush=True)
        except Exception as error:  # whatever the library says is the harness's to judge
            print(f"failed {error!r}".replace("\n", " "), flush=True)
    # Not stop(): it waits for what a failed transaction has left.


def main():
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(run())


if __name__ == "__main__":
    main()
