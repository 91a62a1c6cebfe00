"""Outcomes as futures: send many, then look at each.

    python examples/futures.py [bootstrap servers]

Without an argument it starts a broker of its own.
"""

from __future__ import annotations

import sys
from concurrent.futures import as_completed

from kafka_ext import KafkaException, KafkaProducer, ProducerRecord
from kafka_ext.testing import EmbeddedBroker


def main(bootstrap_servers: str) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        futures = [
            producer.send_future(ProducerRecord("orders", f"order {n}", id=n)) for n in range(10)
        ]
        delivered = 0
        for future in as_completed(futures, timeout=30):
            try:
                metadata = future.result()
            except KafkaException as exc:
                print("not delivered:", exc.error)
            else:
                assert metadata.offset is not None
                delivered += 1
        print(delivered, "of", len(futures), "delivered")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker() as broker:
            main(broker.bootstrap_servers)
