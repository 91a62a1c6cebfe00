"""Callbacks, keys, headers, timestamps, errors and flush, with confluent-kafka.

python examples/migration/before_confluent_delivery.py bootstrap_servers topic
"""

from __future__ import annotations

import sys

from confluent_kafka import KafkaError, KafkaException, Producer


def main(bootstrap_servers: str, topic: str) -> None:
    lines: list[str] = []

    def acked(err, msg):
        if err is not None:
            lines.append(f"failed: {err.str()}")
        else:
            lines.append(f"{msg.key().decode()}: partition {msg.partition()}")

    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "linger.ms": 5,
            "acks": "all",
            "enable.idempotence": True,
        }
    )
    for n in range(6):
        producer.produce(
            topic,
            f"order {n}",
            key=f"customer {n}",
            headers=[("source", "web"), ("try", "1")],
            timestamp=1_700_000_000_000 + n,
            on_delivery=acked,
        )
        producer.poll(0)  # without it no callback is called
    try:
        producer.produce(topic, bytes(2_000_000), on_delivery=acked)
    except KafkaException as exc:
        print("refused:", exc.args[0].name())
    try:
        producer.produce(topic, "nowhere", key="customer 7", partition=99, on_delivery=acked)
    except KafkaException as exc:
        # Where the topic is known already, this is told at once, in other words.
        lines.append(f"failed: {KafkaError(exc.args[0].code()).str()}")
    left = producer.flush(30)
    if left:
        print("not answered:", left)
    print(*sorted(lines), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
