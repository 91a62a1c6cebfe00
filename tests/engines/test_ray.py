"""KafkaSink on Ray, whose workers are processes."""

from __future__ import annotations

import os
import signal
import time

import pytest

ray = pytest.importorskip("ray")

from kafka_ext import DeliveryError  # noqa: E402


def test_example(run_example):
    output = run_example("ray_sink.py")
    assert "800 rows written by tasks" in output
    assert "800 rows of a dataset written" in output


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_tasks_and_actors(sink, stored):
    @ray.remote
    def task(number):
        sink.write([{"value": f"{number}"}])
        return os.getpid()

    @ray.remote
    class Writer:
        def write(self, number):
            return sink.write([{"value": f"{number}"}])

    pids = ray.get([task.remote(number) for number in range(10)])
    writer = Writer.remote()
    assert sum(ray.get([writer.write.remote(number) for number in range(10, 20)])) == 10
    assert os.getpid() not in pids
    assert sorted(map(int, stored())) == list(range(20))


def test_a_task_that_fails_says_what_was_not_delivered(sink):
    @ray.remote
    def task():
        sink.write([{"value": b"a"}, {"value": bytes(2_000_000)}])

    with pytest.raises(DeliveryError) as caught:
        ray.get(task.remote())
    assert [index for index, _ in caught.value.failures] == [1]


def test_a_worker_killed_in_mid_task_loses_nothing_it_had_reported_as_done(sink, stored, tmp_path):
    @ray.remote(max_retries=5)
    def task(number):
        def rows():
            for row in range(50):
                time.sleep(0.002)
                yield {"value": f"{number}-{row}"}
                if row == 25 and number == 10 and not (tmp_path / "killed").exists():
                    (tmp_path / "killed").touch()
                    os.kill(os.getpid(), signal.SIGKILL)

        sink.write(rows())
        return number

    waiting = [task.remote(number) for number in range(20)]
    done = []
    while waiting:
        ready, waiting = ray.wait(waiting)
        done += ray.get(ready)
        found = set(stored())
        assert {f"{number}-{row}" for number in done for row in range(50)} <= found
    assert (tmp_path / "killed").exists()
    assert sorted(done) == list(range(20))
