"""What a real broker refuses, and with which error (the table of docs/reliability.md)."""

import time

import pytest
from faultlib import Outcomes, wait_until, within

from kafka_ext import ErrorCode, KafkaException, PersistedStatus, ProducerRecord

SEND_LIMIT = 1_000_000  # message.max.bytes of librdkafka
BROKER_LIMIT = 1_048_588  # message.max.bytes of Kafka


def refused(producer, record, timeout=15):
    """The error of a record that is not delivered, and its metadata."""
    outcomes = Outcomes()
    producer.send(record, outcomes.expect("it"))
    outcomes.wait(1, timeout)
    outcomes.check(["it"])
    metadata, error = outcomes.reports["it"]
    assert error is not None
    return metadata, error


def test_fault_09_too_large_for_the_client_is_raised_and_never_sent(single, connect, new_topic):
    topic = new_topic(single)
    producer = connect(single.config())
    overhead = 512  # librdkafka counts a record's own fields and the batch's as well: at most this
    producer.sync_send(ProducerRecord(topic, bytes(SEND_LIMIT - overhead)), timeout=10)
    outcomes = Outcomes()
    with pytest.raises(KafkaException) as raised:
        producer.send(ProducerRecord(topic, bytes(SEND_LIMIT + 1)), outcomes.expect("it"))
    assert raised.value.error == ErrorCode["MSG_SIZE_TOO_LARGE"]
    producer.flush(10)
    outcomes.check([])
    assert len(single.messages(topic)) == 1


def test_fault_10_too_large_for_the_broker_is_reported_for_each_record(single, connect, new_topic):
    topic = new_topic(single)
    producer = connect(single.config(message_max_bytes=10_000_000, linger_ms=50))
    outcomes = Outcomes()
    for number in range(3):
        producer.send(ProducerRecord(topic, bytes(BROKER_LIMIT)), outcomes.expect(number))
    producer.flush(20)
    outcomes.check(range(3))
    assert [(error, error.is_fatal, error.is_retriable) for error in outcomes.errors] == [
        (ErrorCode["MSG_SIZE_TOO_LARGE"], False, False)
    ] * 3
    assert {metadata.persisted_status for metadata, _ in outcomes.reports.values()} == {
        PersistedStatus.NOT
    }
    # The producer goes on, and the numbers that the refused ones had leave no hole.
    producer.sync_send(ProducerRecord(topic, b"small"), timeout=10)
    single.assert_delivered(topic, [b"small"], exactly_once=True)


def test_fault_10_a_small_record_in_a_batch_that_is_too_large_fails_with_it_or_not_at_all(
    single, connect, new_topic
):
    """The broker's limit is for the batch: librdkafka's batch.size keeps many small records below
    it.
    """
    topic = new_topic(single, max_message_bytes=2000)
    producer = connect(single.config(linger_ms=50, batch_size=1_000_000))
    outcomes = Outcomes()
    for number in range(10):
        producer.send(ProducerRecord(topic, bytes(500)), outcomes.expect(number))
    producer.flush(20)
    outcomes.check(range(10))
    assert set(outcomes.errors) == {ErrorCode["MSG_SIZE_TOO_LARGE"]}
    small = connect(single.config(linger_ms=50, batch_size=1500))
    for number in range(10):
        small.send(ProducerRecord(topic, b"%d" % number), outcomes.expect(10 + number))
    small.flush(20)
    single.assert_delivered(topic, [b"%d" % number for number in range(10)], exactly_once=True)


def test_the_topics_limit_counts_what_is_compressed(single, connect, new_topic):
    topic = new_topic(single, max_message_bytes=1000)
    _, error = refused(connect(single.config()), ProducerRecord(topic, bytes(2000)))
    assert error == ErrorCode["MSG_SIZE_TOO_LARGE"]
    connect(single.config(compression_type="zstd")).sync_send(
        ProducerRecord(topic, bytes(2000)), timeout=10
    )


