"""What replaces a producer that can be used no more.

KafkaSink, KafkaHandler and RecoverableProducer are built on it.

A producer can be used no more after a fatal error (rd_kafka_fatal_error): idempotence could not be
kept up, or another producer has fenced it off. Nor can it be used in a forked child.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

# `_lifecycle` first: at the interpreter's exit, what was registered last runs first.
from . import _lifecycle, _rdkafka
from ._rdkafka import ErrorCode, KafkaError, KafkaException

if TYPE_CHECKING:
    from .metrics import ProducerMetrics
    from .producer import KafkaProducer

# Waits are cut into slices, so that signals get through.
SLICE = 0.1
# The pause before the second replacement in a row, doubled for each further one.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

_IN_THE_MIDST = "this thread is making the producer: a signal handler or callable of yours, say"

NOW, NEVER = 0, _rdkafka.deadline(None)


def is_usable(producer: KafkaProducer) -> bool:
    """Whether a next one would be of more use: not where somebody has closed it."""
    handle = producer.handle
    return not handle.forked and handle.fatal_error() is None


def _close(producer: KafkaProducer) -> None:
    producer.close()


def _go_on() -> bool:
    return False


class Replaceable:
    """The current producer, and the next one in its place once it can be used no more.

    Args:
        make: returns a new producer. Called by one thread at a time, with no lock held.
        end: closes a producer that was replaced, once nobody uses it. Called by the thread that
            replaced it, or by the last one that used it.

    Attributes:
        current: the newest producer; None before the first is made. Replaced with `changed` held.
        changed: guards this object, and is notified of changes.
        closing: no producer is made any more, and none is given out.
    """

    def __init__(
        self,
        make: Callable[[], KafkaProducer],
        end: Callable[[KafkaProducer], object] = _close,
    ) -> None:
        self._make = make
        self._end = end
        self._reset()

    def _reset(self) -> None:
        self.changed = _rdkafka.Monitor()
        self.current: KafkaProducer | None = None
        self.closing = False
        self._maker: int | None = None  # the thread that makes one
        self._users: dict[KafkaProducer, int] = {}
        self._replaced: list[KafkaProducer] = []  # and not known to be closed
        self._past: ProducerMetrics | None = None  # the counts of those that are closed
        self._pause = 0.0
        self._not_before = 0.0  # on the clock of time.monotonic()

    # ------------------------------------------------------------------ the next one

    def get(self, until: int) -> KafkaProducer | None:
        """The current producer if it can be used, or else a new one; as `replace`."""
        producer = self.current
        if producer is not None and is_usable(producer):
            return producer
        return self.replace(producer, until)

    def replace(
        self,
        broken: KafkaProducer | None,
        until: int = NEVER,
        given_up: Callable[[], bool] = _go_on,
    ) -> KafkaProducer | None:
        """Make the producer that comes after `broken`, unless another thread has or does.

        Waits for that thread. After a producer that has delivered nothing, it also waits between
        0.1 and 5 seconds, longer each time.

        Args:
            until: when to stop waiting (`_rdkafka.deadline`).
            given_up: asked while it waits; true stops it as well.

        Returns:
            The new producer. None: it stopped waiting, or `closing` is set.

        Raises: what `make` raises; KafkaException where this thread is inside `make`.
        """
        with self.changed:
            while True:
                if self.closing or given_up():
                    return None
                if self.current is not broken:
                    return self.current
                if self._maker == threading.get_ident():
                    raise KafkaException(KafkaError(ErrorCode["STATE"], _IN_THE_MIDST))
                pause = self._not_before - time.monotonic()
                if self._maker is None and pause <= 0:
                    break
                left = _rdkafka.seconds_until(until)
                if left == 0.0:
                    return None
                slice_ = SLICE if self._maker is not None else min(SLICE, pause)
                self.changed.wait(slice_ if left is None else min(slice_, left))
            self._maker = threading.get_ident()
        new: KafkaProducer | None = None
        try:
            new = self._make()
        finally:
            with self.changed:
                self._maker = None
                self._pace(broken, new)
                if new is not None:
                    self.current = new
                    if broken is not None and not broken.handle.forked:
                        self._replaced.append(broken)
                self.changed.notify_all()
        if broken is not None and not broken.handle.forked:
            self._end_if_unused(broken)
        self._end_if_unused(new)  # where close() came meanwhile
        return new

    def _pace(self, broken: KafkaProducer | None, new: KafkaProducer | None) -> None:
        """Set how long the next attempt waits."""
        if broken is None or broken.handle.forked:
            self._pause = (
                0.0  # whoever asked for the first one gets the exception, and sets the pace
            )
        elif new is not None and broken.metrics().delivered:
            self._pause = 0.0
        else:
            self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        self._not_before = time.monotonic() + self._pause

    # ------------------------------------------------------------------ who uses it

    def enter(self, until: int) -> KafkaProducer | None:
        """As `get`; the producer is not closed before `leave`."""
        while True:
            producer = self.get(until)
            if producer is None:
                return None
            with self.changed:
                if self.closing:
                    return None
                if producer is self.current:
                    self._users[producer] = self._users.get(producer, 0) + 1
                    return producer

    def leave(self, producer: KafkaProducer) -> None:
        """Let it be closed, if it was replaced or is being closed, and this was its last user."""
        if producer.handle.forked:
            return  # it was entered in the parent
        with self.changed:
            self._users[producer] -= 1
            if not self._users[producer]:
                del self._users[producer]
                self.changed.notify_all()
        self._end_if_unused(producer)

    def _end_if_unused(self, producer: KafkaProducer) -> None:
        with self.changed:
            if producer in self._users or (producer is self.current and not self.closing):
                return
        self._end(producer)
        with self.changed:
            self._forget_closed()

    def _forget_closed(self) -> None:
        """Keep the counts of the producers that are closed, and not the producers."""
        for producer in [each for each in self._replaced if each.handle.closed]:
            self._past = self._with_past(producer)
            self._replaced.remove(producer)

    # ------------------------------------------------------------------ counts, and the end

    def _with_past(self, producer: KafkaProducer) -> ProducerMetrics:
        from .metrics import added

        now = producer.metrics()
        return now if self._past is None else added(self._past, now)

    def metrics(self) -> ProducerMetrics:
        """The counts of all producers there were, added up."""
        from .metrics import ProducerMetrics, added

        with self.changed:
            self._forget_closed()
            total = self._past or ProducerMetrics()
            for producer in (*self._replaced, self.current):
                if producer is not None:
                    total = added(total, producer.metrics())
            return total

    def close(self) -> None:
        """Close the current producer, once nobody uses it. Idempotent; there is no next one."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()
            producer = self.current
            while producer in self._users:
                self.changed.wait(SLICE)
        if producer is not None:
            producer.close()

    def forget(self) -> None:
        """In a forked child: the producers are the parent's, and so may be the locks."""
        self._reset()


