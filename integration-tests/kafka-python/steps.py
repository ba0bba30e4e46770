"""One transactional step at a time with kafka-python, as the harness says. The contract is in ../README.md."""

import argparse
import logging
import sys

from kafka import KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

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
        self.producer = KafkaProducer(
            bootstrap_servers=options.bootstrap.split(","),
            client_id=options.transactional_id,
            transactional_id=options.transactional_id,
            acks="all",
            linger_ms=0,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            delivery_timeout_ms=max(options.delivery_timeout_ms, REQUEST_TIMEOUT_MS),
            reconnect_backoff_max_ms=500,
        )
        self.producer.init_transactions()

    def step(self, line):
        word, *rest = line.split(" ")
        getattr(self, word)(*rest)

    def begin(self):
        self.producer.begin_transaction()

    def send(self, partition, value):
        sent = self.producer.send(self.options["out"], value=value.encode(), partition=int(partition))
        sent.get(timeout=STEP_SECONDS)

    def offsets(self, offset):
        offsets = {TopicPartition(self.options["in"], 0): OffsetAndMetadata(int(offset), "", -1)}
        self.producer.send_offsets_to_transaction(offsets, self.options["group"])

    def commit(self):
        self.producer.commit_transaction()

    def abort(self):
        self.producer.abort_transaction()


def main():
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    steps = Steps(arguments())
    print("ok", flush=True)
    for line in sys.stdin:
        try:
            steps.step(line.strip())
            print("ok", flush=True)
        except Exception as error:  # whatever the library says is the harness's to judge
            print(f"failed {error!r}".replace("\n", " "), flush=True)
    # Not close(): it waits for what a failed transaction has left.


if __name__ == "__main__":
    main()
