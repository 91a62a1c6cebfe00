"""The numbered records of the campaign: 24 bytes that say who sent them, where to, in which place,
and whether they are whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A stream is one sender's records, numbered from 0; number n goes to partition n % partitions. The
# checksum is a 64-bit mix of the first eight bytes, the filler a mix of the checksum: no bit of a
# record can change without notice.
LAYOUT = np.dtype(
    [
        ("stream", "<u2"),
        ("partition", "<u2"),
        ("number", "<u4"),
        ("checksum", "<u8"),
        ("filler", "<u8"),
    ]
)
SIZE = LAYOUT.itemsize


def make(stream: int, first: int, count: int, partitions: int) -> NDArray[np.void]:
    """Records `first` to `first + count` of a stream."""
    records = np.zeros(count, LAYOUT)
    records["stream"] = stream
    records["number"] = np.arange(first, first + count)
    records["partition"] = records["number"] % partitions
    records["checksum"] = _mix(_identity(records))
    records["filler"] = _mix(records["checksum"])
    return records


def whole(records: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which of the records are as they were made."""
    checksum = _mix(_identity(records))
    return (records["checksum"] == checksum) & (records["filler"] == _mix(checksum))  # type: ignore[no-any-return]


def _identity(records: NDArray[np.void]) -> NDArray[np.uint64]:
    return (
        records["stream"].astype(np.uint64) << np.uint64(48)
        | records["partition"].astype(np.uint64) << np.uint64(32)
        | records["number"].astype(np.uint64)
    )


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer: each bit of the result depends on every bit of the number."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
