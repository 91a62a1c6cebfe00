"""What the leader alone had is lost with it: an unclean election. Nothing of it goes unnoticed."""

import confluent_kafka
import pytest
from faultlib import Outcomes, wait_until

from kafka_ext import ErrorCode, ProducerRecord

SETTINGS = {"message_timeout_ms": 60_000, "request_timeout_ms": 3000}


@pytest.fixture
def lose_by_killing(trio, new_topic):
    """Has `send` send a record that is acknowledged by a leader alone, kills that leader, and lets
    the other replica lead.
    """

    def lose(topic, send):
        trio.pause(2)
        wait_until(lambda: list(trio.partitions(topic)[0].in_sync) == [1], 60)
        send(b"lost")
        trio.kill(1)
        trio.resume(2)
        wait_until(lambda: trio.leader(topic) == 2, 60)

    return lose


@pytest.fixture
def topic(trio, new_topic):
    return new_topic(
        trio, replicas={0: [1, 2]}, min_insync_replicas=1, unclean_leader_election_enable="true"
    )


def test_a_producer_whose_acknowledged_record_is_lost_is_told(
    trio, connect, topic, lose_by_killing
):
    """The broker's next sequence number is one that was used: no retry can put that right, and no
    other epoch may hide it.
    """
    producer = connect(trio.config(**SETTINGS))
    producer.sync_send(ProducerRecord(topic, b"before", partition=0), timeout=30)
    lose_by_killing(
        topic,
        lambda value: producer.sync_send(ProducerRecord(topic, value, partition=0), timeout=60),
    )
    outcomes = Outcomes()
    producer.send(ProducerRecord(topic, b"after", partition=0), outcomes.expect("after"))
    outcomes.wait(1, 60)
    assert [(error, error.is_fatal) for error in outcomes.errors] == [
        (ErrorCode["OUT_OF_ORDER_SEQUENCE_NUMBER"], True)
    ]
    assert [message.value for message in trio.messages(topic)] == [b"before"]


def test_upstreams_producer_is_told_the_same(trio, topic, lose_by_killing):
    """The control: confluent-kafka, with librdkafka as upstream makes it."""
    config = {"enable.idempotence": True, "linger.ms": 0, "log_level": 0}
    config |= {key.replace("_", "."): value for key, value in SETTINGS.items()}
    producer = confluent_kafka.Producer(dict(trio.config()) | config)
    producer.produce(topic, b"before", partition=0)
    producer.flush(30)

    def send(value):
        producer.produce(topic, value, partition=0)
        assert producer.flush(60) == 0

    lose_by_killing(topic, send)
    producer.produce(topic, b"after", partition=0)
    with pytest.raises(confluent_kafka.KafkaException) as raised:
        producer.flush(60)
    error = raised.value.args[0]
    assert (error.code(), error.fatal()) == (ErrorCode["OUT_OF_ORDER_SEQUENCE_NUMBER"], True)
    assert [message.value for message in trio.messages(topic)] == [b"before"]
