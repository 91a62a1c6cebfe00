"""Headers, timestamps, keys, tombstones and record ids.

    python examples/headers_and_timestamps.py [bootstrap servers]

Without an argument it starts a broker of its own.
"""

from __future__ import annotations

import struct
import sys
from datetime import datetime, timezone

from kafka_ext import KafkaProducer, ProducerRecord
from kafka_ext.testing import EmbeddedBroker


def main(bootstrap_servers: str) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        metadata = producer.sync_send(
            ProducerRecord(
                "sessions",
                b"signed in",
                key="user-17",
                # Order and repeats are kept; a value may be None. A mapping will do as
                # well.
                headers=[
                    ("session", "s-123"),
                    ("seqno", struct.pack(">I", 1)),
                    ("note", None),
                    ("note", b"again"),
                ],
                # or an int: milliseconds since the epoch
                timestamp=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
                id=("anything", "at all"),  # stays here, and comes back with the report
            ),
            timeout=30,
        )
        print(
            "record",
            metadata.record_id,
            "with the headers",
            [name for name, _ in metadata.headers or ()],
        )
        print("its status:", metadata.persisted_status.name)

        # A null value is a tombstone: compaction removes the key. It is not the same as
        # an empty value.
        tombstone = producer.sync_send(ProducerRecord("sessions", None, key="user-17"), timeout=30)
        print(
            "the tombstone has",
            tombstone.value_size,
            "bytes of value and",
            tombstone.key_size,
            "of key",
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker() as broker:
            main(broker.bootstrap_servers)
