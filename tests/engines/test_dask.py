"""KafkaSink on a local cluster of Dask's, which is several processes."""

from __future__ import annotations

import os
import signal
import time

import pytest

distributed = pytest.importorskip("distributed")

from kafka_ext import DeliveryError  # noqa: E402


def test_example(run_example):
    output = run_example("dask_sink.py")
    assert "800 rows of data frames written" in output
    assert "800 rows written" in output


@pytest.fixture
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_a_worker_makes_one_producer_for_all_its_tasks(client, sink, stored):
    def task(number):
        from kafka_ext import _shared_producers

        sink.write([{"value": f"{number}"}])
        return os.getpid(), len(_shared_producers._producers)

    results = client.gather(client.map(task, range(20), pure=False))
    assert {made for _, made in results} == {1}
    assert os.getpid() not in {pid for pid, _ in results}
    assert sorted(map(int, stored())) == list(range(20))


def test_a_task_that_fails_says_what_was_not_delivered(client, sink):
    future = client.submit(sink.write, [{"value": b"a"}, {"value": bytes(2_000_000)}], pure=False)
    with pytest.raises(DeliveryError) as caught:
        future.result()
    assert [index for index, _ in caught.value.failures] == [1]


def test_a_worker_killed_in_mid_task_loses_nothing_it_had_reported_as_done(client, sink, stored):
    def task(number):
        def rows():
            for row in range(50):
                time.sleep(0.002)
                yield {"value": f"{number}-{row}"}

        sink.write(rows())
        return number, os.getpid()

    futures = client.map(task, range(40), pure=False)
    done = []
    for future in distributed.as_completed(futures):
        done.append(future.result())
        if len(done) == 6:
            break
    os.kill(done[-1][1], signal.SIGKILL)  # it has others in hand
    found = set(stored())
    for number, _ in done:
        assert {f"{number}-{row}" for row in range(50)} <= found
    assert {number for number, _ in client.gather(futures)} == set(
        range(40)
    )  # Dask has run them again
    assert {f"{number}-{row}" for number in range(40) for row in range(50)} == set(stored())