def test_fault_11_unknown_topic_is_reported_once_it_had_time_to_appear(single, connect):
    with within(2):
        metadata, error = refused(
            connect(single.config(topic_metadata_propagation_max_ms=1000)),
            ProducerRecord("no-such-topic", b"v"),
        )
    assert (error, error.is_fatal, error.is_retriable) == (
        ErrorCode["UNKNOWN_TOPIC_OR_PART"],
        False,
        True,
    )
    assert metadata.persisted_status == PersistedStatus.NOT


def test_fault_11_a_topic_known_to_be_unknown_is_refused_at_once(single, connect):
    producer = connect(single.config(topic_metadata_propagation_max_ms=500))
    refused(producer, ProducerRecord("no-such-topic", b"v"))
    outcomes = Outcomes()
    with pytest.raises(KafkaException) as raised:
        producer.send(ProducerRecord("no-such-topic", b"v"), outcomes.expect("it"))
    assert raised.value.error == ErrorCode["UNKNOWN_TOPIC"]
    producer.flush(5)
    outcomes.check([])


def test_fault_11_a_message_timeout_shorter_than_that_is_what_is_reported(single, connect):
    _, error = refused(
        connect(single.config(message_timeout_ms=500)), ProducerRecord("no-such-topic", b"v")
    )
    assert error == ErrorCode["MSG_TIMED_OUT"]


def test_fault_11_a_topic_made_in_time_gets_what_was_sent_before(single, connect, request):
    producer = connect(single.config())
    outcomes = Outcomes()
    producer.send(ProducerRecord("made-later", b"v"), outcomes.expect("it"))
    time.sleep(0.5)
    assert not outcomes.reports
    single.create_topic("made-later")
    outcomes.wait(1)
    assert outcomes.errors == []
    single.assert_delivered("made-later", [b"v"], exactly_once=True)


def test_fault_11_a_deleted_topic(single, connect, new_topic):
    """The client hears of it when it next asks for metadata: here because of a record that the
    broker refuses.
    """
    topic = new_topic(single)
    producer = connect(single.config(topic_metadata_propagation_max_ms=500))
    producer.sync_send(ProducerRecord(topic, b"v"), timeout=10)
    single.delete_topic(topic)
    metadata, error = refused(producer, ProducerRecord(topic, b"w"))
    assert (error, metadata.persisted_status) == (
        ErrorCode["UNKNOWN_PARTITION"],
        PersistedStatus.NOT,
    )
    with pytest.raises(KafkaException) as raised:
        producer.send(ProducerRecord(topic, b"x"))
    assert raised.value.error == ErrorCode["UNKNOWN_TOPIC"]


def test_fault_12_unknown_partition(single, connect, new_topic):
    topic = new_topic(single, 2)
    producer = connect(single.config())
    producer.sync_send(ProducerRecord(topic, b"v", partition=1), timeout=10)
    outcomes = Outcomes()
    with pytest.raises(KafkaException) as raised:
        producer.send(ProducerRecord(topic, b"v", partition=2), outcomes.expect("it"))
    assert raised.value.error == ErrorCode["UNKNOWN_PARTITION"]
    producer.flush(5)
    outcomes.check([])


