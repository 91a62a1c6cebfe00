"""The events thread of a producer, and what happens to producers nobody closed."""

from __future__ import annotations

import atexit
import time
import warnings
import weakref

from ._rdkafka import Handle, Thread, end_handovers, new_thread, sleep

# How long the interpreter's exit waits for what was never closed. Past it the rest fails with PURGE_QUEUE or PURGE_INFLIGHT.
EXIT_TIMEOUT = 30.0

_open: weakref.WeakSet[Handle] = weakref.WeakSet()
_threads: weakref.WeakKeyDictionary[Handle, Thread] = weakref.WeakKeyDictionary()


def start(handle: Handle) -> None:
    """Give `handle` its events thread (none under manual polling) and remember it for the interpreter's exit."""
    _open.add(handle)
    handle.open()
    if not handle.manual:
        _start_thread(handle)


def _start_thread(handle: Handle) -> None:
    # A daemon: what it must do before the interpreter ends is seen to by `_close_all`, which can be bounded; joining it could not.
    thread = new_thread("kafka_ext events", handle.run)
    _threads[handle] = thread
    thread.start()


def close(handle: Handle, timeout: float | None) -> bool:
    """Every report, then the end of the thread and of the handle. True when nothing had to be purged."""
    handle.begin_close()
    delivered = handle.finish_close(timeout)
    handle.stop_events()
    thread = _threads.get(handle)
    if thread is not None and thread.is_alive():
        thread.join()
    while handle.running:  # start() was interrupted; a thread that gets there from now on ends at once
        sleep(0.001)
    handle.destroy()
    return delivered


def abandon(handle: Handle) -> None:
    """Its producer was collected: let the events thread (or one made for it) deliver everything and end the handle. Does not wait."""
    handle.abandoned = True
    if handle.manual:
        _start_thread(handle)
    else:
        handle.stop_events()


def _close_all() -> None:
    """At exit: what was sent is still delivered, within EXIT_TIMEOUT for all producers together."""
    end = time.monotonic() + EXIT_TIMEOUT
    for handle in list(_open):
        left = max(0.0, end - time.monotonic())
        if handle.forked or handle.closed:
            continue
        thread = _threads.get(handle)
        if handle.abandoned and thread is not None and thread.is_alive():
            thread.join(left)
            handle.hurry = True  # what it still has fails now
            thread.join()
            continue
        close(handle, left)


def _at_exit() -> None:
    left_open = sum(1 for handle in list(_open) if not (handle.forked or handle.closing or handle.abandoned))
    try:
        if left_open:
            plural = "producers were" if left_open > 1 else "producer was"
            warnings.warn(
                f"at the interpreter's exit {left_open} {plural} not closed; what was given to them is still delivered",
                ResourceWarning,
                stacklevel=1,
            )
    finally:
        _close_all()  # also where warnings are errors
        end_handovers()


atexit.register(_at_exit)
