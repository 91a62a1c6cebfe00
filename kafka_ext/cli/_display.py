"""What a command says while it works, on stderr: a live display on a terminal that has `rich`,
plain lines now and then elsewhere.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

# Seconds between two plain lines.
PLAIN_INTERVAL = 5.0
_LIVE_PER_SECOND = 8


@dataclass(frozen=True)
class Status:
    """How far a command is.

    Attributes:
        records: done so far, as a count that only grows.
        size: the bytes of them.
        done, total: the part of the work that is behind, in any unit; total is None where the end
            is not known.
        more: what else there is to say, as short texts; a second text says whether it is a
            "warning".
        verb: what has been done to the records.
    """

    records: int
    size: int
    done: float = 0.0
    total: float | None = None
    more: tuple[tuple[str, str], ...] = ()
    verb: str = "delivered"


def records(number: int) -> str:
    return f"{number:,} record" if number == 1 else f"{number:,} records"


def size(number: float) -> str:
    """Bytes as people read them, in powers of 1000."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor * 0.9995:
            return (
                f"{number / factor:.4g} {unit}"
                if number < 1000 * factor
                else f"{number / factor:,.0f} {unit}"
            )
    return f"{number:.0f} B"


def seconds(number: float) -> str:
    if number < 60:
        return f"{number:.2f} s"
    minutes, rest = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def out(text: str) -> None:
    """The result of a command, to stdout. When nobody reads it, as behind `| head -1`, that is no
    error of the command's.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard(sys.stdout)
    except AttributeError:
        pass  # started with stdout closed


def discard(stream: TextIO) -> None:
    """Its reader has gone: what the interpreter still holds of it must not raise again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Rate:
    """Records and bytes a second over the last few seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Status]] = deque(maxlen=25)

    def add(self, status: Status) -> tuple[float, float]:
        self._samples.append((time.monotonic(), status))
        (began, first), (now, last) = self._samples[0], self._samples[-1]
        passed = now - began
        if passed <= 0:
            return 0.0, 0.0
        return (last.records - first.records) / passed, max(last.size - first.size, 0) / passed


class Display:
    """The plain form: whole lines, no colours, nothing that a log file or a screen reader would
    stumble over.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def note(self, text: str) -> None:
        """One line to whoever watches."""
        try:
            print(f"{self.name}: {text}", file=sys.stderr, flush=True)
        except BrokenPipeError:
            discard(sys.stderr)  # nobody watches any more; the work goes on
        except AttributeError:
            pass  # nobody ever did: stderr is closed

    def progress(self, status: Callable[[], Status]) -> AbstractContextManager[None]:
        """Show what `status` says, from another thread, for as long as the context lasts."""
        return self._lines(status)

    @contextmanager
    def _lines(self, status: Callable[[], Status]) -> Iterator[None]:
        ended = threading.Event()

        def tell() -> None:
            rate = _Rate()
            rate.add(status())
            while not ended.wait(PLAIN_INTERVAL):
                now = status()
                per_second, bytes_per_second = rate.add(now)
                share = f"{now.done / now.total:.0%}, " if now.total else ""
                more = "".join(f", {text}" for text, _ in now.more)
                self.note(
                    f"{share}{records(now.records)} {now.verb}, {per_second:,.0f} records/s,"
                    f" {size(bytes_per_second)}/s{more}"
                )

        thread = threading.Thread(target=tell, name="kafka-ext progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class QuietDisplay(Display):
    """Notes only: what goes wrong is said, what goes well is not."""

    def progress(self, status: Callable[[], Status]) -> AbstractContextManager[None]:
        return _nothing()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class LiveDisplay(Display):
    """On a terminal: a bar and counters that are gone when the work is done."""

    def __init__(self, name: str, console: Console) -> None:
        super().__init__(name)
        self._console = console

    def note(self, text: str) -> None:
        from rich.text import Text

        # Through the console, which puts it above the live part; no markup, for what others say may
        # hold brackets.
        self._console.print(Text.assemble((f"{self.name}: ", "dim"), text))

    @contextmanager
    def _live(self, status: Callable[[], Status]) -> Iterator[None]:
        from rich.live import Live

        rate = _Rate()
        began = time.monotonic()

        def render() -> RenderableType:
            return _rendered(status(), rate, time.monotonic() - began)

        with Live(
            get_renderable=render,
            console=self._console,
            refresh_per_second=_LIVE_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield

    def progress(self, status: Callable[[], Status]) -> AbstractContextManager[None]:
        return self._live(status)


def _rendered(now: Status, rate: _Rate, passed: float) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    per_second, bytes_per_second = rate.add(now)
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(justify="right", no_wrap=True)
    time_text = Text(_clock(passed), style="progress.elapsed")
    if now.total:
        share = min(now.done / now.total, 1.0)
        if 0.01 < share < 1:
            time_text.append(
                f", {_clock(passed / share - passed)} left", style="progress.remaining"
            )
        bar.add_row(
            ProgressBar(total=1.0, completed=share),
            Text(f"{share:4.0%}  ", style="progress.percentage") + time_text,
        )
    else:
        bar.add_row(ProgressBar(total=None, pulse=True, animation_time=time.monotonic()), time_text)
    numbers = Text(no_wrap=True, overflow="ellipsis")
    numbers.append(f"{now.records:,}", style="bold")
    numbers.append(f" {now.verb}  ")
    numbers.append(f"{per_second:,.0f}", style="cyan")
    numbers.append(f"/s  {size(bytes_per_second)}/s")
    for text, style in now.more:
        numbers.append("  ")
        numbers.append(text, style="bold red" if style == "warning" else "dim")
    grid = Table.grid(expand=True)
    grid.add_row(bar)
    grid.add_row(numbers)
    return grid


def _clock(passed: float) -> str:
    minutes, rest = divmod(int(passed), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def make(name: str, *, quiet: bool = False, live: bool = True) -> Display:
    """The display that suits the terminal; `name` goes before each note. `live=False` where a
    command's own input is typed on it.
    """
    if quiet:
        return QuietDisplay(name)
    if live and sys.stderr is not None and sys.stderr.isatty():
        console = _console()
        if console is not None:
            return LiveDisplay(name, console)
    return Display(name)


def _console() -> Any:
    """A rich console for stderr, or None where there is no rich or the terminal cannot move its
    cursor.
    """
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(stderr=True, highlight=False)
    return console if console.is_terminal and not console.is_dumb_terminal else None