@pytest.mark.parametrize("idempotent", [True, False])
def test_fault_15_no_right_to_the_topic(single, connect, new_topic, idempotent):
    topic, own = new_topic(single), new_topic(single)
    single.allow(
        "bob", "write", "topic", own
    )  # who may write to no topic gets no producer id either
    config = single.config(listener="SASL", user="bob", enable_idempotence=idempotent)
    until_allowed(connect(config), ProducerRecord(own, b"v"))
    producer = connect(config)
    metadata, error = refused(producer, ProducerRecord(topic, b"v"))
    assert (error, error.is_fatal, error.is_retriable) == (
        ErrorCode["TOPIC_AUTHORIZATION_FAILED"],
        False,
        False,
    )
    assert metadata.persisted_status == PersistedStatus.NOT
    # What the client has once heard, it says at once.
    outcomes = Outcomes()
    with pytest.raises(KafkaException) as raised:
        producer.send(ProducerRecord(topic, b"v"), outcomes.expect("it"))
    assert raised.value.error == ErrorCode["TOPIC_AUTHORIZATION_FAILED"]
    # To be allowed to see the topic is not to be allowed to write to it.
    single.allow("bob", "describe", "topic", topic)
    seeing = connect(config)
    metadata, error = refused(seeing, ProducerRecord(topic, b"v"))
    assert (error, error.is_fatal) == (ErrorCode["TOPIC_AUTHORIZATION_FAILED"], False)
    assert metadata.persisted_status == PersistedStatus.NOT
    single.allow("bob", "write", "topic", topic)
    until_allowed(producer, ProducerRecord(topic, b"allowed"))
    single.assert_delivered(topic, [b"allowed"], exactly_once=True)
    outcomes.check([])


def until_allowed(producer, record):
    """Send until it works: rights get around within moments, and a client asks again for what it
    was refused once a second or so.
    """

    delivered = []

    def sent():
        try:
            delivered.append(delivered or producer.sync_send(record, timeout=10))
        except KafkaException as refusal:
            if refusal.error != ErrorCode["TOPIC_AUTHORIZATION_FAILED"]:
                raise
        return bool(delivered)

    wait_until(sent, 20)


def test_fault_15_who_may_write_nowhere_gets_no_producer_id(single, connect, new_topic):
    topic = new_topic(single)
    single.allow("eve", "describe", "topic", topic)
    heard = []
    producer = connect(single.config(listener="SASL", user="eve", error_cb=heard.append))
    _, error = refused(producer, ProducerRecord(topic, b"v"))
    assert error.is_fatal
    assert "CLUSTER_AUTHORIZATION_FAILED" in f"{error.name} {error.message}"
    assert [(error, error.is_fatal) for error in heard if error.is_fatal] == [
        (ErrorCode["CLUSTER_AUTHORIZATION_FAILED"], True)
    ]
    with pytest.raises(KafkaException) as raised:
        producer.send(ProducerRecord(topic, b"v"))
    assert (raised.value.error, raised.value.error.is_fatal) == (
        ErrorCode["CLUSTER_AUTHORIZATION_FAILED"],
        True,
    )
    single.allow("eve", "idempotent_write", "cluster", "kafka-cluster")
    _, error = refused(
        connect(single.config(listener="SASL", user="eve")), ProducerRecord(topic, b"v")
    )
    assert (error, error.is_fatal) == (ErrorCode["TOPIC_AUTHORIZATION_FAILED"], False)


def test_fault_15_no_right_to_the_transactional_id(single, connect):
    producer = connect(single.config(listener="SASL", user="bob", transactional_id="not-bobs"))
    with pytest.raises(KafkaException) as raised:
        producer.init_transactions(10)
    assert raised.value.error == ErrorCode["TRANSACTIONAL_ID_AUTHORIZATION_FAILED"]
    assert raised.value.error.is_fatal
    with pytest.raises(KafkaException):
        producer.send(ProducerRecord("orders", b"v"))


def test_a_compacted_topic_takes_no_record_without_key(single, connect, new_topic):
    topic = new_topic(single, cleanup_policy="compact")
    producer = connect(single.config())
    _, error = refused(producer, ProducerRecord(topic, b"v"))
    assert error == ErrorCode["INVALID_RECORD"]
    producer.sync_send(ProducerRecord(topic, b"v", key=b"k"), timeout=10)


