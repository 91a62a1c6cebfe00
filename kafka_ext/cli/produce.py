"""`kafka-ext produce`: lines of the standard input, or of files, to a topic."""

from __future__ import annotations

import argparse
import functools
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import Any, cast

from .. import _rdkafka
from .._rdkafka import BatchDelivery, ErrorCode, KafkaError, QueueFullError
from ..producer import KafkaProducer
from . import display as displays
from . import lines, settings
from .display import Display, Status
from .interrupts import Interrupts
from .session import Failures, finish, open_producer
from .settings import UsageError

_EPILOG = r"""
examples:
  each line a record:
      kafka-ext produce logs -b localhost:9092 < app.log
  keys before a tab, empty fields sent as null, a header on every record:
      kafka-ext produce users -b localhost:9092 --key-separator '\t' --null-marker '' --header source=import users.tsv
  records between NUL bytes, compressed, to partition 3:
      find . -name '*.json' -print0 | kafka-ext produce files -b localhost:9092 --delimiter '\0' -z zstd --partition 3
  a cluster with TLS and a password, its properties in a file:
      kafka-ext produce orders --config cluster.properties -X linger.ms=50 orders.txt
  try it without a cluster:
      seq 1000000 | kafka-ext produce numbers

Memory stays the same for an input of any size: at most queue.buffering.max.kbytes (64 MiB here, unless you set it) wait to be sent.
A summary goes to stdout; progress and problems go to stderr. The exit status is 0 when every record was delivered, 1 when one was not or
the input could not be read to its end, 2 when the command or a property is wrong, 130 after Ctrl-C. Ctrl-C stops reading and delivers what
was sent; a second one gives up on that.
"""


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "produce",
        help="lines of standard input, or of files, to a topic",
        description="Send each line of the standard input, or of files, to a topic.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("first", metavar="TOPIC", nargs="?", help="where to send to")
    parser.add_argument("files", metavar="FILE", nargs="*", help="what to read, one after the other; - or none is the standard input")
    parser.add_argument("-t", "--topic", metavar="TOPIC", help="another way to name the topic; then all that is left are files")
    group = parser.add_argument_group("records")
    group.add_argument(
        "-K",
        "--key-separator",
        metavar="TEXT",
        help="what is before the first TEXT is the key, what is behind it the value; a line without TEXT is a value with no key",
    )
    group.add_argument(
        "-H",
        "--header",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a header for every record; repeat it for more; NAME alone has a null value",
    )
    group.add_argument(
        "-p", "--partition", metavar="N", type=settings.count(0), help="the partition for every record (default: by key, or random)"
    )
    group.add_argument(
        "-N", "--null-marker", metavar="TEXT", help="a key or value that is TEXT is sent as null; a null value is a tombstone"
    )
    group.add_argument(
        "-D",
        "--delimiter",
        metavar="TEXT",
        default=r"\n",
        help=r"what ends a record (default: \n); escapes as in Python: \t, \0, \r\n, \x1e",
    )
    settings.add_arguments(parser)
    group = parser.add_argument_group("output")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary, only what goes wrong")
    group.add_argument("--json", action="store_true", help="the summary as a JSON object")
    parser.set_defaults(run=run)


def _escaped(option: str, text: str | list[str] | None) -> bytes | None:
    if text is None:
        return None
    try:
        # argparse before Python 3.13 makes an empty list of `--option=--`.
        return lines.unescape(text if isinstance(text, str) else "--")
    except ValueError as exc:
        raise UsageError(f"{option}: {exc}") from None


