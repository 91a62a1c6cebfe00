"""Whose the resident memory is: by the mappings it is in, and by what glibc's malloc says of
itself.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable

# mimalloc (librdkafka's, and Arrow's) asks for addresses from 2 TiB on, far from where Linux puts
# what is asked for without one.
_MIMALLOC = range(2 << 40, 0x5000_0000_0000)
_ARENA = 64 << 20  # glibc's heaps of threads are so large and so aligned (HEAP_MAX_SIZE)
_STACK = (
    8 << 20
)  # a thread's, which lies behind a guard that nobody may touch; other mappings may be as large
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \d+ *(.*)")

OWNERS = ("mimalloc", "glibc", "stacks", "files", "other")


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def owners(smaps: Iterable[str]) -> dict[str, int]:
    """Resident bytes by owner: mimalloc's regions, glibc's heaps, threads' stacks, files, and the
    others, Python's arenas above all.
    """
    resident = dict.fromkeys(OWNERS, 0)
    owner, guard = "other", 0
    for line in smaps:
        if head := _HEAD.match(line):
            low, high = int(head[1], 16), int(head[2], 16)
            owner = _owner(low, high - low, head[4].strip(), low == guard)
            guard = high if head[3] == "---p" else 0
        elif line.startswith("Rss:"):
            resident[owner] += int(line.split()[1]) * 1024
    return resident


def _owner(low: int, size: int, name: str, guarded: bool) -> str:
    if name.startswith("/"):
        return "files"
    if low in _MIMALLOC:
        return "mimalloc"
    if name == "[heap]" or (low % _ARENA == 0 and size < _ARENA):
        return "glibc"
    if name == "[stack]" or (guarded and size == _STACK):
        return "stacks"
    return "other"


def sample() -> dict[str, int]:
    """What belongs into a sample; nothing where there is no /proc or no glibc."""
    try:
        with open("/proc/self/smaps", encoding="utf-8", errors="replace") as smaps:
            parts = owners(smaps)
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return {}
    mallinfo2.restype = _Mallinfo
    info = mallinfo2()
    return {
        **{f"memory_{owner}": size for owner, size in parts.items()},
        "malloc_used": info.uordblks + info.hblkhd,
        "malloc_free": info.fordblks,
        "python_blocks": sys.getallocatedblocks(),
    }
