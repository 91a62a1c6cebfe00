"""One measurement: who sends what. It crosses a process border as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

TOPIC = "benchmark"
PARTITIONS = 4
WARM_UP = 1000

# What every client built on librdkafka is given, and what the others are given by their own names.
# Idempotence is kafka_ext's default. A partitioner by name because the defaults differ; without a
# key they all choose at random.
LIBRDKAFKA = {
    "linger.ms": "5",
    "acks": "all",
    "enable.idempotence": "true",
    "compression.type": "none",
    "partitioner": "murmur2_random",
}

# A queue without bounds, and batches that are never full.
HELD = {
    "queue.buffering.max.messages": "0",
    "queue.buffering.max.kbytes": "2147483647",
    "linger.ms": "250000",  # the most that message.timeout.ms allows, and a little less
    "batch.num.messages": "1000000",
    "batch.size": "2147483647",
}

# The peers that are not built on librdkafka have small batches by default; this was fastest for
# them (librdkafka's is 1 MB).
BATCH_SIZE = 131072

# Where the caller's time in one send is measured: this many in a row, with nothing in between but
# the next one.
BURST = 100
SEND_TIME = "send-time"

# Where it is measured how long a new producer takes until its first record is reported: `count`
# producers in turn.
FIRST = "first-delivery"
FIRST_PLAIN = "first-delivery-plain"  # without idempotence
FIRST_TRANSACTIONAL = "first-delivery-transactional"

# Values are many distinct objects, so that no cache flatters anybody: as many as messages, but not
# more than this.
MOST_VALUES = 1_000_000
MOST_MEMORY = 256 << 20


@dataclass(frozen=True)
class Job:
    """A client, the way it is used, and its load."""

    client: str
    way: str
    count: int
    size: int
    hot: int = (
        0  # this many values are sent in turn; 0: as many distinct ones as the limits above allow
    )
    message_max_bytes: int = 1_000_000  # librdkafka's default
    batch: int = 0  # values a call; 0: a call each
    # the queue holds all of them, and nothing is sent until it is flushed: for what a message in
    # flight takes
    held: bool = False

    @property
    def distinct(self) -> int:
        distinct = self.hot or max(1, min(self.count, MOST_VALUES, MOST_MEMORY // self.size))
        return distinct if self.batch in (0, self.count) else distinct // self.batch * self.batch

    @property
    def name(self) -> str:
        batch = f" of {self.batch:,}" if self.batch else ""
        hot = f", {self.hot} hot values" if self.hot else ""
        return f"{self.client} {self.way}{batch} {self.size} B{hot}"

    def librdkafka(self, bootstrap_servers: str) -> dict[str, str]:
        settings = {
            "bootstrap.servers": bootstrap_servers,
            "message.max.bytes": str(self.message_max_bytes),
            **LIBRDKAFKA,
        }
        if self.way == FIRST_PLAIN:
            settings["enable.idempotence"] = "false"
        return {**settings, **HELD} if self.held else settings

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Measured:
    """What one process reports of its job."""

    seconds: float  # from the first send to the last delivery report
    cpu_seconds: float  # the whole process', all threads', in that time
    peak_kib: int  # resident, over the life of the process
    reported: int
    failed: int
    version: str
    before_kib: int = 0  # resident before the first send, the values included
    loop_delay_ms: float | None = (
        None  # the 99th percentile of how late the event loop is, where there is one
    )
    send_ns: float | None = None  # the caller's time in one send, where that is what is measured
    first_ms: float | None = (
        # from making a producer to the report of its first record, the median, where that is
        # measured
        None
    )

    @classmethod
    def from_json(cls, text: str) -> Measured:
        known: dict[str, Any] = json.loads(text)
        return cls(**known)
