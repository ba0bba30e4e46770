"""The main job's feeder and processor with confluent-kafka (librdkafka). The contract is in ../README.md."""

import argparse
import sys
import traceback

from confluent_kafka import KafkaException

from feeder import feed
from processor import Fatal, Processor

# A processor that must be started again: fenced, or in a state that it cannot leave by aborting.
FATAL = 3


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    feeder = roles.add_parser("feeder")
    feeder.add_argument("--topic", required=True)
    feeder.add_argument("--data", required=True)
    feeder.add_argument("--count", type=int, required=True)
    feeder.add_argument("--no-idempotence", action="store_true")
    processor = roles.add_parser("processor")
    for name in ("--group", "--transactional-id", "--in", "--out", "--counts", "--instance"):
        processor.add_argument(name, required=True)
    processor.add_argument("--batch", type=int, default=200)
    processor.add_argument("--abort-every", type=int, default=10)
    processor.add_argument("--offsets-first", action="store_true")
    for role in (feeder, processor):
        role.add_argument("--bootstrap", required=True)
    return parser.parse_args()


def main():
    options = arguments()
    try:
        if options.role == "feeder":
            feed(options)
        else:
            Processor(options).run()
    except (Fatal, KafkaException) as error:
        print(f"fatal: {error!r}", file=sys.stderr)
        traceback.print_exc()
        return FATAL
    return 0


if __name__ == "__main__":
    sys.exit(main())