# ---------------------------------------------------------------------- fork and exit


class Owner(Protocol):
    """What has a Replaceable, and does something about it when the process forks or ends."""

    @property
    def _exit_turn(self) -> int:
        """What is lower is ended before what is higher."""

    def _end_at_exit(self, seconds: float) -> None:
        """Deliver and close; `seconds` is how long the exit has been going on."""

    def _forget_parent(self) -> None:
        """Called in a forked child, before anything else runs there."""


_owners: weakref.WeakSet[Owner] = weakref.WeakSet()


def register(owner: Owner) -> None:
    """Tell `owner` of forks and of the interpreter's exit, for as long as it is there."""
    _owners.add(owner)


def left_at_exit(seconds: float) -> float:
    """What is left of the time that the exit waits for what nobody closed."""
    return max(0.0, _lifecycle.EXIT_TIMEOUT - seconds)


def _after_fork_in_child() -> None:
    for owner in list(_owners):
        owner._forget_parent()


def _at_exit() -> None:
    """Before `_lifecycle` closes the producers one by one and warns: these are nobody else's to
    close, and a recovery that is going on still sends what it has."""
    started = time.monotonic()
    failure: BaseException | None = None
    for owner in sorted(_owners, key=lambda owner: owner._exit_turn):
        try:
            owner._end_at_exit(time.monotonic() - started)
        except BaseException as exc:  # noqa: BLE001, PERF203 - the others deliver as well
            failure = failure or exc
    if failure is not None:
        raise failure


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
