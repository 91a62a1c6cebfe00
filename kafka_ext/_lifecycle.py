"""The events thread of a producer, and what happens to producers nobody closed."""

from __future__ import annotations

import atexit
import time
import warnings
import weakref
from _thread import get_ident
from typing import TypeVar

from ._rdkafka import (
    ErrorCode,
    KafkaError,
    KafkaException,
    ProducerClient,
    Thread,
    end_handovers,
    new_thread,
    sleep,
)

# How long the interpreter's exit waits for what was never closed. Past it the rest fails with
# PURGE_QUEUE or PURGE_INFLIGHT.
EXIT_TIMEOUT = 30.0

T = TypeVar("T")

_open: weakref.WeakSet[ProducerClient] = weakref.WeakSet()
_threads: weakref.WeakKeyDictionary[ProducerClient, Thread] = weakref.WeakKeyDictionary()
# Whose events thread a thread is, and the producers that callbacks there are closing.
_served: dict[int, ProducerClient] = {}
_closed_by: dict[ProducerClient, list[ProducerClient]] = {}


def members(of: weakref.WeakSet[T]) -> list[T]:
    """What is in it, also while other threads add to it: a loop over it may raise then."""
    while True:
        try:
            return list(of)
        except RuntimeError:  # noqa: PERF203
            continue


def start(handle: ProducerClient) -> None:
    """Give `handle` its events thread (none under manual polling) and remember it for the
    interpreter's exit.
    """
    _open.add(handle)
    handle.open()
    if not handle.manual:
        _start_thread(handle)


def _start_thread(handle: ProducerClient) -> None:
    # A daemon: what it must do before the interpreter ends is seen to by `_close_all`, which can be
    # bounded; joining it could not.
    thread = new_thread("kafka_ext events", _serve, handle)
    _threads[handle] = thread
    thread.start()


def _serve(handle: ProducerClient) -> None:
    _served[get_ident()] = handle
    try:
        handle.run()
    finally:
        del _served[get_ident()]


def begin_closing(handle: ProducerClient) -> ProducerClient | None:
    """Before this thread closes `handle`, which waits for its callbacks to end: those may be
    closing others, and so on.

    Returns:
        The handle whose callback this is, for `end_closing`; None: this is no callback. No context
        manager: closing must end where there is no memory, and CPython loses the MemoryError of an
            `__exit__` whose frame cannot be made.

    Raises:
        KafkaException: this is a callback of a producer that one of them waits for.
    """
    caller = _served.get(get_ident())
    if caller is None:
        return None
    waits_for = _closed_by.setdefault(caller, [])
    waits_for.append(handle)
    try:
        seen = [handle]
        for other in seen:
            if other is caller:
                message = (
                    "close() would wait for a callback that is closing the producer of this"
                    " callback; call it outside"
                )
                raise KafkaException(KafkaError(ErrorCode["STATE"], message))
            seen += [another for another in _closed_by.get(other, ()) if another not in seen]
    except BaseException:
        end_closing(caller)
        raise
    return caller


def end_closing(caller: ProducerClient) -> None:
    waits_for = _closed_by[caller]
    waits_for.pop()
    if not waits_for:
        del _closed_by[caller]


def close(handle: ProducerClient, timeout: float | None) -> bool:
    """Every report, then the end of the thread and of the handle. True when nothing had to be
    purged.
    """
    handle.begin_close()
    delivered = handle.finish_close(timeout)
    handle.stop_events()
    thread = _threads.get(handle)
    if thread is not None and thread.is_alive():
        thread.join()
    while (
        handle.running
    ):  # start() was interrupted; a thread that gets there from now on ends at once
        sleep(0.001)
    handle.destroy()
    return delivered


def abandon(handle: ProducerClient) -> None:
    """Its producer was collected: let the events thread (or one made for it) deliver everything and
    end the handle. Does not wait.
    """
    handle.abandoned = True
    if handle.manual:
        _start_thread(handle)
    else:
        handle.stop_events()


def _close_all() -> None:
    """At exit: what was sent is still delivered, within EXIT_TIMEOUT for all producers together."""
    end = time.monotonic() + EXIT_TIMEOUT
    for handle in members(_open):
        left = max(0.0, end - time.monotonic())
        if handle.forked or handle.closed:
            continue
        thread = _threads.get(handle)
        if handle.abandoned and thread is not None and thread.is_alive():
            thread.join(left)
            handle.out_of_time = True  # what it still has fails now
            thread.join()
            continue
        close(handle, left)


def _at_exit() -> None:
    left_open = sum(
        1 for handle in members(_open) if not (handle.forked or handle.closing or handle.abandoned)
    )
    try:
        if left_open:
            plural = "producers were" if left_open > 1 else "producer was"
            warnings.warn(
                f"at the interpreter's exit {left_open} {plural} not closed; what was given to them"
                " is still delivered",
                ResourceWarning,
                stacklevel=1,
            )
    finally:
        _close_all()  # also where warnings are errors
        end_handovers()


atexit.register(_at_exit)
