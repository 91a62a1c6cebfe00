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


def abandon(producer: KafkaProducer) -> None:
    """Let it deliver what it can and end by itself: nobody waits for it."""
    _lifecycle.abandon(producer.handle)


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
        uses: who uses which producer: of each `enter`, the producer and the thread. A producer that
            was replaced is not closed while it is in here.

    Ctrl-C, or what else a signal handler raises, comes between any two calls of the main thread. It
    must leave nobody behind for whom other threads wait.
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
        self.uses: dict[object, tuple[KafkaProducer, int]] = {}
        self._maker: int | None = None  # the thread that makes one
        self._retired: list[KafkaProducer] = []  # to be ended once nobody uses them
        self._ended: list[KafkaProducer] = []  # and not known to be closed
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
        me = threading.get_ident()
        new: KafkaProducer | None = None
        is_maker = is_wanted = False
        try:
            with self.changed:
                while True:
                    if self.closing or given_up():
                        return None
                    if self.current is not broken:
                        return self.current
                    if self._maker == me:
                        raise KafkaException(KafkaError(ErrorCode["STATE"], _IN_THE_MIDST))
                    pause = self._not_before - time.monotonic()
                    if self._maker is None and pause <= 0:
                        break
                    left = _rdkafka.seconds_until(until)
                    if left == 0.0:
                        return None
                    slice_ = SLICE if self._maker is not None else min(SLICE, pause)
                    self.changed.wait(slice_ if left is None else min(slice_, left))
                self._maker, is_maker = me, True
            new = self._make()
        finally:
            if is_maker:
                with self.changed:
                    self._maker = None  # before any call: Ctrl-C has its turn at calls
                    is_wanted = not self.closing
                    if new is not None and is_wanted:
                        self.current = new
                        if broken is not None and not broken.handle.forked:
                            self._retired.append(broken)
                    self._pace(broken, new)
                    self.changed.notify_all()
        if not is_wanted:  # close() came meanwhile, and closes what was there before
            self._end(new)
            return None
        self.end_unused()
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

    def enter(self, until: int, use: object) -> KafkaProducer | None:
        """As `get`; the producer is not closed while `use` is in `uses`.

        At the end, also where this raises, its caller takes `use` out of there and calls
        `end_unused`. No method does both: Ctrl-C may come at the beginning of a method.
        """
        while True:
            producer = self.get(until)
            if producer is None:
                return None
            with self.changed:
                if self.closing:
                    return None
                if producer is self.current:
                    self.uses[use] = producer, threading.get_ident()
                    return producer

    def end_unused(self) -> None:
        """End the producers that were replaced and that nobody uses any more."""
        with self.changed:
            self.changed.notify_all()
            used = {producer for producer, _ in list(self.uses.values())}
            unused = [producer for producer in self._retired if producer not in used]
            self._retired = [producer for producer in self._retired if producer in used]
            self._ended += unused
        for producer in unused:
            self._end(producer)
        with self.changed:
            self._forget_closed()

    def _threads_of(self, producer: KafkaProducer | None) -> set[int]:
        return {thread for used, thread in list(self.uses.values()) if used is producer}

    def _forget_closed(self) -> None:
        """Keep the counts of the producers that are closed, and not the producers."""
        for producer in [each for each in self._ended if each.handle.closed]:
            self._past = self._with_past(producer)
            self._ended.remove(producer)

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
            for producer in {*self._retired, *self._ended, self.current}:
                if producer is not None:
                    total = added(total, producer.metrics())
            return total

    def close(self) -> None:
        """Close the current producer, once no other thread uses it. Idempotent; there is no next
        one.

        Where this thread itself uses it (in a signal handler, say) it ends with the last use.
        """
        me = threading.get_ident()
        with self.changed:
            self.closing = True
            self.changed.notify_all()
            producer = self.current
            while self._threads_of(producer) - {me}:
                self.changed.wait(SLICE)
            if producer is not None and self._threads_of(producer):
                self._retired.append(producer)
                return
        if producer is not None:
            producer.close()

    def close_unmade(self) -> bool:
        """Close this where there is no producer, and none is being made; whether that is so."""
        with self.changed:
            self.closing = self.closing or (self.current is None and self._maker is None)
            return self.closing and self.current is None

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
    for owner in _lifecycle.members(_owners):
        owner._forget_parent()


def _at_exit() -> None:
    """Before `_lifecycle` closes the producers one by one and warns: these are nobody else's to
    close, and a recovery that is going on still sends what it has."""
    started = time.monotonic()
    failure: BaseException | None = None
    for owner in sorted(_lifecycle.members(_owners), key=lambda owner: owner._exit_turn):
        try:
            owner._end_at_exit(time.monotonic() - started)
        except BaseException as exc:  # noqa: BLE001, PERF203 - the others deliver as well
            failure = failure or exc
    if failure is not None:
        raise failure


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
