"""Writing to Kafka from Dask workers: a task that is finished has been delivered.

    python examples/engines/dask_sink.py [bootstrap servers]

Without an argument it starts a broker of its own. The cluster here is two processes on this
machine; on many it is the same code. Needs kafka-ext[engines].
"""

from __future__ import annotations

import sys

import pandas as pd
from distributed import Client, LocalCluster

from kafka_ext import KafkaSink
from kafka_ext.testing import EmbeddedBroker


def main(bootstrap_servers: str) -> None:
    sink = KafkaSink(
        {"bootstrap.servers": bootstrap_servers}, "orders", value="item", key="customer"
    )

    def orders(part: int) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "item": [f"item {part}-{n}" for n in range(100)],
                "customer": [f"customer {n % 10}" for n in range(100)],
            }
        )

    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        frames = client.map(orders, range(8))
        # A bound method of a sink is all that a task needs. Each worker makes one producer for all
        # of its tasks.
        written = client.map(sink.write_table, frames, pure=False)
        print(f"{sum(client.gather(written))} rows of data frames written")

        # Rows of any kind, as in dask.bag.
        values = [[f"value {part}-{n}" for n in range(100)] for part in range(8)]
        written = client.map(
            KafkaSink({"bootstrap.servers": bootstrap_servers}, "values").write, values, pure=False
        )
        print(f"{sum(client.gather(written))} rows written")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker(isolation="process") as broker:
            main(broker.bootstrap_servers)
            assert len(broker.messages("orders")) == len(broker.messages("values")) == 800
