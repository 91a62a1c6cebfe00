"""What became of each record, by its number: a byte for the state, four for the offset. Made once,
at full size: it does not grow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kafka_ext import PersistedStatus

UNSENT, SENT, DELIVERED, FAILED_NOT, FAILED_POSSIBLY, REFUSED = range(6)
_FAILED = {PersistedStatus.NOT: FAILED_NOT, PersistedStatus.POSSIBLY: FAILED_POSSIBLY}
_KEPT = 20
NO_OFFSET = -1


class Outcomes:
    """The outcomes of one stream of at most `size` records.

    A state goes from UNSENT over SENT to what the callback says, once: whatever else happens is an
    anomaly. Sending and reporting are different threads', but each item is only ever written by one
    of them at a time, and under the GIL.
    """

    def __init__(self, stream: int, size: int) -> None:
        self.stream = stream
        self.size = size
        self.states = bytearray(
            b"\xff" * size
        )  # written to, so that its memory is there from the start
        self.states[:] = bytes(size)
        self.offsets = np.full(size, NO_OFFSET, np.int32)
        self.sent = self.reported = self.failed = self.anomalies = 0
        self.wrong: list[str] = []
        self.errors: dict[str, int] = {}

    def on_delivery(self, metadata: Any, error: Any) -> None:
        """The callback of a single record, whose id is its number."""
        number = metadata.record_id
        if self.states[number] != SENT:
            self.anomaly(
                f"{number} was called back while {self.states[number]}: {metadata} {error}"
            )
        self.reported += 1
        if error is None:
            self.states[number] = DELIVERED
            if (offset := metadata.offset) is not None:
                self.offsets[number] = offset
        else:
            self._fail(number, error, metadata.persisted_status)

    def batch(self, first: int, batch: Any) -> None:
        """The callback of a batch, of the records from number `first` on."""
        last = first + len(batch)
        states = np.frombuffer(self.states, np.uint8)[first:last]
        if (states != SENT).any():
            self.anomaly(
                f"the batch {first} to {last} was called back while {sorted(set(states.tolist()))}"
            )
        self.reported += len(batch)
        states[:] = DELIVERED
        self.offsets[first:last] = batch.offsets
        for index, error in batch.errors():
            # A batch keeps no persisted status: what has failed may be in the log.
            self._fail(first + index, error, PersistedStatus.POSSIBLY)

    def _fail(self, number: int, error: Any, status: PersistedStatus) -> None:
        self.failed += 1
        self.errors[error.name] = self.errors.get(error.name, 0) + 1
        self.offsets[number] = NO_OFFSET
        if status not in _FAILED:
            self.anomaly(f"{number} is reported as failed ({error.name}), and as persisted")
        self.states[number] = _FAILED.get(status, FAILED_POSSIBLY)

    def anomaly(self, text: str) -> None:
        self.anomalies += 1
        if len(self.wrong) < _KEPT:
            self.wrong.append(f"stream {self.stream}: {text}")

    def save(self, folder: Path) -> None:
        np.save(
            folder / f"states-{self.stream}.npy", np.frombuffer(self.states, np.uint8)[: self.sent]
        )
        np.save(folder / f"offsets-{self.stream}.npy", self.offsets[: self.sent])


def load(folder: Path, streams: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """`(states, offsets)` of each stream, as they were saved."""
    return [
        (np.load(folder / f"states-{stream}.npy"), np.load(folder / f"offsets-{stream}.npy"))
        for stream in range(streams)
    ]
