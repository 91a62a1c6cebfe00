"""What is compared with what, and how far it must get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .job import FIRST, FIRST_PLAIN, FIRST_TRANSACTIONAL, SEND_TIME, Job, Measured

# librdkafka's default limit is 1,000,000 bytes with all that is around a value.
LARGE = 2_000_000

# What is compared by subtraction, and its unit.
DIFFERENCES = {"memory a message": "B", "first delivery": "ms"}

# Producers of the cases that measure a first delivery.
NEW = 20

# Messages of the cases that compare a batch's length.
LONGEST = 10_000_000


@dataclass(frozen=True)
class Case:
    """A row of the table: two jobs, and the ratio of a figure of theirs. Ratios are of a pair of
    runs, one right after the other.
    """

    name: str
    title: str
    ours: Job
    against: Job
    figure: Literal[
        "rate",
        "peak memory",
        "time in send",
        "memory a message",
        "loop delay",
        "processor time a message",
        "first delivery",
    ]
    at_least: float | None = None
    at_most: float | None = None

    def of(self, job: Job, measured: Measured) -> float:
        """The figure: messages a second, MiB, nanoseconds, bytes or milliseconds."""
        if self.figure == "processor time a message":
            return measured.cpu_seconds * 1e9 / job.count
        if self.figure == "rate":
            return job.count / measured.seconds
        if self.figure == "peak memory":
            return measured.peak_kib / 1024
        if self.figure == "memory a message":
            return (measured.peak_kib - measured.before_kib) * 1024 / job.count
        if self.figure == "loop delay":
            assert measured.loop_delay_ms is not None
            return measured.loop_delay_ms
        if self.figure == "first delivery":
            assert measured.first_ms is not None
            return measured.first_ms
        assert measured.send_ns is not None
        return measured.send_ns

    def compared(self, ours: Measured, against: Measured) -> float:
        """The ratio of a pair, or, of memory a message and of a first delivery, how much more ours
        takes.
        """
        a, b = self.of(self.ours, ours), self.of(self.against, against)
        return a - b if self.figure in DIFFERENCES else a / b

    def reached(self, ratio: float) -> bool:
        return (
            ratio >= self.at_least if self.at_least is not None else ratio <= (self.at_most or 0.0)
        )

    @property
    def wanted(self) -> str:
        if self.figure in DIFFERENCES:
            return f"at most {self.at_most:g} {DIFFERENCES[self.figure]} more"
        return (
            f"at least {self.at_least:g}"
            if self.at_least is not None
            else f"at most {self.at_most:g}"
        )

    def told(self, ratio: float) -> str:
        if self.figure in DIFFERENCES:
            return (
                f"{ratio:+.{1 if self.figure == 'first delivery' else 0}f}"
                f" {DIFFERENCES[self.figure]}"
            )
        return f"{ratio:.2f}"


CASES = (
    Case(
        name="callback-100",
        title="a callback each, 100 B",
        ours=Job("kafka_ext", "callback", 1_000_000, 100),
        against=Job("confluent-kafka", "callback", 1_000_000, 100),
        figure="rate",
        at_least=3.0,
    ),
    Case(
        name="callback-10k",
        title="a callback each, 10 kB",
        ours=Job("kafka_ext", "callback", 200_000, 10_000),
        against=Job("confluent-kafka", "callback", 200_000, 10_000),
        figure="rate",
        at_least=2.0,
    ),
    Case(
        name="no-callback-100",
        title="no callback, 100 B",
        ours=Job("kafka_ext", "no-callback", 2_000_000, 100),
        against=Job("C", "produce", 2_000_000, 100),
        figure="rate",
        at_least=0.8,
    ),
    *(
        Case(
            name=f"{way}-{label}{'-confluent' if client == 'confluent-kafka' else ''}",
            title=f"{what} of 1000, {title}",
            ours=Job("kafka_ext", way, count, size, batch=1000),
            # What a list is to confluent-kafka, it makes of it itself; of Arrow it knows nothing,
            # and gets the same values in lists.
            against=Job(client, way if client == "C" else "batch", count, size, batch=1000),
            figure="rate",
            at_least=wanted,
        )
        for way, what in (
            ("batch", "lists"),
            ("column", "Arrow columns"),
        )
        for label, title, size, count in (
            ("100", "100 B", 100, 4_000_000),
            ("1k", "1 kB", 1000, 2_000_000),
            ("10k", "10 kB", 10_000, 200_000),
        )
        for client, wanted in (
            ("C", 0.95),
            ("confluent-kafka", 2.5),
        )
        if client == "C" or size < 10_000
    ),
    # Of all threads: what a message costs, also where a longer batch only moves the cost to before
    # its first message.
    *(
        Case(
            name=f"batch-length-{label}",
            title=f"lists of {length:,}, 100 B",
            ours=Job("kafka_ext", "batch", LONGEST, 100, batch=length),
            against=Job("kafka_ext", "batch", LONGEST, 100, batch=1000),
            figure="processor time a message",
            at_most=1.05,
        )
        for label, length in (
            ("10k", 10_000),
            ("100k", 100_000),
            ("1m", 1_000_000),
            ("10m", LONGEST),
        )
    ),
    *(
        Case(
            name=f"{way}-memory",
            title=f"{what} of 1,000,000 in flight, 100 B",
            ours=Job("kafka_ext", way, 1_000_000, 100, batch=1_000_000, held=True),
            against=Job("C", way, 1_000_000, 100, batch=1_000_000, held=True),
            figure="memory a message",
            at_most=64,
        )
        for way, what in (("batch", "a list"), ("column", "an Arrow column"))
    ),
    Case(
        name="asyncio-100",
        title="asyncio, a future each, 100 B",
        ours=Job("kafka_ext", "asyncio", 1_000_000, 100),
        against=Job("confluent-kafka", "asyncio", 300_000, 100),
        figure="rate",
        at_least=6.0,
    ),
    Case(
        name="asyncio-100-aiokafka",
        title="asyncio, a future each, 100 B",
        ours=Job("kafka_ext", "asyncio", 1_000_000, 100),
        against=Job("aiokafka", "asyncio", 150_000, 100),
        figure="rate",
        at_least=6.0,
    ),
    Case(
        name="loop-delay-100",
        title="asyncio, loop late, 99th percentile",
        ours=Job("kafka_ext", "asyncio", 1_000_000, 100),
        against=Job("confluent-kafka", "asyncio", 300_000, 100),
        figure="loop delay",
        at_most=1.0,
    ),
    Case(
        name="loop-delay-100-aiokafka",
        title="asyncio, loop late, 99th percentile",
        ours=Job("kafka_ext", "asyncio", 1_000_000, 100),
        against=Job("aiokafka", "asyncio", 150_000, 100),
        figure="loop delay",
        at_most=1.0,
    ),
    Case(
        name="memory-10k",
        title="10 kB not copied",
        # A hundred values sent in turn, so that it is the queue that is seen and not the values.
        ours=Job("kafka_ext", "no-callback", 400_000, 10_000, hot=100),
        against=Job("kafka_ext", "copy", 400_000, 10_000, hot=100),
        figure="peak memory",
        at_most=0.2,
    ),
    Case(
        name="send-time-1m",
        title="caller's time in send, 1 MB",
        ours=Job("kafka_ext", SEND_TIME, 2_000, 1_000_000, message_max_bytes=LARGE),
        against=Job("kafka_ext", SEND_TIME, 2_000, 100, message_max_bytes=LARGE),
        figure="time in send",
        at_most=1.5,
    ),
    *(
        Case(
            name=f"first-delivery{label}",
            title=f"a new producer's first delivery, {title}",
            ours=Job("kafka_ext", way, NEW, 100),
            against=Job(client, other, NEW, 100),
            figure="first delivery",
            at_most=most,
        )
        for label, title, way, client, other, most in (
            ("", "idempotent", FIRST, "kafka_ext", FIRST_PLAIN, 20),
            ("-transactional", "transactional", FIRST_TRANSACTIONAL, "kafka_ext", FIRST_PLAIN, 20),
            ("-plain-confluent", "not idempotent", FIRST_PLAIN, "confluent-kafka", FIRST_PLAIN, 2),
            ("-confluent", "idempotent", FIRST, "confluent-kafka", FIRST, 2),
        )
    ),
)

# Measured beside the cases, a few rounds in turn, with no bar to reach: where everybody stands.
OVERVIEW = (
    Job("kafka_ext", "callback", 1_000_000, 100),
    Job("kafka_ext", "callback-manual", 1_000_000, 100),
    Job("kafka_ext", "no-callback", 2_000_000, 100),
    Job("kafka_ext", "no-callback-manual", 2_000_000, 100),
    Job("kafka_ext", "copy", 2_000_000, 100),
    Job("kafka_ext", "batch", 2_000_000, 100, batch=1000),
    Job("confluent-kafka", "callback", 1_000_000, 100),
    Job("confluent-kafka", "callback-poll-each", 1_000_000, 100),
    Job("confluent-kafka", "no-callback", 1_000_000, 100),
    Job("confluent-kafka", "batch", 1_000_000, 100, batch=1000),
    Job("aiokafka", "callback", 60_000, 100),
    Job("kafka-python", "callback", 30_000, 100),
    Job("C", "produce", 2_000_000, 100),
    Job("C", "produce-inline", 2_000_000, 100),
    Job("C", "copy", 2_000_000, 100),
    Job("C", "batch", 2_000_000, 100, batch=1000),
    Job("kafka_ext", "callback", 200_000, 10_000),
    Job("kafka_ext", "no-callback", 200_000, 10_000),
    Job("kafka_ext", "copy", 200_000, 10_000),
    Job("kafka_ext", "batch", 200_000, 10_000, batch=1000),
    Job("confluent-kafka", "callback", 200_000, 10_000),
    Job("confluent-kafka", "no-callback", 200_000, 10_000),
    Job("aiokafka", "callback", 20_000, 10_000),
    Job("C", "produce", 200_000, 10_000),
    Job("C", "copy", 200_000, 10_000),
    Job("C", "batch", 200_000, 10_000, batch=1000),
    # The same few values again and again: flatters everybody, shown to say by how much.
    Job("kafka_ext", "callback", 1_000_000, 100, hot=16),
    Job("kafka_ext", "no-callback", 2_000_000, 100, hot=16),
    Job("confluent-kafka", "callback", 1_000_000, 100, hot=16),
    Job("C", "produce", 2_000_000, 100, hot=16),
    # Beside the memory case and the caller's time.
    Job("confluent-kafka", "no-callback", 200_000, 10_000, hot=100),
    Job("confluent-kafka", SEND_TIME, 2_000, 1_000_000, message_max_bytes=LARGE),
    Job("confluent-kafka", SEND_TIME, 2_000, 100, message_max_bytes=LARGE),
)
