"""How clients of an event loop are measured: a future for each message, each of them awaited, and
how late the loop is meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any

# So many messages are sent one after the other; so many of these chunks are on their way before the
# oldest is awaited.
CHUNK = 1000
CHUNKS = 20

# A timer that should go off each millisecond: by how many seconds it was late each time, in the run
# at hand.
INTERVAL = 0.001
delays: list[float] = []


async def _watch() -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + INTERVAL
        await asyncio.sleep(INTERVAL)
        delays.append(max(0.0, clock() - due))


async def drive(
    send_some: Callable[[Sequence[bytes]], Awaitable[list[asyncio.Future[Any]]]],
    flush: Callable[[], Awaitable[object]],
    values: Iterable[bytes],
) -> int:
    """Send all of `values`; how many were delivered, after each future has been awaited.
    `send_some` sends a chunk one by one.
    """
    delays.clear()
    watching = asyncio.create_task(_watch())
    under_way: deque[list[asyncio.Future[Any]]] = deque()
    delivered = 0
    rest = iter(values)
    while some := list(islice(rest, CHUNK)):
        under_way.append(await send_some(some))
        if len(under_way) > CHUNKS:
            for future in under_way.popleft():
                await future
                delivered += 1
    await flush()
    for chunk in under_way:
        for future in chunk:
            await future
            delivered += 1
    watching.cancel()
    return delivered
