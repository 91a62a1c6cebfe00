"""A producer's life at random: sending, waiting, purging, faults and endings in any order. One
report each, every pin let go.

KAFKA_EXT_HYPOTHESIS=thorough looks ten times as long.
"""

import gc
import os
import warnings

import pytest
from faultlib import is_pinned, wait_until
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    KafkaProducer,
    KafkaTimeoutError,
    ProducerClosedError,
    ProducerRecord,
    QueueFullError,
    SendOption,
    _rdkafka,
)
from kafka_ext.testing import ApiKey, EmbeddedBroker

EXAMPLES = {"ci": 40, "thorough": 400}[os.environ.get("KAFKA_EXT_HYPOTHESIS", "ci")]

# Each makes (what is sent, the bytearray below it whose exports can be counted).
KINDS = {
    "bytearray": lambda content: (content, content),
    "memoryview": lambda content: (memoryview(content)[:], content),
    "array over the same memory": lambda content: (memoryview(content).cast("b"), content),
}


# Small enough that no partition outgrows the 5 MiB that the mock cluster keeps, copies left by lost
# acknowledgements included.
SENDS = {
    "kind": st.sampled_from(sorted(KINDS)),
    "size": st.sampled_from([0, 100, 5_000]),
    "heard": st.booleans(),
}
PASSING_AND_LASTING = [
    "TRANSPORT",
    "NOT_LEADER_FOR_PARTITION",
    "REQUEST_TIMED_OUT",
    "INVALID_MSG",
    "MSG_SIZE_TOO_LARGE",
]


