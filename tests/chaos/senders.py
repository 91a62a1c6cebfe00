"""The sending process, `python -m tests.chaos.senders '{JSON}'`: threads and a batch sender share a
producer until standard input ends.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from kafka_ext import KafkaException, KafkaProducer, ProducerRecord, _rdkafka

from . import records
from .outcomes import REFUSED, SENT, Outcomes
from .watch import Watch

# Records are made so many at a time, and a batch sender's batches are so long.
BLOCK = 4_000
BATCH = 1_000
TICK = 0.02
# What is due after this long in seconds, when the queue was full, is let go: the load does not make
# up for a fault.
LATE = 2.0
FLUSH = 180.0
# A thread that was told to stop is in a `send` at most, which waits for room in the queue.
STOPPING = 180.0


class Sender:
    """One stream's thread, at `rate` records a second."""

    def __init__(
        self,
        stream: int,
        producer: KafkaProducer,
        topic: str,
        partitions: int,
        rate: float,
        size: int,
    ) -> None:
        self.outcomes = Outcomes(stream, size)
        self.producer = producer
        self.topic = topic
        self.partitions = partitions
        self.rate = rate
        self.halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"stream {stream}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, deadline: float) -> None:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self.outcomes.anomaly("the sender does not end")

    def _run(self) -> None:
        try:
            since, done = time.monotonic(), 0
            while not self.halt.wait(TICK) and self.outcomes.sent < self.outcomes.size:
                now = time.monotonic()
                due = int((now - since) * self.rate) - done
                if due > self.rate * LATE:
                    since, done = now, 0
                elif due > 0:
                    done += self.send(min(due, self.outcomes.size - self.outcomes.sent))
        except BaseException as error:
            self.outcomes.anomaly(f"the sender has ended with {type(error).__name__}: {error}")
            raise

    def send(self, count: int) -> int:
        """Send about so many; how many."""
        raise NotImplementedError


class RecordSender(Sender):
    """Record by record, each with a callback."""

    _block: bytes = b""
    _first = _end = 0

    def send(self, count: int) -> int:
        outcomes, producer, topic, partitions = (
            self.outcomes,
            self.producer,
            self.topic,
            self.partitions,
        )
        on_delivery, states = outcomes.on_delivery, outcomes.states
        for number in range(outcomes.sent, outcomes.sent + count):
            if number >= self._end:
                self._block = records.make(outcomes.stream, number, BLOCK, partitions).tobytes()
                self._first, self._end = number, number + BLOCK
            at = (number - self._first) * records.SIZE
            value = self._block[at : at + records.SIZE]
            states[number] = SENT
            outcomes.sent = number + 1
            try:
                producer.send(
                    ProducerRecord(topic, value, partition=number % partitions, id=number),
                    on_delivery,
                )
            except KafkaException as error:
                states[number] = REFUSED
                outcomes.anomaly(f"{number} was refused: {error}")
        return count


class BatchSender(Sender):
    """A column of rows in one call."""

    def send(self, count: int) -> int:
        if count < min(BATCH, self.outcomes.size - self.outcomes.sent):
            return 0
        outcomes, first = self.outcomes, self.outcomes.sent
        made = records.make(
            outcomes.stream, first, min(BATCH, outcomes.size - first), self.partitions
        )
        np.frombuffer(outcomes.states, np.uint8)[first : first + len(made)] = SENT
        outcomes.sent += len(made)
        rows, partitions = (
            made.view(np.uint8).reshape(-1, records.SIZE),
            made["partition"].astype(np.int32),
        )
        self.producer.send_batch(
            self.topic,
            rows,
            partitions=partitions,
            on_delivery=lambda batch: outcomes.batch(first, batch),
        )
        return len(made)


def run(options: dict[str, Any]) -> dict[str, Any]:
    folder = Path(options["folder"])
    kinds = [*[RecordSender] * options["threads"], BatchSender]
    rate = options["rate"] / len(kinds)
    producer = KafkaProducer(options["config"], error_cb=lambda error: None, log_level=0)
    senders = [
        kind(stream, producer, options["topic"], options["partitions"], rate, options["size"])
        for stream, kind in enumerate(kinds)
    ]
    outcomes = [sender.outcomes for sender in senders]

    def more() -> dict[str, Any]:
        metrics = producer.metrics()
        return {
            "clock": time.monotonic(),
            "sent": sum(o.sent for o in outcomes),
            "reported": sum(o.reported for o in outcomes),
            "failed": sum(o.failed for o in outcomes),
            "outstanding": metrics.outstanding,
            "pinned": metrics.pinned_messages,
            "blocked": metrics.blocked_seconds,
            **_rdkafka.live_objects(),
        }

    wrong: list[str] = []
    with Watch(0.5, folder / "samples.jsonl", more) as watch:
        for sender in senders:
            sender.start()
        sys.stdin.read()
        for sender in senders:
            sender.halt.set()
        deadline = time.monotonic() + STOPPING
        for sender in senders:
            sender.join(deadline)
        try:
            producer.flush(FLUSH)
        except KafkaException as error:
            wrong.append(f"flush: {error}")
        watch.take()
        fatal = producer.fatal_error()
        producer.close(30)
    if fatal is not None:
        wrong.append(f"the producer has failed for good: {fatal}")
    metrics = producer.metrics()
    if (
        metrics.sent != metrics.delivered + metrics.failed
        or metrics.outstanding
        or metrics.pinned_messages
        or metrics.callback_errors
    ):
        wrong.append(f"the metrics are off at the end: {metrics}")
    if any(_rdkafka.live_objects().values()):
        wrong.append(f"left behind when all was closed: {_rdkafka.live_objects()}")
    errors: dict[str, int] = {}
    for o in outcomes:
        if o.sent != o.reported:
            wrong.append(f"stream {o.stream}: {o.sent:,} were sent, and {o.reported:,} called back")
        wrong += o.wrong
        if o.anomalies > len(o.wrong):
            wrong.append(f"stream {o.stream}: {o.anomalies - len(o.wrong):,} more")
        for name, count in o.errors.items():
            errors[name] = errors.get(name, 0) + count
        o.save(folder)
    return {
        "sent": sum(o.sent for o in outcomes),
        "reported": sum(o.reported for o in outcomes),
        "delivered": metrics.delivered,
        "failed": metrics.failed,
        "errors": errors,
        "blocked": metrics.blocked_seconds,
        "wrong": wrong,
        "samples": watch.samples,
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    result = run(given)
    Path(given["folder"], "senders.json").write_text(json.dumps(result))