def _header(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name, value if equals else None


class _Input:
    """The files, read one after the other. `done` of `total` bytes have been read; the total of pipes is not known."""

    def __init__(self, files: list[str]) -> None:
        self.files = files or ["-"]
        self.done = 0
        self.total: int | None = 0
        for name in self.files:
            if name == "-":
                if sys.stdin is None:
                    raise UsageError("there is no standard input to read")
                found = os.fstat(0)
                begun = os.lseek(0, 0, os.SEEK_CUR) if stat.S_ISREG(found.st_mode) else 0
            else:
                begun = 0
                try:
                    found = os.stat(name)
                except OSError as exc:
                    raise UsageError(f"{name}: {exc.strerror}") from None
            if stat.S_ISDIR(found.st_mode) or (name != "-" and not os.access(name, os.R_OK)):
                raise UsageError(f"{name}: {'a folder, not a file' if stat.S_ISDIR(found.st_mode) else 'not readable'}")
            if self.total is not None:
                self.total = self.total + found.st_size - begun if stat.S_ISREG(found.st_mode) else None

    @property
    def typed(self) -> bool:
        """Somebody types it on a terminal, where a live display would be in the way."""
        return "-" in self.files and os.isatty(0)

    def _read(self, size: int) -> None:
        self.done += size

    def records(self, delimiter: bytes, limit: int) -> Iterator[list[bytes | lines.TooLong]]:
        for name in self.files:
            descriptor = 0 if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield from lines.split(lines.reader(descriptor, self._read), delimiter, limit)
            finally:
                if descriptor:
                    os.close(descriptor)


class _Job:
    """The work between a producer's start and its end, and what is known of it."""

    def __init__(self, arguments: argparse.Namespace, topic: str, source: _Input) -> None:
        self.topic = topic
        self.partition: int | None = arguments.partition
        self.headers = [_header(text) for text in arguments.header] or None
        separator = _escaped("--key-separator", arguments.key_separator)
        delimiter = _escaped("--delimiter", arguments.delimiter)
        assert delimiter is not None
        self.separator, self.delimiter = separator, delimiter
        # Not unescaped, but for its UTF-8: an empty marker is allowed, and \N is how databases write null.
        self.null: bytes | None = None if arguments.null_marker is None else os.fsencode(arguments.null_marker)
        self.source = source
        self.failures = Failures()
        self.delivered = self.delivered_bytes = 0
        self.fatal = False  # the producer can send nothing more

    def send_all(self, producer: KafkaProducer) -> None:
        limit = int(producer.get_property("message.max.bytes") or 0)
        too_long = KafkaError(ErrorCode["MSG_SIZE_TOO_LARGE"], f"longer than message.max.bytes={limit}")
        number = 1
        for some in self.source.records(self.delimiter, limit):
            if isinstance(some[0], lines.TooLong):  # it can only be the first
                self.failures.add(too_long, number)
                del some[0]
                number += 1
            if some:
                self._send(producer, cast("list[bytes]", some), number)
                number += len(some)
            if self.fatal:
                return

    def _send(self, producer: KafkaProducer, some: list[bytes], number: int) -> None:
        """A list of lines in one call, which does nothing of Python's for each; `number` is that of the first."""
        keys: list[bytes | None] | None = None
        values: list[bytes | None] = cast("list[bytes | None]", some)
        null = self.null
        if self.separator is not None:
            parts = [line.partition(self.separator) for line in some]
            keys = [key if found else None for key, found, _ in parts]
            values = [value if found else whole for whole, found, value in parts]
        if null is not None:
            keys = None if keys is None else [None if key == null else key for key in keys]
            values = [None if value == null else value for value in values]
        reported = functools.partial(self._reported, number, values)
        while True:
            try:
                producer.send_batch(self.topic, values, keys=keys, partitions=self.partition, headers=self.headers, on_delivery=reported)
                return
            except QueueFullError:  # noqa: PERF203 - once a chunk, not once a line
                # Not the queue, for which the call waits: too many batches are on their way, each of a line or two.
                time.sleep(0.05)

    def _reported(self, number: int, values: list[bytes | None], batch: BatchDelivery) -> None:
        """All records of a batch have been answered. In the events thread."""
        delivered = len(values)
        size = sum(map(len, filter(None, values)))
        for index, error in batch.errors() if batch.failed else ():
            delivered -= 1
            size -= len(values[index] or b"")
            # Interrupted before it was sent: not a failure, but as if it had not been read.
            if error != ErrorCode["INTR"]:
                self.failures.add(error, number + index)
                self.fatal = self.fatal or error.is_fatal
        self.delivered += delivered
        self.delivered_bytes += size

    def status(self, producer: KafkaProducer) -> Status:
        more = [(f"{producer.metrics().outstanding:,} on their way", "")]
        if self.failures.count:
            more.append((f"{self.failures.count:,} failed", "warning"))
        return Status(self.delivered, self.delivered_bytes, self.source.done, self.source.total, tuple(more))

    def summary(self, seconds: float, interrupted: bool) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "records": self.delivered + self.failures.count,  # all have been reported
            "delivered": self.delivered,
            "failed": self.failures.count,
            "bytes": self.delivered_bytes,
            "seconds": round(seconds, 6),
            "records_per_second": round(self.delivered / seconds, 1),
            "bytes_per_second": round(self.delivered_bytes / seconds, 1),
            "errors": self.failures.counts(),
            "interrupted": interrupted,
        }


def _as_text(summary: dict[str, Any]) -> str:
    return (
        f"{displays.records(summary['delivered'])} ({displays.size(summary['bytes'])}) delivered to {summary['topic']} "
        f"in {displays.seconds(summary['seconds'])}: {summary['records_per_second']:,.0f} records/s, "
        f"{displays.size(summary['bytes_per_second'])}/s"
    )


def _work(job: _Job, producer: KafkaProducer, interrupts: Interrupts, display: Display) -> str | None:
    """Send and wait for every report; what kept it from reading to the end, if anything did."""
    problem = None
    with display.progress(lambda: job.status(producer)):
        try:
            with interrupts.raising():
                job.send_all(producer)
        except KeyboardInterrupt:
            pass
        except OSError as exc:
            problem = f"cannot read on: {exc}"
        finish(producer, interrupts, display)
    return problem


def run(arguments: argparse.Namespace) -> int:
    topic, files = arguments.topic, list(arguments.files)
    if topic is None:
        topic = arguments.first
    elif arguments.first is not None:
        files.insert(0, arguments.first)
    if topic is None:
        raise UsageError("to which topic? kafka-ext produce TOPIC < FILE")
    _rdkafka.check_topic_name(topic)
    source = _Input(files)
    job = _Job(arguments, topic, source)
    properties = settings.read_properties(arguments)
    display = displays.make("kafka-ext produce", quiet=arguments.quiet, live=not source.typed)
    with Interrupts() as interrupts, open_producer(properties, display) as producer:
        if source.typed and not arguments.quiet:
            display.note("reading from the terminal: a line is a record, Ctrl-D ends")
        began = time.perf_counter()
        problem = _work(job, producer, interrupts, display)
        summary = job.summary(time.perf_counter() - began, interrupts.signum is not None)
    if problem is not None:
        display.note(problem)
    job.failures.report(display, summary["records"])
    if arguments.json:
        displays.out(json.dumps(summary))
    elif not arguments.quiet:
        displays.out(_as_text(summary))
    return interrupts.exit_status or int(problem is not None or job.failures.count > 0)
