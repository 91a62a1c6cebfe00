"""Avro with a schema registry.

    python examples/schema_registry.py [http://localhost:8081 localhost:9092]

Without arguments it starts a broker of its own, and what stands in for a registry. Needs
kafka-ext[registry].
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from kafka_ext import KafkaProducer, ProducerRecord
from kafka_ext.registry import AvroSerializer, SchemaRegistry
from kafka_ext.testing import EmbeddedBroker

ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "item", "type": "string"}, {"name": "count", "type": "int", "default": 1}],
}


def main(registry_url: str, bootstrap_servers: str) -> None:
    registry = SchemaRegistry(registry_url)
    serializer = AvroSerializer(registry, ORDER)
    serializer.prepare("orders")  # asks the registry now, not with the first record
    with KafkaProducer(
        bootstrap_servers=bootstrap_servers, value_serializer=serializer
    ) as producer:
        metadata = producer.sync_send(
            ProducerRecord("orders", {"item": "a book", "count": 2}, key="ada")
        )
        print(f"{metadata.value_size} bytes at offset {metadata.offset}")
    registry.close()


class StandIn(BaseHTTPRequestHandler):
    """Gives every schema the id 1."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"id": 1}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        pass


def main_by_itself() -> None:
    with (
        EmbeddedBroker(topics={"orders": 1}) as broker,
        HTTPServer(("127.0.0.1", 0), StandIn) as server,
    ):
        Thread(target=server.serve_forever, daemon=True).start()
        main(f"http://127.0.0.1:{server.server_port}", broker.bootstrap_servers)
        server.shutdown()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(*sys.argv[1:])
    else:
        main_by_itself()
