"""The future of one record. A module of its own, for importing concurrent.futures is half of what
importing the producer would take.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ._rdkafka import RecordMetadata, prepared_future

if TYPE_CHECKING:
    _Future = Future[RecordMetadata]
else:
    _Future = Future


class DeliveryFuture(_Future):
    """A concurrent.futures.Future that cannot be cancelled, and that does not wait for itself.

    Args:
        check: called with a method's name where that would wait; raises where it would wait for
            ever.
    """

    def __init__(self, check: Callable[[str], object]) -> None:
        self._check = check
        super().__init__()
        prepared_future(self)
        self.set_running_or_notify_cancel()

    @property
    def _waiters(self) -> list[Any]:
        """Where wait() and as_completed() of concurrent.futures put what shall wake them, before
        they wait; they know no timeout here.
        """
        if not self.done():
            self._check("wait")
        return self._waiting

    @_waiters.setter
    def _waiters(self, waiters: list[Any]) -> None:
        self._waiting = waiters

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """As concurrent.futures.Future; KafkaException inside a callback of the producer, unless it
        is done.
        """
        if not self.done():
            self._check("result")
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As concurrent.futures.Future; KafkaException inside a callback of the producer, unless it
        is done.
        """
        if not self.done():
            self._check("exception")
        return super().exception(timeout)
