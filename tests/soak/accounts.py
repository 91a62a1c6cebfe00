"""What a load has sent and what became of it: every send counted, every report held against the
send it belongs to.
"""

from __future__ import annotations

import threading
from typing import Any

# Sends and their reports meet in a ring of so many slots: constant memory, however long it runs.
# More are never outstanding.
RING = 1 << 18
_KEPT = 20


class Account:
    """Counters of one load, and what was wrong, the first few by text. Thread-safe.

    A message takes a slot when it is sent and gives it back when it is reported: a slot that is
    taken when its turn comes again was never reported, one that is free when a report comes was
    reported twice.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent = self.delivered = self.failed = self.refused = self.anomalies = 0
        self.wrong: list[str] = []
        self._slots = bytearray(RING)
        self._next = 0
        self._lock = threading.Lock()

    def take(self) -> int:
        """The number of a message that is about to be sent."""
        with self._lock:
            number = self._next
            self._next = (number + 1) % RING
            if self._slots[number]:
                self._note(f"message {number} of the ring was not reported for a whole round")
            self._slots[number] = 1
            self.sent += 1
            return number

    def refuse(self, number: int) -> None:
        """Its send has raised: there will be no report."""
        with self._lock:
            self._give_back(number)
            self.sent -= 1
            self.refused += 1

    def report(self, number: Any, error: Any) -> None:
        """A delivery report has come."""
        with self._lock:
            self._give_back(number)
            if error is None:
                self.delivered += 1
            else:
                self.failed += 1

    def batch(self, sent: int, delivered: int, failed: int) -> None:
        """Many at once, counted by the batch itself."""
        with self._lock:
            self.sent += sent
            self.delivered += delivered
            self.failed += failed

    def anomaly(self, text: str) -> None:
        with self._lock:
            self._note(text)

    def _give_back(self, number: int) -> None:
        if self._slots[number] != 1:
            self._note(
                f"message {number} of the ring was reported twice, or without having been sent"
            )
        self._slots[number] = 0

    def _note(self, text: str) -> None:
        self.anomalies += 1
        if len(self.wrong) < _KEPT:
            self.wrong.append(f"{self.name}: {text}")

    def check(self) -> list[str]:
        """At the end, when all is reported: everything that is off."""
        with self._lock:
            if missing := sum(self._slots):
                self._note(f"{missing} messages were never reported")
            if self.sent != self.delivered + self.failed:
                self._note(
                    f"sent {self.sent:,}, but {self.delivered:,} delivered and {self.failed:,}"
                    " failed"
                )
            extra = (
                [f"{self.name}: {self.anomalies - len(self.wrong)} more"]
                if self.anomalies > len(self.wrong)
                else []
            )
            return self.wrong + extra

    def counts(self) -> dict[str, int]:
        return {
            "sent": self.sent,
            "delivered": self.delivered,
            "failed": self.failed,
            "refused": self.refused,
            "anomalies": self.anomalies,
        }
