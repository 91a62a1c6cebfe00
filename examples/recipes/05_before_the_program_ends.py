"""Why does the last part never arrive, and how does a service stop without losing any?

python examples/recipes/05_before_the_program_ends.py
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from kafka_ext import KafkaError, KafkaProducer, ProducerRecord, RecordMetadata
from kafka_ext.testing import EmbeddedBroker


def serve(bootstrap_servers: str) -> None:
    """Send until somebody says stop, and end with nothing on the way."""
    # What stops a service (systemd, Docker, Kubernetes) sends SIGTERM, at which Python ends
    # at once unless told otherwise. As an exception it leaves the with block in order, like
    # Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    delivered = 0

    def on_delivery(metadata: RecordMetadata, error: KafkaError | None) -> None:
        nonlocal delivered
        delivered += error is None

    try:
        # The end of the block is close(): it waits for every report.
        with KafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=500) as producer:
            number = 0
            while True:
                producer.send(ProducerRecord("ticks", b"tick %d" % number), on_delivery)
                number += 1
                if number == 100:
                    print("running", flush=True)
                time.sleep(0.001)
    finally:
        print(delivered, flush=True)


def main() -> None:
    with EmbeddedBroker(topics={"ticks": 1}) as broker:
        service = subprocess.Popen(
            [sys.executable, __file__, broker.bootstrap_servers], stdout=subprocess.PIPE, text=True
        )
        assert service.stdout is not None
        with service, service.stdout as printed:
            assert printed.readline() == "running\n"
            # With linger.ms=500 the last hundreds are still in the queue now.
            service.terminate()
            delivered = int(printed.readline())
        assert service.returncode == 0
        ticks = [message.value for message in broker.messages("ticks")]
        assert ticks == [b"tick %d" % n for n in range(delivered)]
        assert delivered >= 100
    print("stopped by SIGTERM, and all of its records are there, in order")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1])
    else:
        main()
