"""`kafka-ext perf`: a load, its throughput and its latencies, as
kafka-producer-perf-test has them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from typing import Any

from .. import _rdkafka
from .._rdkafka import KafkaError, KafkaException, ProducerRecord, RecordMetadata
from ..producer import KafkaProducer
from . import _display as displays
from . import _settings as settings
from ._display import Display, Status
from ._interrupts import Interrupts
from ._session import Failures, finish, open_producer

_EPILOG = """\
examples:
  as fast as it goes, a million records of 100 bytes:
      kafka-ext perf -b localhost:9092 --topic load
  latency at a fixed rate, which says more than latency at full speed:
      kafka-ext perf -b localhost:9092 --topic load --throughput 50000 --record-size 1000 -X linger.ms=0
  for a script:
      kafka-ext perf --num-records 100000 --json | python3 -m json.tool

A record's latency goes from its send to the broker's acknowledgement, waiting in the local queue included; at full speed the queue is
full, and its length is most of the latency. The first record also waits for connections and metadata: --warmup-records leaves
that out. Values are different random capital letters. The exit status is that of `kafka-ext produce`.
"""

PERCENTILES = (50.0, 95.0, 99.0, 99.9)
# Latencies are counted in tenths of a millisecond.
_RESOLUTION = 10_000
# How much memory the different values may take, and how many there are at most.
_PAYLOAD_BYTES = 16 * 1024 * 1024
_PAYLOADS = 10_000
_BURST = 10_000


def _rate(text: str) -> int:
    return -1 if text == "-1" else settings.count(1)(text)


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "perf",
        help="a load with throughput and latency percentiles",
        description="Send a load and report its throughput and the percentiles of its latency.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    group = parser.add_argument_group("load")
    group.add_argument("-t", "--topic", default="perf", help="where to send to (default: perf)")
    group.add_argument(
        "-n",
        "--num-records",
        metavar="N",
        type=settings.count(1),
        default=1_000_000,
        help="how many (default: 1,000,000)",
    )
    group.add_argument(
        "-s",
        "--record-size",
        metavar="BYTES",
        type=settings.count(0),
        default=100,
        help="of each value (default: 100)",
    )
    group.add_argument(
        "-r",
        "--throughput",
        metavar="RATE",
        type=_rate,
        default=-1,
        help="at most so many records a second (default: -1, no limit)",
    )
    group.add_argument(
        "-w",
        "--warmup-records",
        metavar="N",
        type=settings.count(0),
        default=0,
        help="records sent before, and not counted (default: 0)",
    )
    group.add_argument(
        "--partitions",
        metavar="N",
        type=settings.count(1),
        default=4,
        help="of the topic in the embedded broker (default: 4)",
    )
    settings.add_arguments(parser)
    group = parser.add_argument_group("output")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress")
    group.add_argument("--json", action="store_true", help="the result as a JSON object")
    parser.set_defaults(run=run)


def make_payloads(size: int, number: int) -> list[bytes]:
    """Random values of capital letters, all different (as far as their size allows) and enough not
    to live in a cache.
    """
    letters = bytes(ord("A") + byte % 26 for byte in range(256))
    wanted = max(1, min(number, _PAYLOADS, _PAYLOAD_BYTES // max(size, 1)))
    return [os.urandom(size).translate(letters) for _ in range(wanted)]


class Latencies:
    """Counts of latencies, to a tenth of a millisecond: their memory does not grow with the number
    of records.
    """

    def __init__(self) -> None:
        self.counts: defaultdict[int, int] = defaultdict(int)

    def summary(self) -> dict[str, float | None]:
        """Average, percentiles and maximum, in milliseconds; None without a single latency."""
        names = [f"p{percent:g}" for percent in PERCENTILES]
        counts = sorted(self.counts.items())
        total = sum(count for _, count in counts)
        if not total:
            return dict.fromkeys(["avg", *names, "max"])
        found: dict[str, float | None] = {
            "avg": round(sum(tenths * count for tenths, count in counts) / total / 10, 2)
        }
        passed, place = 0, 0
        for percent, name in zip(PERCENTILES, names, strict=True):
            # The smallest latency that this share of the records does not exceed.
            while place < len(counts) - 1 and (passed + counts[place][1]) * 100 < percent * total:
                passed += counts[place][1]
                place += 1
            found[name] = counts[place][0] / 10
        found["max"] = counts[-1][0] / 10
        return found


class _Load:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.topic: str = arguments.topic
        self.number: int = arguments.num_records
        self.size: int = arguments.record_size
        self.rate: int = arguments.throughput
        self.warmup: int = arguments.warmup_records
        self.payloads = make_payloads(self.size, max(self.number, self.warmup))
        self.attempted = 0
        self.delivered = 0
        self.failures = Failures()
        self.latencies = Latencies()

    def on_delivery(self, metadata: RecordMetadata, error: KafkaError | None) -> None:
        if error is not None:
            self.failures.add(error, metadata.record_id)
            return
        self.delivered += 1
        latency = metadata.latency
        if latency is not None:
            self.latencies.counts[int(latency * _RESOLUTION)] += 1

    def warm_up(self, producer: KafkaProducer) -> None:
        """Connections, metadata and caches, and nothing of it in the result."""
        for number in range(self.warmup):
            producer.send(ProducerRecord(self.topic, self.payloads[number % len(self.payloads)]))
        producer.flush()

    def send_all(self, producer: KafkaProducer) -> None:
        began = time.perf_counter()
        while self.attempted < self.number:
            burst = min(_BURST, self.number - self.attempted)
            if self.rate > 0:
                passed = time.perf_counter() - began
                due = int(passed * self.rate) + 1 - self.attempted  # the first is due at once
                if due <= 0:
                    time.sleep(self.attempted / self.rate - passed)
                    continue
                burst = min(burst, due)
            if not self._send(producer, burst):
                return

    def _send(self, producer: KafkaProducer, burst: int) -> bool:
        send, topic, payloads, on_delivery = (
            producer.send,
            self.topic,
            self.payloads,
            self.on_delivery,
        )
        different = len(payloads)
        for number in range(self.attempted, self.attempted + burst):
            try:
                send(
                    ProducerRecord(topic, payloads[number % different], id=number + 1), on_delivery
                )
            except KafkaException as exc:
                self.failures.add(exc.error, number + 1)
                if exc.error.is_fatal:
                    return False
            self.attempted = number + 1
        return True

    def status(self, producer: KafkaProducer) -> Status:
        more = [(f"{producer.metrics().outstanding:,} on their way", "")]
        if self.failures.count:
            more.append((f"{self.failures.count:,} failed", "warning"))
        return Status(
            self.delivered, self.delivered * self.size, self.attempted, self.number, tuple(more)
        )

    def result(self, seconds: float) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "record_size": self.size,
            "records": self.delivered + self.failures.count,  # all have been reported
            "delivered": self.delivered,
            "failed": self.failures.count,
            "seconds": round(seconds, 6),
            "records_per_second": round(self.delivered / seconds, 1),
            "bytes_per_second": round(self.delivered * self.size / seconds, 1),
            "latency_ms": self.latencies.summary(),
            "errors": self.failures.counts(),
        }


def _as_text(result: dict[str, Any]) -> str:
    latency = "   ".join(
        f"{name} {'-' if value is None else format(value, ',.1f')}"
        for name, value in result["latency_ms"].items()
    )
    return (
        f"{displays.records(result['delivered'])} of {displays.size(result['record_size'])}"
        f" delivered to {result['topic']} in {displays.seconds(result['seconds'])}\nthroughput   "
        f" {result['records_per_second']:,.0f} records/s  "
        f" {displays.size(result['bytes_per_second'])}/s\nlatency, ms   {latency}"
    )


def _work(load: _Load, producer: KafkaProducer, interrupts: Interrupts, display: Display) -> float:
    """Send the load and wait for every report; the seconds it took."""
    began = time.perf_counter()
    try:
        with interrupts.raising():
            if load.warmup:
                display.note(f"warming up with {displays.records(load.warmup)}")
                load.warm_up(producer)
                began = time.perf_counter()
            with display.progress(lambda: load.status(producer)):
                load.send_all(producer)
                producer.flush()
    except KeyboardInterrupt:
        pass
    finish(producer, interrupts, display)
    return time.perf_counter() - began


def run(arguments: argparse.Namespace) -> int:
    _rdkafka.check_topic_name(arguments.topic)
    properties = settings.read_properties(arguments)
    display = displays.make("kafka-ext perf", quiet=arguments.quiet)
    load = _Load(arguments)
    with (
        Interrupts() as interrupts,
        open_producer(properties, display, {load.topic: arguments.partitions}) as producer,
    ):
        seconds = _work(load, producer, interrupts, display)
    result = load.result(seconds)
    load.failures.report(display, result["records"])
    displays.out(json.dumps(result) if arguments.json else _as_text(result))
    return interrupts.exit_status or int(load.failures.count > 0)
