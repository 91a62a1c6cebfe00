"""What became of the records that produce sent, whatever they were read from."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .._rdkafka import BatchDelivery, ErrorCode, QueueFullError
from ..producer import KafkaProducer
from ._display import Status
from ._inputs import Input
from ._session import Failures


class Tally:
    """Counts by the reports of whole batches.

    Attributes:
        failures: what was not delivered.
        fatal: the producer can send nothing more.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.failures = Failures()
        self.fatal = False
        self._delivered = self._size = 0

    def enqueue(
        self,
        send: Callable[..., object],
        count: int,
        size: int,
        number_at: Callable[[int], int],
        size_at: Callable[[int], int],
    ) -> None:
        """Send one batch, and count its records when they are reported.

        Args:
            send: the producer's call, which takes on_delivery.
            count: of the records.
            size: of all their values.
            number_at: what an index in the batch is in the input.
            size_at: of one value, by its index.
        """

        def reported(
            batch: BatchDelivery,
        ) -> None:  # in the events thread, once all have been answered
            delivered, left = count, size
            for index, error in batch.errors() if batch.failed else ():
                delivered -= 1
                left -= size_at(index)
                # Interrupted before it was sent: not a failure, but as if it had not been read.
                if error != ErrorCode["INTR"]:
                    self.failures.add(error, number_at(index))
                    self.fatal = self.fatal or error.is_fatal
            self._delivered += delivered
            self._size += left

        while True:
            try:
                send(on_delivery=reported)
                return
            except QueueFullError:  # noqa: PERF203 - once a batch, not once a record
                # Not the queue, for which the call waits: too many batches are on their way, each
                # of a record or two.
                time.sleep(0.05)

    def status(self, producer: KafkaProducer, source: Input) -> Status:
        more = [(f"{producer.metrics().outstanding:,} on their way", "")]
        if self.failures.count:
            more.append((f"{self.failures.count:,} failed", "warning"))
        return Status(self._delivered, self._size, source.done, source.total, tuple(more))

    def summary(self, seconds: float, interrupted: bool) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "records": self._delivered + self.failures.count,  # all have been reported
            "delivered": self._delivered,
            "failed": self.failures.count,
            "bytes": self._size,
            "seconds": round(seconds, 6),
            "records_per_second": round(self._delivered / seconds, 1),
            "bytes_per_second": round(self._size / seconds, 1),
            "errors": self.failures.counts(),
            "interrupted": interrupted,
        }
