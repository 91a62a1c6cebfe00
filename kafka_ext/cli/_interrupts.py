"""Ctrl-C and SIGTERM where they can be acted upon, and nowhere else.

A KeyboardInterrupt between any two bytecodes can leave a display half drawn or a close half done.
Here a signal raises only inside `raising()`; elsewhere it is remembered and raises at the next one.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """A context manager that takes SIGINT and SIGTERM over and gives them back at its end. Main
    thread only.

    Attributes:
        signum: the first signal that came, None while there was none.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._pending = False
        self._raising = False
        self._before: dict[signal.Signals, object] = {}

    @property
    def exit_status(self) -> int:
        """What shells report of a command that a signal ended."""
        return 0 if self.signum is None else 128 + self.signum

    def __enter__(self) -> Interrupts:  # noqa: PYI034 - Self is in typing from Python 3.11 on
        for number in _SIGNALS:
            # Ignored by whoever started us (nohup, a background job): stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _received(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum
        if self._raising:
            self._raising = False  # once: what handles it must not be hit by the next
            raise KeyboardInterrupt
        self._pending = True

    def raising(self) -> _Raising:
        """`with interrupts.raising():` a signal raises KeyboardInterrupt here, also one that came
        before.
        """
        return _Raising(self)


class _Raising:
    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def __enter__(self) -> None:
        self._interrupts._raising = True
        if self._interrupts._pending:
            self._interrupts._pending = self._interrupts._raising = False
            raise KeyboardInterrupt

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._interrupts._raising = False
