"""Why does it hang, or send nothing, under multiprocessing, gunicorn, uWSGI or Celery?

python examples/recipes/06_many_processes.py
"""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections import Counter
from typing import Any

from kafka_ext import KafkaProducer, KafkaSink, ProducerForkedError, ProducerRecord
from kafka_ext.testing import EmbeddedBroker


def work(sink: KafkaSink, task: int) -> int:
    """What each process of a pool does."""
    # A sink can be sent to other processes, which a producer cannot. Whichever process writes
    # first makes itself a producer; write() returns when everything is delivered, so that a
    # task that is done is done.
    sink.write(f"task {task}, line {n}" for n in range(100))
    return os.getpid()


inherited: KafkaProducer


def work_with_the_parents_producer(answer: Any) -> None:
    """What does not work, in any client: threads and connections do not survive a fork."""
    try:
        inherited.send(ProducerRecord("lines", b"from the child"))
    except ProducerForkedError as exc:
        answer.put(str(exc))


def main() -> None:
    global inherited
    with EmbeddedBroker(topics={"lines": 4}) as broker:
        sink = KafkaSink(broker.config(), "lines")
        with KafkaProducer(broker.config()) as inherited:
            inherited.sync_send(ProducerRecord("lines", b"from the parent"), timeout=30)

            # The child is told at once, instead of waiting for an answer that nobody will
            # hear.
            fork = multiprocessing.get_context("fork")
            answer = fork.SimpleQueue()
            child = fork.Process(target=work_with_the_parents_producer, args=(answer,))
            child.start()
            print("in the child:", answer.get())
            child.join()
            assert child.exitcode == 0

            # The parent's goes on as before, and each process of the pool has one of its own.
            with fork.Pool(2) as pool:
                workers = Counter(pool.starmap(work, [(sink, task) for task in range(8)]))
                pool.close()
                pool.join()
            inherited.sync_send(ProducerRecord("lines", b"from the parent"), timeout=30)
        values = [b"from the parent"] * 2 + [
            b"task %d, line %d" % (task, n) for task in range(8) for n in range(100)
        ]
        broker.assert_delivered("lines", values, exactly_once=True)
    print(f"{sum(workers.values())} tasks done, {len(values)} records")


if __name__ == "__main__":
    # Python warns of every fork while there are threads, and the embedded broker is one.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    main()
