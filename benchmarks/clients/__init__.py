"""One file a client. Each has `VERSION` and `WAYS`: by name, a function that makes a sender.

A sender is called with an iterable of values and returns, when every one of them has been reported, how many were delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

Sender: TypeAlias = Callable[[Iterable[bytes]], int]
