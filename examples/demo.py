"""A million real records through a broker inside this process: sent with a delivery callback each,
read back, and compared.

    python examples/demo.py [--records 1000000] [--partitions 4]

The input is what any machine with Python and a C compiler has: the lines of Python's own source
files, then of the installed packages, then of the C headers, each as "path:line number:text", so
that no two records are the same. Should all of that be less than was asked for, it is read again
with the number of the round in front.

What is checked, of every single record:

- its callback came once, without an error, with the partition and the offset where the record must
  be;
- it was read back once, with the value and the key that were sent, at that offset, in the order of
  sending within its partition.

It ends with status 1 and says what differs when anything does. The embedded broker keeps 5 MiB a
partition, so the records are read while they are sent, and no partition gets far ahead of its
reader.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import sysconfig
import time
from array import array
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from kafka_ext import KafkaError, KafkaException, KafkaProducer, ProducerRecord, RecordMetadata
from kafka_ext.cli import _display as displays
from kafka_ext.testing import ConsumedMessage, EmbeddedBroker, TopicReader

TOPIC = "lines"
# Lines sent between two looks at what has come back.
BLOCK = 1000
# Bytes of a partition that may be on their way or unread. The broker drops the oldest beyond 5 MiB.
AHEAD = 2 * 1024 * 1024
# Seconds in which something must come back while something is missing.
PATIENCE = 30.0


class VerificationError(Exception):
    """What came back is not what was sent."""


# ---------------------------------------------------------------------- the input


def source_files() -> Iterator[tuple[str, Path]]:
    """The files in a fixed order: a short name and the path of each."""
    standard = Path(sysconfig.get_path("stdlib"))
    folders = (
        ("python", standard, ".py"),
        ("packages", Path(sysconfig.get_path("purelib")), ".py"),
        ("include", Path("/usr/include"), ".h"),
    )
    for label, top, ending in folders:
        for folder, below, names in os.walk(top):
            # Packages may be installed inside the standard library's folder: they come as packages.
            below[:] = sorted(
                name
                for name in below
                if top != standard or name not in ("site-packages", "dist-packages")
            )
            for name in sorted(names):
                if name.endswith(ending):
                    path = Path(folder, name)
                    yield f"{label}/{path.relative_to(top)}", path


def inputs(wanted: int) -> Iterator[tuple[bytes, list[bytes]]]:
    """Files as (key, values), until there are `wanted` values or more."""
    given = 0
    for round_number in range(1, 1_000_000):
        before = given
        for label, path in source_files():
            try:
                content = path.read_bytes()
            except OSError:
                continue  # not ours to read
            name = label if round_number == 1 else f"{round_number}:{label}"
            key = os.fsencode(name)
            values = [
                b"%s:%d:%s" % (key, number, line)
                for number, line in enumerate(content.splitlines(), 1)
            ]
            if values:
                yield key, values
            given += len(values)
            if given >= wanted:
                return
        if given == before:
            raise VerificationError("there is no source file to read on this machine")


# ---------------------------------------------------------------------- the books


class Books:
    """What was sent, what the callbacks said and what was read, so that the three can
    be compared.
    """

    def __init__(self, partitions: int) -> None:
        self.unread: list[deque[tuple[bytes, bytes]]] = [
            deque() for _ in range(partitions)
        ]  # key and value, in the order of sending
        self.unread_bytes = [0] * partitions
        self.sent_to = [
            0
        ] * partitions  # records sent to each partition: the offset of the next one
        self.read_from = [0] * partitions
        self.sent = self.sent_bytes = self.read = self.called_back = 0
        # By the number of the record: where it must be, and where its callback said it is (-1: not
        # called yet).
        self.partition_of, self.partition_told = array("i"), array("i")
        self.offset_of, self.offset_told = array("q"), array("q")
        self.wrong: list[str] = []

    def sending(self, partition: int, key: bytes, value: bytes) -> int:
        """Note a record before it is sent; its number."""
        number = self.sent
        self.unread[partition].append((key, value))
        self.unread_bytes[partition] += len(value)
        self.partition_of.append(partition)
        self.offset_of.append(self.sent_to[partition])
        self.partition_told.append(-1)
        self.offset_told.append(-1)
        self.sent_to[partition] += 1
        self.sent += 1
        self.sent_bytes += len(value)
        return number

    def on_delivery(self, metadata: RecordMetadata, error: KafkaError | None) -> None:
        """The delivery callback of every record, in the producer's events thread."""
        number: int = metadata.record_id
        self.called_back += 1
        if error is not None or metadata.partition is None or metadata.offset is None:
            self.wrong.append(f"record {number} was not delivered: {error}")
        elif self.offset_told[number] != -1:
            self.wrong.append(f"record {number} was called back twice")
        else:
            self.partition_told[number] = metadata.partition
            self.offset_told[number] = metadata.offset

    def check_read(self, message: ConsumedMessage) -> None:
        partition = message.partition
        if message.offset != self.read_from[partition]:
            raise VerificationError(
                f"partition {partition}: offset {message.offset} was read where"
                f" {self.read_from[partition]} comes next"
            )
        if not self.unread[partition]:
            raise VerificationError(
                f"partition {partition}: {message.value!r} was read at {message.offset}, but"
                " nothing more was sent there"
            )
        key, value = self.unread[partition].popleft()
        if message.value != value or message.key != key:
            raise VerificationError(
                f"partition {partition}, offset {message.offset}:\n  sent {key!r} {value!r}\n  read"
                f" {message.key!r} {message.value!r}"
            )
        self.unread_bytes[partition] -= len(value)
        self.read_from[partition] += 1
        self.read += 1

    def check_end(self) -> None:
        """Everything is in: nothing may be missing, and the callbacks must have told the truth."""
        if self.wrong:
            raise VerificationError("\n".join([*self.wrong[:5], f"({len(self.wrong)} in all)"]))
        if not self.sent == self.called_back == self.read:
            raise VerificationError(
                f"{self.sent} sent, {self.called_back} called back, {self.read} read back"
            )
        if self.partition_of != self.partition_told or self.offset_of != self.offset_told:
            number = next(
                n
                for n in range(self.sent)
                if (self.partition_of[n], self.offset_of[n])
                != (self.partition_told[n], self.offset_told[n])
            )
            raise VerificationError(
                f"record {number} is at {self.partition_of[number]}@{self.offset_of[number]}, "
                f"its callback said {self.partition_told[number]}@{self.offset_told[number]}"
            )


