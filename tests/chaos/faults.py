"""What the brokers and the network of the campaign suffer, by a seed."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kafka_ext import KafkaException
from kafka_ext.testing import KafkaCluster

from .network import Network

# Of some sixty faults, how many are of which kind; a plan of another length keeps the proportions.
# The first three kill a leader.
MIX = {
    "kill_leader": 15,
    "kill_leader_and_cut": 6,
    "kill_leader_ahead": 5,
    "pause_leader": 7,
    "restart": 5,
    "move_leaders": 5,
    "cut_requests": 5,
    "lose_responses": 5,
    "corrupt_requests": 4,
    "slow_network": 4,
    "blackout": 2,
}
KILLS = ("kill_leader", "kill_leader_and_cut", "kill_leader_ahead")
# Where records are given up: what keeps them longer than they may take.
TIMEOUT_MIX = {"blackout": 3, "kill_leader": 1}
# Where only records that were lost, doubled or reordered are wanted: what does that to a producer
# without protection.
UNSAFE_MIX = {
    "kill_leader_ahead": 3,
    "lose_responses": 3,
    "corrupt_requests": 3,
    "cut_requests": 1,
    "kill_leader_and_cut": 1,
    "pause_leader": 1,
}
MIXES = {"safe": MIX, "timeouts": TIMEOUT_MIX, "unsafe": UNSAFE_MIX}
IN_SYNC = 120.0
# Of requests that are corrupted, in seconds: longer than records linger, so that several of a
# partition are in flight.
LATENCY = 0.1
COUNTED = ("cut", "lost", "corrupted")  # by the proxies


@dataclass
class Fault:
    """One that has been: when it began and ended (time.monotonic), what it was, and to whom."""

    kind: str
    began: float
    ended: float = 0.0
    detail: str = ""
    counts: dict[str, int] = field(default_factory=dict)


def plan(mix: dict[str, int], count: int, seed: int) -> list[str]:
    """`count` kinds of faults in a random order, each in its proportion and at least once if there
    are enough.
    """
    total = sum(mix.values())
    exact = {kind: count * part / total for kind, part in mix.items()}
    kinds = Counter({kind: int(share) for kind, share in exact.items()})
    # What rounding down has left goes to those it has taken most from.
    for kind in sorted(mix, key=lambda kind: int(exact[kind]) - exact[kind])[
        : count - kinds.total()
    ]:
        kinds[kind] += 1
    chosen = list(kinds.elements())
    random.Random(seed).shuffle(chosen)
    return chosen


class Faults:
    """Does them, to a cluster behind a network; `done` has those that were."""

    def __init__(
        self,
        cluster: KafkaCluster,
        network: Network,
        topic: str,
        seed: int,
        patience: float,
        say: Callable[[str], None],
        *,
        blackout: tuple[float, float],
    ) -> None:
        self.done: list[Fault] = []
        self._cluster = cluster
        self._network = network
        self._topic = topic
        self._random = random.Random(seed)
        self._patience = patience  # longer than a request's timeout
        self._blackout = blackout
        self._say = say

    def do(self, kind: str) -> None:
        """One fault, and the time until the cluster is whole again."""
        fault = Fault(kind, time.monotonic())
        before = self._network.counts()
        self.done.append(fault)
        getattr(self, kind)(fault)
        fault.ended = time.monotonic()
        for broker in range(1, self._cluster.brokers + 1):
            self._network.tell(
                broker,
                cut_requests=0,
                lose_responses=0,
                corrupt_requests=0,
                latency=0.0,
                bandwidth=0.0,
            )
        self._heal()
        fault.counts = {
            name: count - before[name]
            for name, count in self._network.counts().items()
            if name in COUNTED
        }
        self._say(
            f"{kind}: {fault.detail}, {fault.ended - fault.began:.1f} s, whole after"
            f" {time.monotonic() - fault.began:.1f} s {fault.counts}"
        )

    def _heal(self) -> None:
        for broker in range(1, self._cluster.brokers + 1):
            state = self._cluster.state(broker)
            if state == "stopped":
                self._cluster.start(broker, wait=False)
            elif state == "paused":
                self._cluster.resume(broker)
        self._cluster.wait_until_ready(IN_SYNC)
        self._cluster.wait_in_sync(self._topic, timeout=IN_SYNC)

    def _leader(self) -> int:
        """The leader of a partition at random."""
        partitions = sorted(self._cluster.partitions(self._topic))
        while (
            leader := self._cluster.leader(self._topic, self._random.choice(partitions))
        ) is None:
            time.sleep(0.05)
        return leader

    def _others(self, broker: int) -> list[int]:
        return [other for other in range(1, self._cluster.brokers + 1) if other != broker]

    def _wait(self, low: float, high: float) -> None:
        time.sleep(self._random.uniform(low, high))

    # ------------------------------------------------------------------ brokers

    def kill_leader(self, fault: Fault) -> None:
        """SIGKILL, and its successor has some time to itself."""
        leader = self._leader()
        fault.detail = f"broker {leader}"
        self._cluster.kill(leader)
        self._wait(1, 6)

    def kill_leader_and_cut(self, fault: Fault) -> None:
        """SIGKILL, and the other brokers' connections are cut in the middle of a request while they
        take over.
        """
        leader = self._leader()
        fault.detail = f"broker {leader}"
        self._cluster.kill(leader)
        for other in self._others(leader):
            self._network.tell(other, cut_requests=self._random.randint(1, 3))
        self._wait(3, 7)

    def kill_leader_ahead(self, fault: Fault) -> None:
        """SIGKILL of a leader that has got records which the others, being paused, have not: with
        acks=1 it has said yes to them.
        """
        leader = self._leader()
        fault.detail = f"broker {leader}"
        others = self._others(leader)
        for other in others:
            self._cluster.pause(other)
        try:
            self._wait(0.8, 1.6)
            self._cluster.kill(leader)
        finally:
            for other in others:
                self._cluster.resume(other)
        # Long enough for the others to elect a leader among themselves, before the old one is back
        # with what it has.
        self._wait(5, 8)

    def pause_leader(self, fault: Fault) -> None:
        """SIGSTOP past the request's timeout: requests are answered late or by nobody, and another
        leads when it goes on.
        """
        leader = self._leader()
        fault.detail = f"broker {leader}"
        self._cluster.pause(leader)
        self._wait(self._patience * 1.3, self._patience * 2.2)
        self._cluster.resume(leader)

    def restart(self, fault: Fault) -> None:
        """In order: it hands its partitions over."""
        broker = self._random.randint(1, self._cluster.brokers)
        fault.detail = f"broker {broker}"
        self._cluster.stop(broker)
        self._wait(0, 2)

    def move_leaders(self, fault: Fault) -> None:
        """Each partition to the broker after its leader's, by turns."""
        moved = 0
        for partition in self._cluster.partitions(self._topic):
            leader = self._cluster.leader(self._topic, partition)
            if leader is None:
                continue
            try:
                self._cluster.move_leader(
                    self._topic, partition, leader % self._cluster.brokers + 1
                )
                moved += 1
            except KafkaException:
                continue  # not in sync at the moment
        fault.detail = f"{moved} partitions"

    def blackout(self, fault: Fault) -> None:
        """SIGSTOP of all but one: there is no quorum, neither for controllers nor for
        acknowledgements; the queue fills.
        """
        spared = self._random.randint(1, self._cluster.brokers)
        fault.detail = f"all but broker {spared}"
        for broker in self._others(spared):
            self._cluster.pause(broker)
        self._wait(*self._blackout)
        for broker in self._others(spared):
            self._cluster.resume(broker)

    # ------------------------------------------------------------------ the network

    def _until(self, name: str, target: int, timeout: float) -> None:
        """Until the proxies have counted so many, or there is no traffic for it."""
        end = time.monotonic() + timeout
        while self._network.counts()[name] < target and time.monotonic() < end:
            time.sleep(0.05)

    def _lossy(self, fault: Fault, setting: str, counted: str) -> None:
        before = self._network.counts()[counted]
        total = 0
        for broker in range(1, self._cluster.brokers + 1):
            some = self._random.randint(1, 4)
            total += some
            self._network.tell(broker, **{setting: some})
        self._until(counted, before + total, 8)
        fault.detail = f"{self._network.counts()[counted] - before} times"

    def cut_requests(self, fault: Fault) -> None:
        """Connections are cut when half of a produce request has got through."""
        self._lossy(fault, "cut_requests", "cut")

    def lose_responses(self, fault: Fault) -> None:
        """Produce requests are done, and their connections cut in place of an answer."""
        self._lossy(fault, "lose_responses", "lost")

    def corrupt_requests(self, fault: Fault) -> None:
        """Produce requests are changed in a bit on their way: the broker refuses each, while those
        behind it have long been sent.

        Without idempotence these are stored before what was refused is sent again. The network is
        slow, so that there are some.
        """
        for broker in range(1, self._cluster.brokers + 1):
            self._network.tell(broker, latency=LATENCY)
        self._wait(1, 2)
        self._lossy(fault, "corrupt_requests", "corrupted")

    def slow_network(self, fault: Fault) -> None:
        latency, bandwidth = (
            self._random.uniform(0.05, 0.4),
            self._random.uniform(100_000, 1_000_000),
        )
        fault.detail = f"{latency * 1000:.0f} ms, {bandwidth / 1000:.0f} kB/s"
        for broker in range(1, self._cluster.brokers + 1):
            self._network.tell(broker, latency=latency, bandwidth=bandwidth)
        self._wait(4, 8)


def kills(done: list[Fault]) -> int:
    return sum(fault.kind in KILLS for fault in done)


def as_json(done: list[Fault]) -> list[dict[str, Any]]:
    return [vars(fault) for fault in done]
