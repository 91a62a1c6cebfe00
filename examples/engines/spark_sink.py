"""Writing to Kafka from PySpark: a partition that is finished has been delivered.

    python examples/engines/spark_sink.py [bootstrap servers]

Without an argument it starts a broker of its own. The workers here are two processes on this
machine; on many it is the same code. Needs kafka-ext[engines], and Java 17.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

from kafka_ext import KafkaSink
from kafka_ext.testing import EmbeddedBroker


def main(bootstrap_servers: str, master: str = "local[2,4]") -> None:
    spark = (
        SparkSession.builder.master(master)
        .appName("kafka_ext")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    orders = spark.range(0, 800, numPartitions=4).selectExpr(
        "concat('item ', id) AS item", "concat('customer ', id % 10) AS customer"
    )

    # Row by row: a Row has its fields by name.
    sink = KafkaSink(
        {"bootstrap.servers": bootstrap_servers}, "orders", value="item", key="customer"
    )
    orders.foreachPartition(sink.write)
    print("800 rows written")

    # As Arrow batches, without a Python object for each row: much faster. Nothing is done before
    # somebody asks for the counts.
    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield pa.RecordBatch.from_pydict({"written": [sink.write_table(batch)]})

    written = orders.mapInArrow(write, "written long").groupBy().sum("written").collect()
    print(f"{written[0][0]} rows of Arrow batches written")
    spark.stop()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker(isolation="process") as broker:
            main(broker.bootstrap_servers)
            assert len(broker.messages("orders")) == 1600
