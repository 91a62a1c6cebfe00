"""What the load suffers: errors for requests, slow answers, brokers that pause. Seeded."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any

from kafka_ext import ErrorCode
from kafka_ext.testing import ApiKey, EmbeddedBroker

if TYPE_CHECKING:
    from typing_extensions import Self

# What a producer tries again, and what it gives up. The mock cluster stores nothing of what it
# answers with an error.
RETRIED = [
    ErrorCode.NOT_LEADER_FOR_PARTITION,
    ErrorCode.LEADER_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.REQUEST_TIMED_OUT,
]
GIVEN_UP = [
    ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    ErrorCode.MSG_SIZE_TOO_LARGE,
    ErrorCode.RECORD_LIST_TOO_LARGE,
    ErrorCode.INVALID_MSG,
]
PAUSE = 1.0
# A fault takes less, in seconds; whoever waits for its end for longer would wait for ever.
ENDING = 60.0


class Faults:
    """Every few seconds one, from a thread of its own; `seen` has (time since the start, what)."""

    def __init__(
        self, broker: EmbeddedBroker, sound: int, failing: int, cut: int, seed: int, now: Any
    ) -> None:
        self.seen: list[tuple[float, str]] = []
        self.wrong: list[str] = []
        self._broker = broker
        self._sound = sound
        self._failing = failing
        self._cut = cut
        self._random = random.Random(seed)
        self._now = now
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)

    def _run(self) -> None:
        kinds = [self.retried, self.given_up, self.given_up, self.slow, self.pause, self.cut]
        while not self._halt.wait(self._random.uniform(2, 6)):
            kind = self._random.choice(kinds)
            self.seen.append((round(self._now(), 1), kind.__name__))
            try:
                kind()
            except Exception as error:  # noqa: BLE001 - reported with the rest
                self.wrong.append(
                    f"the fault {kind.__name__} could not be done: {type(error).__name__}: {error}"
                )
                return

    def retried(self) -> None:
        self._broker.fail_requests(
            ApiKey.PRODUCE, self._random.choices(RETRIED, k=self._random.randint(1, 5)), self._sound
        )

    def given_up(self) -> None:
        self._broker.fail_requests(
            ApiKey.PRODUCE,
            self._random.choices(GIVEN_UP, k=self._random.randint(1, 5)),
            self._failing,
        )

    def cut(self) -> None:
        """The connections in place of an answer. What was stored and not answered by then is there
        twice: the cluster cannot know it again.

        So only at the broker of the load that reads back what is there; real brokers, which must
        know it, are tests/chaos's.
        """
        self._broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.TRANSPORT], self._cut)

    def slow(self) -> None:
        seconds = self._random.uniform(0.01, 0.2)
        for broker in (self._sound, self._failing):
            self._broker.round_trip_time(seconds, broker)
        self._halt.wait(2)
        for broker in (self._sound, self._failing):
            self._broker.round_trip_time(0, broker)

    def pause(self) -> None:
        self._broker.pause()
        try:
            time.sleep(PAUSE)
        finally:
            self._broker.resume()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._halt.set()
        self._thread.join(ENDING)
        if self._thread.is_alive():
            self.wrong.append("the last fault does not end")
        self._broker.clear_faults()
