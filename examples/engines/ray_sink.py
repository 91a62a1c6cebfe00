"""Writing to Kafka from Ray: a task that is finished has been delivered.

    python examples/engines/ray_sink.py [bootstrap servers]

Without an argument it starts a broker of its own. The cluster here is this machine; on many it is
the same code. Needs kafka-ext[engines].
"""

from __future__ import annotations

import sys
from typing import Any

import pyarrow as pa
import ray
import ray.data

from kafka_ext import KafkaSink
from kafka_ext.testing import EmbeddedBroker


def main(bootstrap_servers: str) -> None:
    sink = KafkaSink(
        {"bootstrap.servers": bootstrap_servers}, "orders", value="item", key="customer"
    )

    @ray.remote
    def write(part: int) -> int:
        return sink.write(
            {"item": f"item {part}-{n}", "customer": f"customer {n % 10}"} for n in range(100)
        )

    print(f"{sum(ray.get([write.remote(part) for part in range(8)]))} rows written by tasks")

    def write_table(table: pa.Table) -> dict[str, Any]:
        return {"written": [sink.write_table(table)]}

    dataset = ray.data.from_items(
        [{"item": f"item {n}", "customer": f"customer {n % 10}"} for n in range(800)]
    )
    written = dataset.map_batches(write_table, batch_format="pyarrow", batch_size=100)
    print(f"{written.sum('written')} rows of a dataset written")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker(isolation="process") as broker:
            main(broker.bootstrap_servers)
            assert len(broker.messages("orders")) == 1600
    ray.shutdown()
