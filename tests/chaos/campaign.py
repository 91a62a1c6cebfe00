"""One campaign: a cluster behind a network, a sending process, faults, and what came of it."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka_ext.testing import KafkaCluster, Listener

from . import checker, faults, outcomes
from .network import Network

ROOT = Path(__file__).resolve().parents[2]
BROKERS = 3
TOPIC = "chaos"
THREADS = 8
REQUEST_TIMEOUT = 3.0
_START = 90.0


@dataclass(frozen=True)
class Plan:
    """How large, and against what."""

    name: str
    faults: int
    records: int  # at least
    rate: float  # a second, at most
    seed: int
    safe: bool
    message_timeout: float = (
        120.0  # seconds: longer than any fault takes, so that nothing is given up
    )
    blackout: tuple[float, float] = (12.0, 25.0)  # seconds, from and to
    partitions: int = 6
    kinds: tuple[str, ...] = ()  # exactly these faults, in place of those by the seed

    @property
    def capacity(self) -> int:
        """How many records may be sent until the last fault is over: a fault takes less than half a
        minute, most of the time.
        """
        return int(self.records + self.rate * 30 * (len(self.kinds) or self.faults))

    @property
    def producer(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "linger.ms": 30,
            "compression.type": "lz4",
            "batch.size": 200_000,
            "batch.num.messages": 10_000,
            "request.timeout.ms": int(REQUEST_TIMEOUT * 1000),
            "message.timeout.ms": int(self.message_timeout * 1000),
            "retry.backoff.ms": 50,
            "retry.backoff.max.ms": 500,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 500,
            "topic.metadata.refresh.interval.ms": 5_000,
        }
        if not self.safe:
            config |= {"acks": 1, "enable.idempotence": False}
        return config

    def course(self) -> Iterator[str]:
        """The kinds of the faults, one after the other: those asked for, or as many as are wanted,
        for as long as they are.
        """
        if self.kinds:
            yield from self.kinds
            return
        for more in itertools.count():
            yield from faults.plan(faults.MIXES[self.name], self.faults, self.seed + more)


class Senders:
    """The sending process."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self.folder = folder
        self.began = time.monotonic()
        self._log = open(folder / "senders.log", "w")  # noqa: SIM115 - closed by `close`
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "tests.chaos.senders",
            json.dumps({"folder": str(folder), **options}),
        ]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log
        )

    def last(self) -> dict[str, Any]:
        """The newest sample; an empty one before there is any."""
        if (status := self._process.poll()) is not None:
            raise RuntimeError(
                f"the senders have ended with status {status}:"
                f" {(self.folder / 'senders.log').read_text()[-2000:]}"
            )
        try:
            lines = (self.folder / "samples.jsonl").read_text().splitlines()
            return json.loads(lines[-1])  # type: ignore[no-any-return]
        except (FileNotFoundError, IndexError, json.JSONDecodeError):
            return {"reported": 0, "sent": 0}

    def wait_for(self, reported: int, timeout: float) -> None:
        end = time.monotonic() + timeout
        while self.last()["reported"] < reported:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{self.last()['reported']:,} of {reported:,} records were reported within"
                    f" {timeout:.0f} s"
                )
            time.sleep(0.5)

    def finish(self, timeout: float) -> dict[str, Any]:
        """Let them stop, flush and close; what they say of it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait(timeout)
        text = (self.folder / "senders.log").read_text()
        if status != 0:
            raise RuntimeError(f"the senders have ended with status {status}: {text[-2000:]}")
        result: dict[str, Any] = json.loads((self.folder / "senders.json").read_text())
        if text:
            result["wrong"].append(f"the senders have written: {text[-1000:]}")
        return result

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _cluster(network: Network, folder: Path) -> KafkaCluster:
    # The checker does not go through the proxies. Not among the temporary files: others may tidy
    # them up, and this takes long.
    listeners = {"CLIENT": Listener(), "DIRECT": Listener()}
    return KafkaCluster(
        BROKERS, advertised=network.addresses, listeners=listeners, directory=folder, timeout=_START
    )


def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Do it; all that there is to say of it."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
    folder.mkdir(parents=True)
    say(
        f"{plan.name}: {len(plan.kinds) or plan.faults} faults and {plan.records:,} records at"
        f" least, seed {plan.seed}"
    )
    with Network(BROKERS) as network, _cluster(network, folder) as cluster:
        for broker in network.addresses:
            network.tell(broker, target=cluster.address(broker))
        cluster.create_topic(TOPIC, plan.partitions)
        options = {
            "config": {"bootstrap.servers": cluster.bootstrap_servers, **plan.producer},
            "topic": TOPIC,
            "partitions": plan.partitions,
            "threads": THREADS,
            "rate": plan.rate,
            "size": plan.capacity // (THREADS + 1),
        }
        senders = Senders(folder, options)
        try:
            # Not before all is under way: the first records also ask for metadata and a producer
            # id.
            senders.wait_for(1000, _START)
            doing = faults.Faults(
                cluster, network, TOPIC, plan.seed, REQUEST_TIMEOUT, say, blackout=plan.blackout
            )
            for kind in plan.course():
                before = senders.last()["reported"]
                if len(doing.done) >= plan.faults and before >= plan.records:
                    break
                doing.do(kind)
                senders.wait_for(
                    before + 1000, 2 * max(plan.message_timeout, 60)
                )  # it goes on behind each fault
                reported, killed = senders.last()["reported"], faults.kills(doing.done)
                say(
                    f"  {len(doing.done)} faults, {killed} killed leaders, {reported:,} records"
                    " reported"
                )
            senders.wait_for(plan.records, 3600)
            sent = senders.finish(600)
        finally:
            senders.close()
        say(
            f"{sent['sent']:,} sent, {sent['delivered']:,} delivered, {sent['failed']:,} failed;"
            " reading back"
        )
        cluster.wait_in_sync(TOPIC, timeout=faults.IN_SYNC)
        reading = time.monotonic()
        found = checker.check(
            {"bootstrap.servers": cluster.servers("DIRECT")},
            TOPIC,
            plan.partitions,
            outcomes.load(folder, THREADS + 1),
        )
        say(
            f"read back in {time.monotonic() - reading:.0f} s:"
            f" {found.anomalies() or 'no anomalies'}"
        )
    return {
        "plan": vars(plan),
        "producer": plan.producer,
        "began": senders.began,
        "faults": faults.as_json(doing.done),
        "kills": faults.kills(doing.done),
        "senders": sent,
        "findings": found.as_json(),
        "anomalies": found.anomalies(),
    }
