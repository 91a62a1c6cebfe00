"""A mock cluster and the book-keeping of its faults: what EmbeddedBroker drives, in this process or
in one of its own.

Arguments have been checked and are plain ints and strs, so that they go through a pipe as they are.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kafka_ext._rdkafka import (
    ErrorCode,
    KafkaError,
    KafkaException,
    MockCluster,
    Monitor,
    Thread,
    new_thread,
)

from . import _wire
from ._faults import ApiKey

# "For ever": an acknowledgement that is held back this long is lost as soon as its connection is
# cut.
_HELD_MS = 3_600_000


@dataclass
class _Fault:
    """Errors that were asked for in one call."""

    name: str
    wanted: int
    used: int = 0
    loses_acks: bool = False
    everywhere: bool = False  # queued at every broker, `wanted` times in all

    @property
    def done(self) -> bool:
        return self.used >= self.wanted


@dataclass
class _Shared:
    """Errors of one kind of request that wait in the cluster's own queue for whichever broker gets
    it next.
    """

    pushed: int = 0
    used: int = 0
    seen: int = 0  # requests of this kind when `used` was last brought up to date


@dataclass
class _Entry:
    """One queued error: `(error, delay)` is what the mock cluster was given."""

    fault: _Fault
    error: int
    delay_ms: int = 0


@dataclass
class _Books:
    """All that is queued, and where."""

    # A broker's own queue, by (broker id, API key). Once there was one, the cluster's queue passes
    # that broker by for ever.
    own: dict[tuple[int, int], deque[_Entry]] = field(default_factory=dict)
    shared: dict[int, _Shared] = field(default_factory=dict)
    # Requests seen by brokers that have since got a queue of their own, by API key.
    seen_before: dict[int, int] = field(default_factory=dict)
    tracking: bool = False


class Cluster:
    """`brokers` mock brokers with `topics`, and what can be done to them.

    Args:
        brokers: how many; their ids start at 1.
        topics: names to numbers of partitions.
        ports: where they shall listen; wherever there is room when empty. Only in a process of its
            own: see `_take_port`.
    """

    def __init__(self, brokers: int, topics: Mapping[str, int], ports: Sequence[int] = ()) -> None:
        self._mock = MockCluster(brokers)
        self._native_ports = [
            int(address.rpartition(":")[2]) for address in self._mock.bootstrap_servers.split(",")
        ]
        self._ports = list(ports) or list(self._native_ports)
        self._lock = Monitor()
        self._books = _Books()
        self._stopped: set[int] = set()
        self._delays = dict.fromkeys(range(1, brokers + 1), 0)
        self._watcher: Thread | None = None
        self._watching = 0  # the ident of the thread that it is, or was
        self._closing = False
        try:
            for broker_id in self._delays:
                self._take_port(broker_id)
            for name, partitions in topics.items():
                self._mock.create_topic(name, partitions, min(3, brokers))
        except BaseException:
            self.close()
            raise

    @property
    def ports(self) -> list[int]:
        return list(self._ports)

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def call(self, method: str, *arguments: Any) -> Any:
        """What goes through a pipe to a cluster in another process, is a plain call here."""
        return getattr(self, method)(*arguments)

    def close(self) -> None:
        with self._lock:
            self._closing = True
            watcher = self._watcher
        self._mock.close()
        if watcher is not None and threading.get_ident() != self._watching:
            watcher.join()

    # ------------------------------------------------------------------ topics and brokers

    def create_topic(self, name: str, partitions: int, replication_factor: int) -> None:
        self._mock.create_topic(name, partitions, replication_factor)

    def fail_topic(self, name: str, error: int) -> None:
        self._mock.set_topic_error(name, error)

    def round_trip_time(self, milliseconds: int, broker_id: int | None) -> None:
        with self._lock:
            for each in self._delays if broker_id is None else [broker_id]:
                self._mock.set_round_trip_time(each, milliseconds)
                self._delays[each] = milliseconds

    def move_leader(self, topic: str, partition: int, broker_id: int) -> None:
        with self._lock:
            # The mock cluster would make the topic, or the partition, to have something to set the
            # leader of.
            if partition not in self._leaders().get(topic, {}):
                raise KafkaException(
                    KafkaError(
                        ErrorCode["UNKNOWN_TOPIC_OR_PART"],
                        f"there is no partition {partition} of {topic!r}",
                    )
                )
            self._mock.set_leader(topic, partition, broker_id)

    def stop_broker(self, broker_id: int) -> None:
        with self._lock:
            if broker_id in self._stopped:
                return
            self._mock.set_up(broker_id, False)
            self._stopped.add(broker_id)
            up = [each for each in self._delays if each not in self._stopped]
            if not up:
                return
            # What a real cluster's controller does: a partition whose leader is gone gets another,
            # one of its replicas if it can.
            for topic, partitions in self._leaders().items():
                for partition, (leader, replicas) in partitions.items():
                    if leader == broker_id:
                        heirs = [each for each in replicas if each in up] or up
                        self._mock.set_leader(topic, partition, heirs[partition % len(heirs)])

    def start_broker(self, broker_id: int) -> None:
        with self._lock:
            if broker_id in self._stopped:
                self._mock.set_up(broker_id, True)
                self._take_port(broker_id)
                self._stopped.discard(broker_id)

    def _leaders(self) -> dict[str, dict[int, tuple[int, list[int]]]]:
        up = [each for each in self._delays if each not in self._stopped]
        if not up:
            raise KafkaException(
                KafkaError(
                    ErrorCode["STATE"],
                    "every broker is stopped: there is none to ask who leads what",
                )
            )
        broker_id = min(up, key=self._delays.__getitem__)
        return _wire.leaders(self._ports[broker_id - 1], 10 + self._delays[broker_id] / 500)

    # ------------------------------------------------------------------ errors on requests

    def fail_requests(self, api_key: int, errors: Sequence[int], broker_id: int | None) -> None:
        with self._lock:
            self._settle()
            fault = _Fault(f"fail_requests(ApiKey.{ApiKey(api_key).name})", len(errors))
            entries = [_Entry(fault, error) for error in errors]
            if broker_id is not None or len(self._delays) == 1:
                self._queue(broker_id or 1, api_key, entries)
            elif any(key == api_key for _, key in self._books.own):
                self._queue_everywhere(api_key, entries)
            else:
                self._share(api_key, errors)

    def lose_acks(self, count: int) -> None:
        with self._lock:
            self._settle()
            fault = _Fault("lose_acks", count, loses_acks=True)
            # The record is appended, its answer held back; the watcher then cuts the connection
            # that waits for it.
            self._queue_everywhere(
                ApiKey.PRODUCE, [_Entry(fault, 0, _HELD_MS) for _ in range(count)]
            )

    def unused_faults(self) -> list[str]:
        with self._lock:
            self._settle()
            faults = {
                id(entry.fault): entry.fault
                for entries in self._books.own.values()
                for entry in entries
            }
            unused = [
                f"{fault.name}: {fault.wanted - fault.used} of {fault.wanted}"
                for fault in faults.values()
                if not fault.done
            ]
            unused += [
                f"fail_requests(ApiKey.{ApiKey(api_key).name}): {shared.pushed - shared.used} of"
                f" {shared.pushed}"
                for api_key, shared in self._books.shared.items()
                if shared.used < shared.pushed
            ]
            return unused

    def clear_faults(self) -> None:
        with self._lock:
            self._settle()
            for (broker_id, api_key), entries in self._books.own.items():
                self._use_up(broker_id, api_key)
                entries.clear()
            for api_key in self._books.shared:
                self._mock.clear_cluster_errors(api_key)
            self._stop_tracking()

    def _queue(self, broker_id: int, api_key: int, entries: list[_Entry]) -> None:
        key = (broker_id, api_key)
        if key not in self._books.own:
            if self._books.tracking:
                before = self._books.seen_before.get(api_key, 0)
                self._books.seen_before[api_key] = before + self._mock.count_requests().get(key, 0)
            self._books.own[key] = deque()
        self._mock.push_errors(
            broker_id, api_key, [(entry.error, entry.delay_ms) for entry in entries]
        )
        self._books.own[key].extend(entries)

    def _queue_everywhere(self, api_key: int, entries: list[_Entry]) -> None:
        """Queue at every broker what shall happen once: the watcher takes back what is left when it
        has.
        """
        if self._watcher is None:  # first, for it may not be to be had; it waits for the lock
            watcher = new_thread("kafka_ext faults", self._watch)
            watcher.start()
            self._watcher = watcher
        for entry in entries:
            entry.fault.everywhere = len(self._delays) > 1
        for broker_id in self._delays:
            self._queue(broker_id, api_key, entries)

    def _share(self, api_key: int, errors: Sequence[int]) -> None:
        if not self._books.tracking:
            self._mock.track_requests(True)
            self._books.tracking = True
        shared = self._books.shared.setdefault(api_key, _Shared())
        if shared.used >= shared.pushed:
            shared.pushed = shared.used = 0
        shared.seen = self._seen(api_key, self._mock.count_requests())
        self._mock.push_cluster_errors(api_key, errors)
        shared.pushed += len(errors)

    def _seen(self, api_key: int, requests: Mapping[tuple[int, int], int]) -> int:
        taking_part = sum(
            n
            for (broker_id, key), n in requests.items()
            if key == api_key and (broker_id, key) not in self._books.own
        )
        return taking_part + self._books.seen_before.get(api_key, 0)

    def _stop_tracking(self) -> None:
        if self._books.tracking:
            self._mock.track_requests(False)
            self._books.tracking = False
            self._books.shared.clear()
            self._books.seen_before.clear()

    def _settle(self) -> None:
        """Bring the books up to date with what requests have used, and cut the connections whose
        acknowledgements are lost.
        """
        cut: set[int] = set()
        ended = False
        for (broker_id, api_key), entries in self._books.own.items():
            left = self._mock.count_errors(broker_id, api_key) if entries else 0
            while len(entries) > left:
                fault = entries.popleft().fault
                fault.used += 1
                ended = ended or (fault.everywhere and fault.done)
                if fault.loses_acks:
                    cut.add(broker_id)
        for broker_id in cut - self._stopped:
            # Stopping and starting it would do as well, but clients that come back at once would be
            # refused meanwhile, and wait longer.
            _cut_connections(self._ports[broker_id - 1])
        if ended:
            self._take_back()
        if self._books.tracking:
            requests = self._mock.count_requests()
            for api_key, shared in self._books.shared.items():
                seen = self._seen(api_key, requests)
                shared.used = min(shared.pushed, shared.used + seen - shared.seen)
                shared.seen = seen
            if all(shared.used >= shared.pushed for shared in self._books.shared.values()):
                self._stop_tracking()

    def _take_back(self) -> None:
        """What was queued at every broker and has happened somewhere, shall not happen elsewhere as
        well.
        """
        for (broker_id, api_key), entries in self._books.own.items():
            kept = [entry for entry in entries if not (entry.fault.everywhere and entry.fault.done)]
            if len(kept) != len(entries):
                self._use_up(broker_id, api_key)
                entries.clear()
                entries.extend(kept)
                self._mock.push_errors(
                    broker_id, api_key, [(entry.error, entry.delay_ms) for entry in kept]
                )

    def _use_up(self, broker_id: int, api_key: int) -> None:
        """Empty a broker's queue of errors, by requests that use them up: there is no other way to
        take them back.
        """
        stopped = broker_id in self._stopped
        if stopped and self._mock.count_errors(broker_id, api_key):
            self._mock.set_up(broker_id, True)
            self._take_port(broker_id)
        give_up = time.monotonic() + 10
        while (left := self._mock.count_errors(broker_id, api_key)) and time.monotonic() < give_up:
            _wire.use_up(self._ports[broker_id - 1], api_key, left)
        if stopped:
            self._mock.set_up(broker_id, False)

    def _watch(self) -> None:
        """In a thread of its own, while acknowledgements are to be lost. It waits
        without the GIL.
        """
        self._watching = threading.get_ident()
        try:
            while True:
                with self._lock:
                    if self._closing:
                        return
                    self._settle()
                    watched = [
                        (broker_id, api_key, len(entries))
                        for (broker_id, api_key), entries in self._books.own.items()
                        if any(
                            entry.fault.everywhere or entry.fault.loses_acks for entry in entries
                        )
                    ]
                    if not watched:
                        self._watcher = None
                        return
                self._mock.wait_for_errors(watched, 100)
        except KafkaException:
            if not self._closing:
                raise

    # ------------------------------------------------------------------ ports

    def _take_port(self, broker_id: int) -> None:
        """Listen where the broker is wanted instead of where librdkafka put it.

        librdkafka binds to whatever port is free. A cluster that comes back under its old address
        puts a socket of its own in the place of librdkafka's, under the same descriptor; only safe
        where nothing else opens descriptors meanwhile.
        """
        native, wanted = self._native_ports[broker_id - 1], self._ports[broker_id - 1]
        if native == wanted:
            return
        descriptor = _listening_descriptor(native)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", wanted))
            listener.listen(128)
            fcntl.fcntl(listener, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL))
            os.dup2(listener.fileno(), descriptor, inheritable=False)
        self._mock.set_port(broker_id, wanted)
        # Its thread sleeps on the old socket until something wakes it.
        self._mock.set_round_trip_time(broker_id, self._delays[broker_id])


def _sockets(port: int) -> Iterator[tuple[int, _socket.socket]]:
    """This process's IPv4 sockets whose own port is `port`: their descriptors, and a socket object
    of each that does not own it.

    Nothing is duplicated: closing a duplicate of a file's descriptor would drop the POSIX locks
    that the process has on that file. The type of socket is the one that gevent leaves alone: its
    own makes a hub, which crashes at the end of a thread that gevent has not made.
    """
    for name in os.listdir("/dev/fd"):
        descriptor = int(name)
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            probe = _socket.socket(fileno=descriptor)
        except OSError:
            continue  # closed meanwhile, as the listing itself is
        try:
            if probe.family == socket.AF_INET and probe.getsockname() == ("127.0.0.1", port):
                yield descriptor, probe
        except OSError:
            pass
        finally:
            probe.detach()


def _listens(probe: _socket.socket) -> bool:
    return bool(probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _listening_descriptor(port: int) -> int:
    for descriptor, probe in _sockets(port):
        if _listens(probe):
            return descriptor
    raise OSError(f"no socket of this process listens on port {port}")


def _cut_connections(port: int) -> None:
    """Cut every connection to a broker of this process; it finds out as it would if its clients had
    gone.
    """
    for _, probe in _sockets(port):
        if not _listens(probe):
            try:
                probe.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # gone already
