"""One producer, many threads: every method may be called from any of them.

    python examples/threads.py [bootstrap servers]

Without an argument it starts a broker of its own.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from kafka_ext import KafkaProducer, ProducerRecord
from kafka_ext.testing import EmbeddedBroker


def main(bootstrap_servers: str) -> None:
    # One producer for the process: its queue, connections and batches are shared, and
    # larger batches are what makes Kafka fast.
    with KafkaProducer(bootstrap_servers=bootstrap_servers) as producer:

        def handle_request(number: int) -> None:
            producer.send(ProducerRecord("requests", f"request {number}", key=str(number % 10)))

        with ThreadPoolExecutor(max_workers=8) as pool:
            for _ in pool.map(handle_request, range(1000)):
                pass
        producer.flush(timeout=30)
        metrics = producer.metrics()
    print(f"{metrics.sent} sent, {metrics.delivered} delivered, {metrics.failed} failed")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker() as broker:
            main(broker.bootstrap_servers)
