"""What produce reads: files and the standard input, checked before anything is sent."""

from __future__ import annotations

import codecs
import os
import stat
import sys
from collections.abc import Iterator

from .settings import UsageError


class Input:
    """The files, read one after the other; "-" is the standard input. `done` of `total` bytes are read; the total of pipes is not known."""

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

    def opened(self) -> Iterator[tuple[str, int]]:
        """Each file's name and its descriptor, which is closed when the next one is asked for."""
        for name in self.files:
            descriptor = 0 if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if self._text and _beginning(descriptor).startswith(codecs.BOM_UTF8):
                    os.lseek(descriptor, len(codecs.BOM_UTF8), os.SEEK_CUR)
                yield name, descriptor
            finally:
                if descriptor:
                    os.close(descriptor)


_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def _beginning(descriptor: int) -> bytes:
    """The next bytes of a regular file, which stay to be read; of anything else, none."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return b""
    try:
        return os.pread(descriptor, 6, os.lseek(descriptor, 0, os.SEEK_CUR))
    except OSError:
        return b""  # whoever reads it will say so


def _check_text(name: str) -> None:
    """Refuse a file whose bytes are no lines of text: it would be sent in pieces that mean nothing."""
    descriptor = 0 if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        beginning = _beginning(descriptor)
    finally:
        if descriptor:
            os.close(descriptor)
    for magic, how in _COMPRESSED.items():
        if beginning.startswith(magic):
            raise UsageError(f"{name}: compressed ({how}): {how} -dc {name} | kafka-ext produce ...")
    if beginning.startswith(_UTF_16):
        raise UsageError(f"{name}: in UTF-16: iconv -f UTF-16 -t UTF-8 {name} | kafka-ext produce ...")


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
        raise UsageError(f"{name}: {'a folder, not a file' if stat.S_ISDIR(found.st_mode) else 'not readable'}")
    return found.st_size - begun if stat.S_ISREG(found.st_mode) else None
