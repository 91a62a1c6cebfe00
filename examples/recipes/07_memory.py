"""Why does memory grow, and how do I bound it?

python examples/recipes/07_memory.py
"""

from __future__ import annotations

from kafka_ext import KafkaProducer, ProducerRecord
from kafka_ext.testing import EmbeddedBroker

LIMIT = 1024 * 1024


def make_producer(bootstrap_servers: str) -> KafkaProducer:
    return KafkaProducer(
        bootstrap_servers=bootstrap_servers,
        # What may be on its way, in KiB and in records: 1 GiB and 100,000 are the defaults.
        # When either is reached, send() waits.
        queue_buffering_max_kbytes=LIMIT // 1024,
        queue_buffering_max_messages=10_000,
        # How long one may be, while the cluster is away: then its value is let go, and its
        # callback called.
        message_timeout_ms=60_000,
    )


def main() -> None:
    values = [b"%7d" % n + bytes(10_000) for n in range(300)]
    peak = 0
    # More partitions, since an embedded broker keeps 5 MiB of each.
    with EmbeddedBroker(topics={"events": 4}) as broker:
        broker.round_trip_time(0.01)  # slower than its producer
        with make_producer(broker.bootstrap_servers) as producer:
            for value in values:
                producer.send(ProducerRecord("events", value))
                now = producer.metrics()
                peak = max(peak, now.pinned_bytes)
            waited = now.blocked_seconds
            producer.flush(timeout=60)

            # Nothing is kept of what is delivered, whether or not anybody polls.
            now = producer.metrics()
            assert (now.pinned_bytes, now.pinned_messages, now.outstanding) == (0, 0, 0)
        broker.assert_delivered("events", values, exactly_once=True)
    print(f"{sum(map(len, values)):,} bytes sent, at most {peak:,} of them in memory")
    assert peak <= LIMIT
    assert waited > 0


if __name__ == "__main__":
    main()
