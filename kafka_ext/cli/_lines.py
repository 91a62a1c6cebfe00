"""Delimited records from a file descriptor, in constant memory however large the input is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from .._rdkafka import Lines

CHUNK = 512 * 1024


class TooLong:
    """Stands in for a record longer than the limit, whose content was not kept."""

    def __init__(self, size: int) -> None:
        self.size = size


def split(
    read: Callable[[], bytes], delimiter: bytes, limit: int
) -> Iterator[Lines | list[TooLong]]:
    """Records, many at a time, each the bytes between two delimiters; one at the end need not be
    closed by a delimiter.

    Args:
        read: the next bytes of the input, as they come; b"" at its end.
        delimiter: one byte or more.
        limit: the longest record to keep. A longer one comes as TooLong, so that an input without
            delimiters cannot fill the memory.
    """
    pending = bytearray()  # the record that has begun
    dropped = 0  # how much of its beginning was given up
    while chunk := read():
        # The delimiter may have begun in what is pending.
        searched = max(0, len(pending) - len(delimiter) + 1)
        pending += chunk
        if pending.find(delimiter, searched) < 0:
            # All but its last bytes, which may be the delimiter's first, are the record's.
            certain = len(pending) - len(delimiter) + 1
            if dropped + certain > limit:
                dropped += max(certain, 0)
                del pending[: max(certain, 0)]
            continue
        if dropped:
            end = pending.find(delimiter, searched)
            yield [TooLong(dropped + end)]
            dropped = 0
            del pending[: end + len(delimiter)]
        records = Lines(bytes(pending), delimiter)
        del pending[: records.end]
        if len(records):
            yield records
    if dropped:
        yield [TooLong(dropped + len(pending))]
    elif pending:
        yield Lines(bytes(pending), delimiter, True)


def reader(
    descriptor: int, on_read: Callable[[int], None], begin: Callable[[bytes], bytes]
) -> Callable[[], bytes]:
    """`read` for `split`: what there is, up to a chunk, without waiting for a full one.

    `on_read` is told how much; `begin` is given the first bytes, and what it makes of them is read.
    """
    begun = False

    def read() -> bytes:
        nonlocal begun
        chunk = os.read(descriptor, CHUNK)
        on_read(len(chunk))
        if begun or not chunk:
            return chunk
        begun = True
        return begin(chunk) or read()

    return read


def unescape(text: str) -> bytes:
    r"""What a delimiter on the command line means: its UTF-8, with \n, \t, \0, \xff and \\ as in
    Python.

    Raises:
        ValueError: it is empty, or an escape is not a whole one.
    """
    try:
        # unicode_escape takes every byte that is no escape for the character of that number, and
        # latin-1 turns it back.
        meant = text.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")
    except UnicodeError:
        raise ValueError(
            f"{text!r} is no text with escapes such as \\t, \\n, \\0 and \\x1f (a backslash is"
            " \\\\)"
        ) from None
    if not meant:
        raise ValueError("it is empty")
    return meant
