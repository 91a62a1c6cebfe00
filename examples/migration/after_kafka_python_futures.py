"""Futures, callbacks, serializers, headers, errors and flush, coming from kafka-python.

python examples/migration/after_kafka_python_futures.py bootstrap_servers topic
"""

from __future__ import annotations

import json
import sys

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, ProducerRecord


def main(bootstrap_servers: str, topic: str) -> None:
    producer = KafkaProducer(
        bootstrap_servers=bootstrap_servers,
        linger_ms=5,
        compression_type="gzip",
        value_serializer=json.dumps,  # may give a str
    )
    lines: list[str] = []

    # One record, and wait.
    record = ProducerRecord(topic, {"order": 0}, key="ada", headers=[("source", b"web")])
    metadata = producer.sync_send(record, timeout=30)
    print("ada:", metadata.topic, metadata.partition, metadata.offset)

    # Many, with a callback each: one for both outcomes.
    def on_delivery(metadata, error):
        if error is None:
            lines.append(f"{metadata.record_id}: partition {metadata.partition}")
        else:
            lines.append(f"failed: {error}")

    for n in range(1, 6):
        key = f"customer {n}"
        record = ProducerRecord(
            topic, {"order": n}, key=key, timestamp=1_700_000_000_000 + n, id=key
        )
        producer.send(record, on_delivery)
    producer.flush(timeout=30)
    print(*sorted(lines), sep="\n")

    # A refused record.
    try:
        producer.send_future(ProducerRecord(topic, "x" * 2_000_000, key="ada")).result(timeout=30)
    except KafkaException as exc:
        if exc.error != ErrorCode.MSG_SIZE_TOO_LARGE:
            raise
        print("too large")
    producer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