def test_an_errors_words_are_there_however_late_they_are_read(single, connect, new_topic):
    """librdkafka has freed what the broker said of each record by the time that a report is served:
    see produce_errstr.c.
    """
    topic = new_topic(single, cleanup_policy="compact")
    producer = connect(single.config(), **{"enable.manual.events.poll": True})
    outcomes = Outcomes()
    for number in range(10):
        producer.send(ProducerRecord(topic, b"v"), outcomes.expect(number))
    time.sleep(1.5)
    producer.flush(10)
    outcomes.check(range(10))
    assert {(error.name, error.message) for error in outcomes.errors} == {
        ("INVALID_RECORD", "Broker: Broker failed to validate record")
    }


def test_a_timestamp_that_the_topic_does_not_take_is_named_in_words(single, connect, new_topic):
    """The broker's own text for this record is empty."""
    topic = new_topic(single, message_timestamp_before_max_ms=1000)
    _, error = refused(connect(single.config()), ProducerRecord(topic, b"v", timestamp=1000))
    assert error == ErrorCode["INVALID_TIMESTAMP"]
    assert "timestamp" in error.message


# ---------------------------------------------------------------------- replicas


@pytest.fixture
def too_few(trio, new_topic):
    """A topic with two replicas, of which both must be in sync, and only one is."""
    topic = new_topic(trio, replicas={0: [1, 2]}, min_insync_replicas=2)
    trio.kill(2)
    give_up = time.monotonic() + 30
    while trio.partitions(topic)[0].in_sync != (1,):
        assert time.monotonic() < give_up
        time.sleep(0.1)
    return topic


def test_fault_06_not_enough_replicas_is_retried_until_there_are(trio, connect, too_few):
    producer = connect(trio.config())
    outcomes = Outcomes()
    for number in range(10):
        producer.send(ProducerRecord(too_few, b"%d" % number), outcomes.expect(number))
    time.sleep(1)
    assert not outcomes.reports
    trio.start(2)
    outcomes.wait(10, 30)
    outcomes.check(range(10))
    assert outcomes.errors == []
    trio.assert_delivered(
        too_few, [b"%d" % number for number in range(10)], exactly_once=True, ordered=True
    )


def test_fault_06_not_enough_replicas_is_reported_when_time_or_retries_run_out(
    trio, connect, too_few
):
    _, error = refused(connect(trio.config(message_timeout_ms=1500)), ProducerRecord(too_few, b"v"))
    assert error == ErrorCode["MSG_TIMED_OUT"]
    _, error = refused(
        connect(trio.config(retries=0, enable_idempotence=False)), ProducerRecord(too_few, b"v")
    )
    assert (error, error.is_retriable) == (ErrorCode["NOT_ENOUGH_REPLICAS"], True)
    # The leader takes it from who does not ask for more.
    connect(trio.config(acks=1)).sync_send(ProducerRecord(too_few, b"leader only"), timeout=10)
    # Nobody reads it until enough replicas have it: a high watermark does not pass what too few
    # have (KIP-966).
    assert trio.messages(too_few) == []
    trio.start(2)
    trio.wait_in_sync(too_few)
    trio.assert_delivered(too_few, [b"leader only"], exactly_once=True, timeout=10)


def test_fault_06_two_of_three_killed(trio, connect, new_topic):
    """The controllers have no majority left either, so that the leader cannot say who is in sync:
    it waits for the dead ones.
    """
    topic = new_topic(trio, replicas={0: [1, 2, 3]})
    producer = connect(trio.config(message_timeout_ms=4000, request_timeout_ms=1500))
    producer.sync_send(ProducerRecord(topic, b"before"), timeout=10)
    trio.kill(2)
    trio.kill(3)
    metadata, error = refused(producer, ProducerRecord(topic, b"during"))
    assert error == ErrorCode["MSG_TIMED_OUT"]
    assert metadata.persisted_status == PersistedStatus.POSSIBLY
    trio.start()
    trio.wait_in_sync(topic)
    values = [message.value for message in trio.messages(topic)]
    assert values in ([b"before"], [b"before", b"during"])
