"""Futures, callbacks, serializers, headers, errors and flush, with kafka-python.

python examples/migration/before_kafka_python_futures.py bootstrap_servers topic
"""

from __future__ import annotations

import json
import sys

from kafka import KafkaProducer
from kafka.errors import MessageSizeTooLargeError


def main(bootstrap_servers: str, topic: str) -> None:
    producer = KafkaProducer(
        bootstrap_servers=bootstrap_servers,
        acks="all",
        linger_ms=5,
        api_version=(2, 1),  # of an embedded broker; a real one is asked
        compression_type="gzip",
        value_serializer=lambda value: json.dumps(value).encode(),
        key_serializer=str.encode,
    )
    lines: list[str] = []

    # One record, and wait.
    future = producer.send(topic, {"order": 0}, key="ada", headers=[("source", b"web")])
    metadata = future.get(timeout=30)
    print("ada:", metadata.topic, metadata.partition, metadata.offset)

    # Many, with a callback each.
    for n in range(1, 6):
        key = f"customer {n}"
        future = producer.send(topic, {"order": n}, key=key, timestamp_ms=1_700_000_000_000 + n)
        future.add_callback(
            lambda metadata, key=key: lines.append(f"{key}: partition {metadata.partition}")
        )
        future.add_errback(lambda error: lines.append(f"failed: {error}"))
    producer.flush(timeout=30)
    print(*sorted(lines), sep="\n")

    # A refused record.
    try:
        producer.send(topic, "x" * 2_000_000, key="ada").get(timeout=30)
    except MessageSizeTooLargeError:
        print("too large")
    producer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
