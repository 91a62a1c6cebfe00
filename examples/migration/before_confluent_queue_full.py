"""More than the queue holds, with confluent-kafka.

python examples/migration/before_confluent_queue_full.py bootstrap_servers topic
"""

from __future__ import annotations

import sys

from confluent_kafka import Producer


def main(bootstrap_servers: str, topic: str) -> None:
    delivered = 0

    def acked(err, msg):
        nonlocal delivered
        delivered += err is None

    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "queue.buffering.max.messages": 100,
            "enable.idempotence": True,
        }
    )
    for n in range(1000):
        while True:
            try:
                producer.produce(topic, f"order {n}", partition=0, on_delivery=acked)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    print(delivered, "delivered")


if __name__ == "__main__":
    main(*sys.argv[1:])
