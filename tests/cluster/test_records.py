"""What is in the log is what was sent, whoever reads it: every codec, and both kinds of
timestamp.
"""

import time
import warnings

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, Consumer
from confluent_kafka import TopicPartition as ConfluentPartition

from kafka_ext import ProducerRecord, TimestampType

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # its way of reading its own files is old
    import kafka

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def read_by_librdkafka(cluster, topic, count):
    """What confluent-kafka reads: `(key, value, headers, (timestamp type, timestamp))` of each
    record of partition 0.
    """
    consumer = Consumer(
        cluster.config(group_id="reader", enable_auto_commit=False, check_crcs=True)
    )
    try:
        consumer.assign([ConfluentPartition(topic, 0, 0)])
        messages = []
        give_up = time.monotonic() + 30
        while len(messages) < count and time.monotonic() < give_up:
            messages += consumer.consume(count - len(messages), 1)
        assert [message.error() for message in messages] == [None] * count
        return [
            (message.key(), message.value(), message.headers(), message.timestamp())
            for message in messages
        ]
    finally:
        consumer.close()


def read_by_kafka_python(cluster, topic, count):
    """The same by an implementation that shares nothing with librdkafka."""
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=cluster.bootstrap_servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        check_crcs=True,
    )
    try:
        consumer.assign([kafka.TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        messages = []
        give_up = time.monotonic() + 30
        while len(messages) < count and time.monotonic() < give_up:
            for batch in consumer.poll(1000).values():
                messages += batch
        return [
            (
                m.key,
                m.value,
                [(name, value) for name, value in m.headers],
                (m.timestamp_type, m.timestamp),
            )
            for m in messages
        ]
    finally:
        consumer.close()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("read", [read_by_librdkafka, read_by_kafka_python])
def test_every_codec_is_read_back_by_another_client(single, connect, new_topic, codec, read):
    topic = new_topic(single)
    records = [
        (
            b"k%d" % (n % 7),
            b"%d " % n * (n % 50),
            [("h", b"%d" % n), ("none", None)],
            1_700_000_000_000 + n,
        )
        for n in range(500)
    ]
    with connect(single.config(compression_type=codec, linger_ms=20)) as producer:
        for key, value, headers, timestamp in records:
            producer.send(
                ProducerRecord(topic, value, key=key, headers=headers, timestamp=timestamp)
            )
    # 0: CreateTime in the protocol, 1: in confluent-kafka's names
    created = TIMESTAMP_CREATE_TIME if read is read_by_librdkafka else 0
    assert read(single, topic, 500) == [
        (key, value, headers, (created, timestamp)) for key, value, headers, timestamp in records
    ]


def test_the_codecs_do_compress(single, connect, new_topic):
    """Otherwise the test above would show nothing: what is compressed fits where what is not does
    not.
    """
    topic = new_topic(single, max_message_bytes=5000)
    for codec in CODECS[1:]:
        connect(single.config(compression_type=codec)).sync_send(
            ProducerRecord(topic, bytes(100_000), key=codec), timeout=10
        )
    assert [message.key for message in single.messages(topic)] == [
        codec.encode() for codec in CODECS[1:]
    ]


def test_the_batches_of_send_batch_are_read_back_as_well(single, connect, new_topic):
    topic = new_topic(single)
    with connect(single.config(compression_type="lz4", linger_ms=20)) as producer:
        batch = producer.send_batch(topic, [b"%d" % n for n in range(5000)], keys=[b"k"] * 5000)
        batch.wait(30)
        batch.raise_for_errors()
    assert [value for _, value, *_ in read_by_librdkafka(single, topic, 5000)] == [
        b"%d" % n for n in range(5000)
    ]


def test_create_time_is_the_senders(single, connect, new_topic):
    topic = new_topic(single, message_timestamp_type="CreateTime")
    metadata = connect(single.config()).sync_send(
        ProducerRecord(topic, b"v", timestamp=1_700_000_000_123), timeout=10
    )
    assert (metadata.timestamp, metadata.timestamp_type) == (
        1_700_000_000_123,
        TimestampType.CREATE_TIME,
    )
    assert read_by_librdkafka(single, topic, 1)[0][3] == (TIMESTAMP_CREATE_TIME, 1_700_000_000_123)


def test_log_append_time_is_the_brokers(single, connect, new_topic):
    topic = new_topic(single, message_timestamp_type="LogAppendTime")
    before = time.time() * 1000
    metadata = connect(single.config()).sync_send(
        ProducerRecord(topic, b"v", timestamp=1_700_000_000_123), timeout=10
    )
    assert before - 1000 <= metadata.timestamp <= time.time() * 1000 + 1000
    assert metadata.timestamp_type == TimestampType.LOG_APPEND_TIME
    assert read_by_librdkafka(single, topic, 1)[0][3] == (
        TIMESTAMP_LOG_APPEND_TIME,
        metadata.timestamp,
    )
    assert single.messages(topic)[0].timestamp == metadata.timestamp
    assert "LogAppendTime" in str(metadata)


def test_a_tombstone_is_not_an_empty_value(single, connect, new_topic):
    topic = new_topic(single, cleanup_policy="compact")
    producer = connect(single.config())
    for value in (b"", None):
        producer.sync_send(ProducerRecord(topic, value, key=b"k"), timeout=10)
    assert [value for _, value, *_ in read_by_kafka_python(single, topic, 2)] == [b"", None]
