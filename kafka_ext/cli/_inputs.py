"""What produce reads: files and the standard input, checked before anything is sent."""

from __future__ import annotations

import codecs
import os
import stat
import sys
from collections.abc import Iterator

from ._settings import UsageError


class Input:
    """The files, read one after the other; "-" is the standard input. `done` of `total` bytes are
    read; the total of pipes is not known.
    """

    def __init__(self, files: list[str], *, text: bool = True) -> None:
        self.files = files or ["-"]
        self._text = text
        self.done = 0.0
        self.total: int | None = 0
        for name in self.files:
            size = _size(name)
            if text and size is not None:
                _check_text(name)
            self.total = None if self.total is None or size is None else self.total + size

    @property
    def typed(self) -> bool:
        """Somebody types it on a terminal, where a live display would be in the way."""
        return "-" in self.files and os.isatty(0)

    def read(self, size: int) -> None:
        self.done += size

    def begin(self, name: str, chunk: bytes) -> bytes:
        """The first bytes of a file of text, or of a pipe, without a byte order mark.

        Raises:
            OSError: they are no text. Of regular files that is known before anything is sent.
        """
        try:
            _check_beginning(name, chunk)
        except UsageError as exc:
            raise OSError(str(exc)) from None
        return chunk.removeprefix(codecs.BOM_UTF8)

    def opened(self) -> Iterator[tuple[str, int]]:
        """Each file's name and its descriptor, which is closed when the next one is asked for."""
        for name in self.files:
            descriptor = 0 if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield name, descriptor
            finally:
                if descriptor:
                    os.close(descriptor)


# How content begins that is no lines of text, what it is, and what makes lines of it.
_NO_TEXT = (
    (b"\x1f\x8b", "compressed (gzip)", "gzip -dc {}"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)", "zstd -dc {}"),
    (b"BZh", "compressed (bzip2)", "bzip2 -dc {}"),
    (b"\xfd7zXZ\x00", "compressed (xz)", "xz -dc {}"),
    (b"\x04\x22\x4d\x18", "compressed (lz4)", "lz4 -dc {}"),
    (b"PK\x03\x04", "compressed (zip)", "unzip -p {}"),
    (codecs.BOM_UTF32_LE, "in UTF-32", "iconv -f UTF-32 -t UTF-8 {}"),
    (codecs.BOM_UTF32_BE, "in UTF-32", "iconv -f UTF-32 -t UTF-8 {}"),
    (codecs.BOM_UTF16_LE, "in UTF-16", "iconv -f UTF-16 -t UTF-8 {}"),
    (codecs.BOM_UTF16_BE, "in UTF-16", "iconv -f UTF-16 -t UTF-8 {}"),
)


def _beginning(descriptor: int) -> bytes:
    """The next bytes of a regular file, which stay to be read; of anything else, none."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return b""
    try:
        return os.pread(descriptor, 6, os.lseek(descriptor, 0, os.SEEK_CUR))
    except OSError:
        return b""  # whoever reads it will say so


def _check_text(name: str) -> None:
    """Refuse a file whose bytes are no lines of text: it would be sent in pieces that
    mean nothing.
    """
    descriptor = 0 if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        beginning = _beginning(descriptor)
    finally:
        if descriptor:
            os.close(descriptor)
    _check_beginning(name, beginning)


def _check_beginning(name: str, beginning: bytes) -> None:
    for magic, what, command in _NO_TEXT:
        if beginning.startswith(magic):
            raise UsageError(f"{name}: {what}: {command.format(name)} | kafka-ext produce ...")


def _size(name: str) -> int | None:
    """How much there is to read of a file that can be read, None where that is not known."""
    begun = 0
    if name == "-":
        if sys.stdin is None:
            raise UsageError("there is no standard input to read")
        found = os.fstat(0)
        begun = os.lseek(0, 0, os.SEEK_CUR) if stat.S_ISREG(found.st_mode) else 0
    else:
        try:
            found = os.stat(name)
        except OSError as exc:
            raise UsageError(f"{name}: {exc.strerror}") from None
    if stat.S_ISDIR(found.st_mode) or (name != "-" and not os.access(name, os.R_OK)):
        raise UsageError(
            f"{name}: {'a folder, not a file' if stat.S_ISDIR(found.st_mode) else 'not readable'}"
        )
    return found.st_size - begun if stat.S_ISREG(found.st_mode) else None
