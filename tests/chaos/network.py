"""The network of the campaign: `python -m tests.chaos.network COUNT`, a process with a proxy for
each broker, which knows Kafka's frames.

Commands come by standard input, a line of JSON each, and are answered by standard output; it ends
when the input does. `Network` is its near side.
"""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

_PRODUCE = 0
# Behind a produce request's last record batch there are a few bytes of empty tags at most: this far
# from its end is a record.
_IN_RECORDS = 12
_CHUNK = 1 << 16


class Link:
    """The way to one broker."""

    def __init__(self) -> None:
        self.target = ("127.0.0.1", 1)  # where nobody listens, until it is known
        self.address = ("", 0)
        # so many produce requests to come are forwarded to their half, and their connection is cut
        self.cut_requests = 0
        # so many produce requests to come are answered to nobody: their connection is cut in place
        # of it
        self.lose_responses = 0
        # so many produce requests to come are changed in a bit, and the broker refuses them for
        # their checksum
        self.corrupt_requests = 0
        self.latency = 0.0  # seconds that each request and each response is held back
        self.bandwidth = 0.0  # bytes a second, 0 for no limit
        self.connections: set[asyncio.StreamWriter] = set()
        self.counts = {"connections": 0, "cut": 0, "lost": 0, "corrupted": 0, "bytes": 0}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        self.counts["connections"] += 1
        both = {writer, far_writer}
        self.connections |= both
        losing: set[int] = set()
        pumps = [
            asyncio.ensure_future(self._requests(reader, far_writer, losing)),
            asyncio.ensure_future(self._responses(far_reader, writer, losing)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self.connections -= both
        for end in both:
            end.transport.abort()  # at once, like a connection that was reset
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: set[int]
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await self._frame(reader)
                api_key, _, correlation = struct.unpack_from(">hhi", frame, 4)
                if api_key == _PRODUCE and self.cut_requests:
                    self.cut_requests -= 1
                    self.counts["cut"] += 1
                    await self._pass(frame[: len(frame) // 2], writer)
                    return
                if api_key == _PRODUCE and self.lose_responses:
                    self.lose_responses -= 1
                    losing.add(correlation)
                if api_key == _PRODUCE and self.corrupt_requests:
                    self.corrupt_requests -= 1
                    self.counts["corrupted"] += 1
                    frame = (
                        frame[:-_IN_RECORDS]
                        + bytes([frame[-_IN_RECORDS] ^ 1])
                        + frame[1 - _IN_RECORDS :]
                    )
                await self._pass(frame, writer)

    async def _responses(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: set[int]
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await self._frame(reader)
                if struct.unpack_from(">i", frame, 4)[0] in losing:
                    self.counts["lost"] += 1
                    return
                await self._pass(frame, writer)

    @staticmethod
    async def _frame(reader: asyncio.StreamReader) -> bytes:
        head = await reader.readexactly(4)
        return head + await reader.readexactly(struct.unpack(">i", head)[0])

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.latency:
            await asyncio.sleep(self.latency)
        if self.bandwidth:
            await asyncio.sleep(len(data) / self.bandwidth)
        self.counts["bytes"] += len(data)
        writer.write(data)
        await writer.drain()

    def cut_all(self) -> None:
        for end in list(self.connections):
            end.transport.abort()


async def main(count: int) -> None:
    links = [Link() for _ in range(count)]
    for link in links:
        server = await asyncio.start_server(link.serve, "127.0.0.1", 0, limit=_CHUNK)
        link.address = server.sockets[0].getsockname()
    print(json.dumps([link.address for link in links]), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        link = links[command["broker"] - 1]
        if command.get("cut_all"):
            link.cut_all()
        for name, value in command.get("set", {}).items():
            setattr(link, name, tuple(value) if isinstance(value, list) else value)
        print(json.dumps(link.counts), flush=True)


class Network:
    """The proxies' process, as the campaign sees it: `addresses` by broker id, and
    orders for each.
    """

    def __init__(self, brokers: int) -> None:
        self._lock = threading.Lock()
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.network", str(brokers)],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.addresses: dict[int, tuple[str, int]] = {
            n: tuple(address) for n, address in enumerate(self._answer(), 1)
        }

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the proxies' process has ended with status {self._process.wait()}")
        return json.loads(line)

    def tell(self, broker: int, *, cut_all: bool = False, **settings: Any) -> dict[str, int]:
        """Set attributes of a broker's link, or cut all its connections; what it has counted so
        far.
        """
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(
                json.dumps({"broker": broker, "cut_all": cut_all, "set": settings}) + "\n"
            )
            self._process.stdin.flush()
            counts: dict[str, int] = self._answer()
            return counts

    def counts(self) -> dict[str, int]:
        """What all links have counted so far, together."""
        total: dict[str, int] = {}
        for broker in self.addresses:
            for name, count in self.tell(broker).items():
                total[name] = total.get(name, 0) + count
        return total

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
