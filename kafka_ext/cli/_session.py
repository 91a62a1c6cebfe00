"""What a sending command does around its own work: a cluster, a producer, and the end of both,
whatever happens in between.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .._rdkafka import ErrorCode, KafkaError
from ..producer import KafkaProducer
from ..properties import Properties
from ._display import Display, records
from ._interrupts import Interrupts
from ._settings import UsageError

# Seconds that the first Ctrl-C leaves for what was sent to be delivered.
GRACE = 10.0


def names_a_cluster(properties: Properties) -> bool:
    return any(name in properties for name in _NAME_A_CLUSTER)


_NAME_A_CLUSTER = ("bootstrap.servers", "metadata.broker.list", "test.mock.num.brokers")


@contextmanager
def open_producer(
    properties: Properties,
    display: Display,
    topics: dict[str, int] | None = None,
    *,
    embedded: bool = True,
) -> Iterator[KafkaProducer]:
    """A producer, and an embedded broker with `topics` for it when `properties` name no cluster. It
    tells the display what goes wrong.

    Raises UsageError where they name none and an embedded broker was not asked for.
    """
    with ExitStack() as stack:
        where = None
        if not names_a_cluster(properties):
            if not embedded:
                # A property that is wrong is the first thing to say. Nothing is sent, and nobody
                # listens there.
                quiet = {
                    "bootstrap.servers": "127.0.0.1:1",
                    "log_cb": lambda *_: None,
                    "error_cb": lambda _: None,
                }
                KafkaProducer({**properties, **quiet}).close()
                raise UsageError(
                    "to which cluster? -b HOST:PORT names one; --embedded starts a broker whose"
                    " records are gone when the command ends"
                )
            # Not at the top: `kafka-ext produce -b …` need not load what it does not use.
            from ..testing import EmbeddedBroker

            where = stack.enter_context(EmbeddedBroker(topics=topics or {})).bootstrap_servers
            properties = properties.copy().put("bootstrap.servers", where)
        told = _Told(display)
        producer = stack.enter_context(
            KafkaProducer({**properties, "error_cb": told.on_error, "log_cb": told.on_log})
        )
        # Only now: a property that is wrong is one line, and nothing else.
        if where is not None:
            display.note(f"using an embedded broker at {where}; its records are gone at the end")
        yield producer


class _Told:
    """librdkafka's errors and warnings, each said once: it repeats them for as long as
    they last.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._told: set[str] = set()

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told and len(self._told) < 100:
            self._told.add(what)
            self._display.note(text)

    def on_error(self, error: KafkaError) -> None:
        # "(after 12ms in state CONNECT, 3 identical error(s) suppressed)" makes one error look like
        # many.
        what = (
            error.name
            if error == ErrorCode["ALL_BROKERS_DOWN"]
            else error.message.partition(" (after ")[0]
        )
        self._tell(what, str(error))

    def on_log(self, level: int, facility: str, message: str) -> None:
        # Warnings and worse. FAIL and ERROR come as an error as well, in other words.
        if level <= 4 and facility not in ("FAIL", "ERROR"):
            self._tell(message, f"{facility}: {message}")


def finish(producer: KafkaProducer, interrupts: Interrupts, display: Display) -> None:
    """Close: every record is reported when this returns. Ctrl-C once limits the wait to GRACE,
    twice gives up what is left.
    """
    left: float | None = None if interrupts.signum is None else GRACE
    while True:
        if left is not None:
            waiting = producer.metrics().outstanding
            if waiting and left:
                display.note(
                    f"interrupted: delivering {records(waiting)} already sent, for up to {left:.0f}"
                    " s (again to give up)"
                )
            elif waiting:
                display.note(f"interrupted again: giving up on {records(waiting)}")
        try:
            with interrupts.raising():
                producer.close(left)
            return
        except KeyboardInterrupt:
            left = GRACE if left is None else 0.0


class Failures:
    """What was not delivered, counted by error. Reports add from the events thread, refusals come
    from the sending one.

    Attributes:
        count: records that failed.
    """

    def __init__(self) -> None:
        self.count = 0
        self._by_error: dict[
            str, tuple[int, str, int]
        ] = {}  # name -> count, message, number of the first
        self._lock = threading.Lock()

    def add(self, error: KafkaError, number: int) -> None:
        """Record `number` of the input was not delivered."""
        with self._lock:
            self.count += 1
            count, message, first = self._by_error.get(error.name, (0, error.message, number))
            self._by_error[error.name] = (count + 1, message, min(first, number))

    def counts(self) -> dict[str, int]:
        """Failed records by the name of their error, the most frequent first."""
        return {name: count for name, (count, _, _) in self._sorted()}

    def _sorted(self) -> list[tuple[str, tuple[int, str, int]]]:
        return sorted(self._by_error.items(), key=lambda item: -item[1][0])

    def report(self, display: Display, attempted: int) -> None:
        """Say what failed; nothing when nothing did."""
        if not self.count:
            return
        display.note(f"{self.count:,} of {records(attempted)} not delivered:")
        for name, (count, message, first) in self._sorted():
            display.note(f"  {count:,} x {name}: {message} (the first: record {first:,})")