class Life(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.broker = EmbeddedBroker(brokers=2, topics={"orders": 3})
        self.producer = None
        self.stopped = False

    @initialize()
    def start(self):
        self.sent = {}  # number -> bytearray, for all that was accepted
        self.heard = set()  # those with a callback
        self.reports = {}
        self.twice = []
        self.refused = []

    # ------------------------------------------------------------------ a producer

    @precondition(lambda self: self.producer is None)
    @rule(manual=st.booleans(), linger=st.sampled_from([0, 5, 50]), idempotence=st.booleans())
    def open(self, manual, linger, idempotence):
        self.manual = manual
        self.producer = KafkaProducer(
            self.broker.config(
                enable_idempotence=idempotence,
                linger_ms=linger,
                queue_buffering_max_messages=30,
                message_timeout_ms=1000,
                retry_backoff_ms=1,
                retry_backoff_max_ms=10,
                reconnect_backoff_ms=1,
                reconnect_backoff_max_ms=10,
                error_cb=lambda error: None,
            ),
            **{"enable.manual.events.poll": manual, "log_level": 0},
        )

    def record(self, kind, size, heard):
        number = len(self.sent) + len(self.refused)
        value, counted = KINDS[kind](bytearray(b"%d" % number).ljust(size, b"."))

        def on_delivery(metadata, error):
            if number in self.reports:
                self.twice.append(number)
            self.reports[number] = error

        record = ProducerRecord(
            "orders",
            value,
            partition=number % 3,
            headers=[("number", b"%d" % number)] if number % 2 else None,
        )
        return number, counted, record, on_delivery if heard else None

    def accept(self, number, counted, on_delivery):
        self.sent[number] = counted
        if on_delivery is not None:
            self.heard.add(number)

    @precondition(lambda self: self.producer is not None)
    @rule(
        option=st.sampled_from(SendOption),
        action=st.sampled_from(ActionWhileQueueIsFull),
        count=st.integers(1, 20),
        **SENDS,
    )
    def send(self, option, action, count, kind, size, heard):
        for _ in range(count):
            number, counted, record, on_delivery = self.record(kind, size, heard)
            try:
                self.producer.send(record, on_delivery, option=option, action=action, timeout=0.02)
            except (QueueFullError, KafkaTimeoutError):
                self.refused.append((number, counted))
            else:
                self.accept(number, counted, on_delivery)

    @precondition(lambda self: self.producer is not None)
    @rule(count=st.integers(1, 20), **SENDS)
    def try_send(self, count, kind, size, heard):
        for _ in range(count):
            number, counted, record, on_delivery = self.record(kind, size, heard)
            error = self.producer.try_send(record, on_delivery)
            if error is None:
                self.accept(number, counted, on_delivery)
            else:
                assert error == ErrorCode["QUEUE_FULL"]
                self.refused.append((number, counted))

    @precondition(lambda self: self.producer is not None)
    @rule(timeout=st.sampled_from([0, 0.01, 0.1]))
    def flush(self, timeout):
        try:
            self.producer.flush(timeout)
        except KafkaTimeoutError:
            pass
        else:
            assert self.heard <= self.reports.keys()

    @precondition(lambda self: self.producer is not None and self.manual)
    @rule(timeout=st.sampled_from([0, 0.01]))
    def poll_events(self, timeout):
        self.producer.poll_events(timeout)

    @precondition(lambda self: self.producer is not None)
    @rule(in_queue=st.booleans(), in_flight=st.booleans())
    def purge(self, in_queue, in_flight):
        self.producer.purge(in_queue=in_queue, in_flight=in_flight)

    # ------------------------------------------------------------------ faults

    @rule(errors=st.lists(st.sampled_from(PASSING_AND_LASTING), min_size=1, max_size=3))
    def fail_requests(self, errors):
        self.broker.fail_requests(ApiKey.PRODUCE, [ErrorCode[error] for error in errors])

    @rule(count=st.integers(1, 2))
    def lose_acks(self, count):
        self.broker.lose_acks(count)

    @rule(seconds=st.sampled_from([0, 0.002, 0.05]))
    def slow_down(self, seconds):
        self.broker.round_trip_time(seconds)

    @rule(partition=st.integers(0, 2), broker_id=st.integers(1, 2))
    def move_leader(self, partition, broker_id):
        if not self.stopped:
            self.broker.move_leader("orders", partition, broker_id)

    @rule()
    def stop_or_start_a_broker(self):
        (self.broker.start_broker if self.stopped else self.broker.stop_broker)(2)
        self.stopped = not self.stopped

    # ------------------------------------------------------------------ endings

    @precondition(lambda self: self.producer is not None)
    @rule(timeout=st.sampled_from([0, 0.01, 0.1]))
    def close(self, timeout):
        self.producer.close(timeout)
        number, counted, record, on_delivery = self.record("bytearray", 0, heard=True)
        try:
            self.producer.send(record, on_delivery)
        except ProducerClosedError:
            self.refused.append((number, counted))
        assert self.producer.metrics().outstanding == 0
        self.producer = None
        self.all_reported()

    @precondition(lambda self: self.producer is not None)
    @rule()
    def drop(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            self.producer = None
            gc.collect()
        wait_until(lambda: self.heard <= self.reports.keys(), 20)
        wait_until(lambda: _rdkafka.live_objects()["handles"] == 0, 20)
        self.all_reported()

    def all_reported(self):
        assert self.reports.keys() == self.heard
        wait_until(lambda: not any(map(is_pinned, self.sent.values())))

    # ------------------------------------------------------------------ always

    @invariant()
    def no_second_report_and_none_for_what_was_refused(self):
        assert not getattr(self, "twice", None)
        assert (
            not {number for number, _ in getattr(self, "refused", ())}
            & getattr(self, "reports", {}).keys()
        )
        assert not any(is_pinned(counted) for _, counted in getattr(self, "refused", ()))

    def teardown(self):
        try:
            if self.producer is not None:
                self.close(0.1)
            if getattr(self, "sent", None):
                self.broker.round_trip_time(0)
                delivered = {number for number, error in self.reports.items() if error is None}
                there = {
                    int(message.value.rstrip(b".")) for message in self.broker.messages("orders")
                }
                assert delivered <= there
                assert there <= self.sent.keys()
        finally:
            self.broker.close()


TestLife = pytest.mark.slow(15)(Life.TestCase)
TestLife.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