# ---------------------------------------------------------------------- the work


def take(reader: TopicReader, books: Books, timeout: float) -> None:
    for message in reader.read(None, timeout) if timeout == 0 else reader.read(1, timeout):
        books.check_read(message)


def run(wanted: int, partitions: int, display: displays.Display) -> str:
    """The whole demonstration; what it found, as text."""
    books = Books(partitions)
    pinned = files = 0
    with (
        EmbeddedBroker(topics={TOPIC: partitions}) as broker,
        TopicReader(broker.bootstrap_servers, TOPIC) as reader,
        KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer,
    ):

        def status() -> displays.Status:
            more = (f"{books.sent:,} sent", ""), (f"{books.called_back:,} called back", "")
            return displays.Status(
                books.read,
                books.sent_bytes - sum(books.unread_bytes),
                books.read,
                max(wanted, books.sent),
                more,
                "read back",
            )

        began = time.perf_counter()
        with display.progress(status):
            for files, (key, values) in enumerate(inputs(wanted), 1):
                partition = (
                    files % partitions
                )  # a file's lines stay together, as those of a key would
                for start in range(0, len(values), BLOCK):
                    for value in values[start : start + BLOCK]:
                        number = books.sending(partition, key, value)
                        producer.send(
                            ProducerRecord(TOPIC, value, key=key, partition=partition, id=number),
                            books.on_delivery,
                        )
                    pinned = max(pinned, producer.metrics().pinned_bytes)
                    take(reader, books, 0.0)
                    while books.unread_bytes[partition] > AHEAD:
                        wait_for_more(reader, books)
            sent_after = time.perf_counter() - began
            producer.flush(PATIENCE)
            while books.read < books.sent:
                wait_for_more(reader, books)
            took = time.perf_counter() - began
        take(reader, books, 0.2)  # what is more than was sent would come now
        metrics = producer.metrics()
    books.check_end()
    peak = peak_memory()
    size = displays.size
    return "\n".join(
        (
            (
                f"sent         {books.sent:,} records, no two the same: {size(books.sent_bytes)},"
                f" the lines of {files:,} source files"
            ),
            (
                f"called back  {books.called_back:,}, each once, with the partition and offset"
                f" where it is; {metrics.failed:,} failed"
            ),
            (
                f"read back    {books.read:,}, each once, the same key and value, in order within"
                f" each of {partitions} partitions"
            ),
            (
                f"time         {displays.seconds(took)} ({displays.seconds(sent_after)} until the"
                " last was sent)"
            ),
            (
                f"throughput   {books.read / took:,.0f} records/s,"
                f" {size(books.sent_bytes / took)}/s, reading and comparing included"
            ),
            (
                f"memory       {size(peak)} at most, the broker in this process with its"
                f" {partitions} x 5 MiB included"
            ),
            f"pinned       {size(pinned)} at most, {size(metrics.pinned_bytes)} now",
        )
    )


def peak_memory() -> int:
    """The most memory this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="ascii").split("VmHWM:")[1].split()[0]) * 1024
    # macOS, in bytes. Linux would keep the peak of whoever started us.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def wait_for_more(reader: TopicReader, books: Books) -> None:
    before = books.read
    take(reader, books, PATIENCE)
    take(reader, books, 0.0)
    if books.read == before:
        raise VerificationError(
            f"nothing came back for {PATIENCE:.0f} s: {books.sent:,} sent, {books.called_back:,}"
            f" called back, {books.read:,} read"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description="A million real records through an embedded broker, read back and verified."
    )
    parser.add_argument(
        "--records", type=int, default=1_000_000, help="at least so many (default: 1,000,000)"
    )
    parser.add_argument("--partitions", type=int, default=4, help="of the topic (default: 4)")
    arguments = parser.parse_args()
    if arguments.records < 1 or not 1 <= arguments.partitions <= 1000:
        parser.error("--records is 1 or more, --partitions from 1 to 1000")
    display = displays.make("demo")
    try:
        found = run(arguments.records, arguments.partitions, display)
    except (VerificationError, KafkaException) as problem:
        display.note(f"FAILED: {problem}")
        return 1
    except KeyboardInterrupt:
        display.note("interrupted")
        return 130
    print(found)
    print("verified     every record")
    return 0


if __name__ == "__main__":
    sys.exit(main())
