"""One file a client. Each has `VERSION` and `WAYS`: by name, a function that makes a sender; some
have `send_time` too.

A sender is called with an iterable of values and returns, when every one of them has been reported,
how many were delivered. A burst is called with a few values, sends them, waits for their reports
and returns how long the calls that sent them took together, in ns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

Sender: TypeAlias = Callable[[Iterable[bytes]], int]
Burst: TypeAlias = Callable[[Sequence[bytes]], int]
