"""Writes the flight records once each, in the job's shuffled order: record i of the topic is line 7919 i mod lines."""

import json

from confluent_kafka import KafkaException, Producer

STRIDE = 7919
PARTITIONS = 6
REPORT_EVERY = 200


def feed(options):
    with open(options.data, encoding="utf-8") as file:
        lines = file.read().splitlines()
    idempotent = not options.no_idempotence
    producer = Producer({
        "bootstrap.servers": options.bootstrap,
        "acks": "all",
        "enable.idempotence": idempotent,
        # Without idempotence a second request in flight would change the order too: the control is to show duplicates alone.
        "max.in.flight": 5 if idempotent else 1,
        "retries": 2147483647,
        "message.timeout.ms": 1200000,
        "linger.ms": 5,
        "reconnect.backoff.max.ms": 500,
    })
    acknowledged = 0

    def on_delivery(error, _message):
        nonlocal acknowledged
        if error is not None:
            raise KafkaException(error)
        acknowledged += 1
        if acknowledged % REPORT_EVERY == 0:
            print(f"sent {acknowledged}", flush=True)

    for i in range(options.count):
        index = STRIDE * i % len(lines)
        hour = int(json.loads(lines[index])["time"])
        # The line's own text is kept, so that numbers come out as they went in.
        record = {
            "topic": options.topic,
            "partition": hour % PARTITIONS,
            "key": str(hour),
            "value": f'{{"index":{index},{lines[index][1:]}',
            "on_delivery": on_delivery,
        }
        while True:
            try:
                producer.produce(**record)
                break
            except BufferError:  # the queue is full: as long as the broker is away
                producer.poll(0.5)
        producer.poll(0)
    while producer.flush(1) > 0:
        pass
    print(f"done {acknowledged}", flush=True)
