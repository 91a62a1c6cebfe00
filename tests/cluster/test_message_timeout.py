"""Records that time out while brokers suffer: in time, and what is behind them is not doubled
(docs/chaos.md).

What has timed out cannot be sent again, so its sequence numbers leave a hole, and librdkafka goes
on under the producer's next epoch. What a broker may have is sent again under the epoch of before,
or the broker could not know it again (wheels/patches/0018-timeout-doubles.patch). More of it, with
answers that are lost, is in test_sequence.py.
"""

import time

import pytest
from faultlib import PATIENCE as ON_A_BUSY_MACHINE
from faultlib import Outcomes, wait_until

from kafka_ext import ErrorCode, PersistedStatus, ProducerRecord, _rdkafka

PATIENCE = 12.0  # message.timeout.ms


@pytest.fixture
def topic(trio, new_topic):
    return new_topic(trio, replicas={0: [1, 2, 3]})


def send_two_while_nobody_acknowledges(trio, topic, producer):
    """Two records, half of a message's timeout apart, that the leader has and nobody copies; what
    becomes of them.
    """
    outcomes = Outcomes()
    producer.sync_send(ProducerRecord(topic, b"before"), timeout=30)
    trio.pause(2)
    trio.pause(3)
    producer.send(ProducerRecord(topic, b"old"), outcomes.expect("old"))
    time.sleep(PATIENCE / 2)
    producer.send(ProducerRecord(topic, b"young"), outcomes.expect("young"))
    return outcomes


@pytest.mark.skipif(
    "timeout-doubles" not in _rdkafka.build_info()["patches"],
    reason="this librdkafka doubles it",
)
def test_a_record_behind_one_that_timed_out_in_flight_is_not_doubled(trio, connect, topic):
    producer = connect(
        trio.config(message_timeout_ms=int(PATIENCE * 1000), request_timeout_ms=1000)
    )
    outcomes = send_two_while_nobody_acknowledges(trio, topic, producer)
    wait_until(lambda: "old" in outcomes.reports, PATIENCE * 2)
    time.sleep(PATIENCE / 4)  # the next epoch has begun, and the young one is sent again
    trio.resume(2)
    trio.resume(3)
    outcomes.wait(2, 30)
    outcomes.check(["old", "young"])
    metadata, error = outcomes.reports["old"]
    assert (error, metadata.persisted_status) == (ErrorCode.MSG_TIMED_OUT, PersistedStatus.POSSIBLY)
    assert outcomes.reports["young"][1] is None
    assert [message.value for message in trio.messages(topic)] == [b"before", b"old", b"young"]


def test_records_that_never_time_out_are_not(trio, connect, topic):
    """With 0 there is no limit."""
    producer = connect(trio.config(message_timeout_ms=0, request_timeout_ms=1000))
    outcomes = send_two_while_nobody_acknowledges(trio, topic, producer)
    time.sleep(PATIENCE)
    trio.resume(2)
    trio.resume(3)
    outcomes.wait(2, 60)
    outcomes.check(["old", "young"])
    assert outcomes.errors == []
    assert [message.value for message in trio.messages(topic)] == [b"before", b"old", b"young"]


@pytest.mark.found(10)
@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_records_of_a_partition_whose_only_broker_is_gone(trio, connect, new_topic, fault):
    """At default settings, with the requests in flight or behind it, without a leader soon, and
    reported in time and in order.
    """
    topic = new_topic(trio, replicas={0: [3]}, min_insync_replicas=1)
    timeout, late = 4.3, 1.0 + ON_A_BUSY_MACHINE  # 0.1 s on an idle one
    reports = {}

    def reporter(case, number, sent):
        def on_delivery(metadata, error):
            reports[case].append((number, error, time.monotonic() - sent - timeout))

        return on_delivery

    cases = [(idempotence, count) for idempotence in (True, False) for count in (1, 10_000)]
    producers = [
        connect(trio.config(message_timeout_ms=int(timeout * 1000), enable_idempotence=case[0]))
        for case in cases
    ]
    for producer in producers:
        producer.sync_send(ProducerRecord(topic, b"before"), timeout=30)
    getattr(trio, fault)(3)
    for case, producer in zip(cases, producers, strict=True):
        reports[case] = []
        for number in range(case[1]):
            producer.send(ProducerRecord(topic, b"x"), reporter(case, number, time.monotonic()))
    wait_until(lambda: all(len(of) == count for (_, count), of in reports.items()), 4 * timeout)
    for of in reports.values():
        assert [number for number, _, _ in of] == list(range(len(of)))
        assert {error for _, error, _ in of} == {ErrorCode.MSG_TIMED_OUT}
        assert max(by for _, _, by in of) <= late
