"""Text to records: delimited ones, and JSON documents, one a line."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable
from typing import cast

from .._rdkafka import ErrorCode, KafkaError, Lines
from ..producer import KafkaProducer
from . import _documents as documents
from . import _lines as lines
from ._inputs import Input
from ._settings import UsageError
from ._tally import Tally

# So many wrong lines are told one by one; a file of another kind would tell millions.
_TOLD = 10


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


class Delimited:
    """Each record is what is between two delimiters."""

    def __init__(self, arguments: argparse.Namespace, source: Input, tally: Tally) -> None:
        self.source, self.tally = source, tally
        self.partition: int | None = arguments.partition
        self.headers = [_header(text) for text in arguments.header] or None
        self.separator = _escaped("--key-separator", arguments.key_separator)
        self.delimiter = (
            b"\n"
            if arguments.delimiter is None
            else cast("bytes", _escaped("--delimiter", arguments.delimiter))
        )
        # Not unescaped, but for its UTF-8: an empty marker is allowed, and \N is how databases
        # write null.
        self.null: bytes | None = (
            None if arguments.null_marker is None else os.fsencode(arguments.null_marker)
        )

    def send_all(self, producer: KafkaProducer, note: Callable[[str], None]) -> None:
        limit = int(producer.get_property("message.max.bytes") or 0)
        too_long = KafkaError(
            ErrorCode["MSG_SIZE_TOO_LARGE"], f"longer than message.max.bytes={limit}"
        )
        number = 1
        for name, descriptor in self.source.opened():
            self.begin(name, number, note)
            for some in lines.split(
                lines.reader(
                    descriptor, self.source.read, functools.partial(self.source.begin, name)
                ),
                self.delimiter,
                limit,
            ):
                if isinstance(some, list):
                    self.tally.failures.add(too_long, number)
                else:
                    self.send(producer, some, number)
                number += len(some)
                if self.tally.fatal:
                    return

    def begin(self, name: str, number: int, note: Callable[[str], None]) -> None:
        """File `name` is next; `number` is that of its first record."""

    def send(self, producer: KafkaProducer, some: Lines, number: int) -> None:
        """Lines in one call, which does nothing of Python's for each; `number` is that of the
        first.
        """
        keys: list[bytes | None] | None = None
        values: Lines | list[bytes | None] = some
        null = self.null
        if self.separator is not None:
            parts = [line.partition(self.separator) for line in some]
            keys = [key if found else None for key, found, _ in parts]
            values = [value if found else whole for whole, found, value in parts]
        if null is not None:
            keys = None if keys is None else [None if key == null else key for key in keys]
            values = [None if value == null else value for value in values]
        self.enqueue(producer, values, keys, number.__add__)

    def enqueue(
        self,
        producer: KafkaProducer,
        values: Lines | list[bytes | None],
        keys: list[bytes | None] | None,
        number_at: Callable[[int], int],
    ) -> None:
        send = functools.partial(
            producer.send_batch,
            self.tally.topic,
            values,
            keys=keys,
            partitions=self.partition,
            headers=self.headers,
        )
        size = values.size if isinstance(values, Lines) else sum(map(len, filter(None, values)))
        self.tally.enqueue(
            send, len(values), size, number_at, lambda index: len(values[index] or b"")
        )


class Documents(Delimited):
    """Each line is a JSON document; empty lines are none. Parsed only where that is asked for: it
    costs more than all the rest.
    """

    def __init__(self, arguments: argparse.Namespace, source: Input, tally: Tally) -> None:
        super().__init__(arguments, source, tally)
        self.key_field: str | None = arguments.key_field
        self.parse = arguments.validate or self.key_field is not None
        self.told = 0

    def begin(self, name: str, number: int, note: Callable[[str], None]) -> None:
        self.name = "standard input" if name == "-" else name
        self.before = number - 1  # lines of other files
        self.note = note

    def send(self, producer: KafkaProducer, some: Lines, number: int) -> None:
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        numbers: list[int] = []
        for at, line in enumerate(some, number):
            if not line.strip():
                continue
            if self.parse:
                try:
                    document = documents.parse(line)
                    keys.append(
                        None
                        if self.key_field is None
                        else documents.key_at(document, self.key_field)
                    )
                except documents.NotJSONError as exc:
                    self._fail("VALUE_DESERIALIZATION", "not JSON", at, exc)
                    continue
                except documents.NoKeyError as exc:
                    self._fail("KEY_SERIALIZATION", "no key can be made of the field", at, exc)
                    continue
            values.append(line)
            numbers.append(at)
        if values:
            self.enqueue(
                producer, values, keys if self.key_field is not None else None, numbers.__getitem__
            )

    def _fail(self, error: str, message: str, number: int, reason: Exception) -> None:
        self.tally.failures.add(KafkaError(ErrorCode[error], message), number)
        self.told += 1
        if self.told <= _TOLD:
            self.note(f"{self.name}, line {number - self.before}: {message}: {reason}")
        elif self.told == _TOLD + 1:
            self.note("further lines like these are only counted")
