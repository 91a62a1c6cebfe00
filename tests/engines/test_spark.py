"""KafkaSink on Spark: in one machine's worker processes, and on a cluster of two executors that are
processes of their own.
"""

from __future__ import annotations

import os
import shutil
import signal

import pyarrow as pa
import pytest

pyspark = pytest.importorskip("pyspark")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java", allow_module_level=True)


def test_example(run_example):
    output = run_example("spark_sink.py")
    assert "800 rows written" in output
    assert "800 rows of Arrow batches written" in output


@pytest.fixture(scope="module", params=["local[2,4]", "local-cluster[2,1,512]"])
def spark(request):
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master(request.param)
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.executor.memory", "512m")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # Spark's own stays behind after it has stopped
    yield session
    session.stop()


def test_rows_and_arrow_batches(spark, sink, stored):
    frame = spark.range(0, 400, numPartitions=4).selectExpr("cast(id AS string) AS value")
    frame.foreachPartition(sink.write)
    assert sorted(map(int, stored())) == list(range(400))

    def write(batches):
        for batch in batches:
            yield pa.RecordBatch.from_pydict(
                {"written": [sink.write_table(batch)], "pid": [os.getpid()]}
            )

    results = frame.mapInArrow(write, "written long, pid long").collect()
    assert sum(row.written for row in results) == 400
    assert os.getpid() not in {row.pid for row in results}
    assert sorted(map(int, stored())) == sorted([*range(400)] * 2)


def test_a_partition_that_fails_says_why(spark, sink):
    frame = spark.range(0, 1, numPartitions=1).selectExpr("repeat('x', 2000000) AS value")
    with pytest.raises(Exception, match="1 of 1 records were not delivered"):
        frame.foreachPartition(sink.write)


def test_a_worker_killed_in_mid_task_loses_nothing_it_had_reported_as_done(
    spark, sink, stored, tmp_path
):
    frame = spark.range(0, 4000, numPartitions=8).selectExpr("cast(id AS string) AS value")
    killed, reported = str(tmp_path / "killed"), str(tmp_path)

    def write(rows):
        rows = list(rows)

        def mortal():
            for number, row in enumerate(rows):
                if number == 250 and int(row.value) // 500 == 5 and not os.path.exists(killed):
                    open(killed, "w").close()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield row

        sink.write(mortal())
        with open(f"{reported}/{rows[0].value}.done", "w") as done:
            done.write(" ".join(row.value for row in rows))

    frame.foreachPartition(write)
    assert os.path.exists(killed)
    found = set(stored())
    done = [path.read_text().split() for path in tmp_path.glob("*.done")]
    assert sum(map(len, done)) == 4000
    assert {value for part in done for value in part} <= found
