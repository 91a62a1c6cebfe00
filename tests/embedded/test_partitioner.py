"""Where a record lands: partitioners by name and in Python, and the Java client's placement."""

import pytest

from kafka_ext import ErrorCode, InvalidRecordError, KafkaException, ProducerRecord, _rdkafka

PARTITIONS = 4  # what the mock cluster gives a topic it creates


def murmur2(data):
    """Austin Appleby's MurmurHash2 with Kafka's seed, as
    org.apache.kafka.common.utils.Utils.murmur2 defines it. Unsigned.
    """
    multiplier, mask = 0x5BD1E995, 0xFFFFFFFF
    result = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        result = (result * multiplier & mask) ^ word
    rest = data[whole:]
    if rest:
        result = (result ^ int.from_bytes(rest, "little")) * multiplier & mask
    result = (result ^ result >> 13) * multiplier & mask
    return result ^ result >> 15


def java_partition(key, count=PARTITIONS):
    return (murmur2(key) & 0x7FFFFFFF) % count


def test_the_hash_of_this_test_is_the_java_clients():
    """The vectors of Kafka's own UtilsTest.testMurmur2, which are signed."""
    vectors = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"abc": 479470107,
    }
    assert {key: murmur2(key) for key in vectors} == {
        key: value & 0xFFFFFFFF for key, value in vectors.items()
    }


KEYS = [
    b"",
    b"a",
    b"ab",
    b"abc",
    b"abcd",
    b"21",
    b"foobar",
    b"a-little-bit-long-string",
    bytes(range(256)),
    "né".encode(),
    b"\0\0\0",
]


class TestNamed:
    def test_a_key_lands_where_the_java_client_puts_it(self, producer):
        for key in KEYS + [b"key-%d" % number for number in range(200)]:
            assert producer.sync_send(
                ProducerRecord("t", b"", key=key), timeout=10
            ).partition == java_partition(key), key

    def test_a_str_key_lands_where_its_utf8_does(self, producer):
        assert producer.sync_send(
            ProducerRecord("t", b"", key="né"), timeout=10
        ).partition == java_partition("né".encode())

    def test_no_key_lands_anywhere(self, make_producer):
        producer = make_producer({"sticky.partitioning.linger.ms": 0})
        partitions = {
            producer.sync_send(ProducerRecord("t", b""), timeout=10).partition for _ in range(100)
        }
        assert partitions == set(range(PARTITIONS))

    def test_another_name(self, make_producer):
        producer = make_producer({"partitioner": "consistent"})
        # CRC32, a different placement: b"abc" is 0x352441c2.
        assert (
            producer.sync_send(ProducerRecord("t", b"", key=b"abc"), timeout=10).partition
            == 0x352441C2 % PARTITIONS
        )
        assert producer.get_property("partitioner") == "consistent"

    def test_a_partition_given_wins(self, producer):
        for partition in range(PARTITIONS):
            assert (
                producer.sync_send(
                    ProducerRecord("t", b"", key=b"abc", partition=partition), timeout=10
                ).partition
                == partition
            )


class TestInPython:
    def test_is_asked_on_the_sending_thread_with_what_was_given(self, make_producer):
        calls = []

        def partitioner(topic, key, count):
            calls.append((topic, key, count))
            return 3

        producer = make_producer(partitioner=partitioner)
        assert producer.sync_send(ProducerRecord("t", b"v", key="a key"), timeout=10).partition == 3
        assert producer.sync_send(ProducerRecord("t", b"v"), timeout=10).partition == 3
        assert calls == [("t", "a key", PARTITIONS), ("t", None, PARTITIONS)]

    def test_is_not_asked_when_a_partition_is_given(self, make_producer):
        def partitioner(topic, key, count):
            raise AssertionError("not to be asked")

        producer = make_producer(partitioner=partitioner)
        assert producer.sync_send(ProducerRecord("t", b"", partition=1), timeout=10).partition == 1

    def test_the_metadata_is_asked_for_once(self, make_producer, monkeypatch):
        asked = []
        fetch = _rdkafka.fetch_metadata
        monkeypatch.setattr(
            _rdkafka, "fetch_metadata", lambda *args: asked.append(args) or fetch(*args)
        )
        producer = make_producer(partitioner=lambda topic, key, count: 0)
        for _ in range(10):
            producer.sync_send(ProducerRecord("t", b""), timeout=10)
        assert len(asked) <= 1

    @pytest.mark.parametrize("chosen", [-1, PARTITIONS, 2**40], ids=str)
    def test_a_partition_that_is_none_is_refused(self, make_producer, chosen):
        producer = make_producer(partitioner=lambda topic, key, count: chosen)
        value = bytearray(b"v")
        with pytest.raises(InvalidRecordError, match="partitioner"):
            producer.send(ProducerRecord("t", value))
        value.append(1)
        assert producer.metrics().sent == 0

    @pytest.mark.parametrize("chosen", [None, "0", 0.5, b"0"], ids=repr)
    def test_what_is_no_int_is_refused(self, make_producer, chosen):
        producer = make_producer(partitioner=lambda topic, key, count: chosen)
        with pytest.raises(TypeError, match="partitioner"):
            producer.send(ProducerRecord("t", bytearray(b"v")))
        assert producer.sync_send(ProducerRecord("t", b"", partition=0), timeout=10).partition == 0

    def test_what_it_raises_the_send_raises(self, make_producer):
        def partitioner(topic, key, count):
            raise ZeroDivisionError("from the partitioner")

        producer = make_producer(partitioner=partitioner)
        value = bytearray(b"v")
        for send in (producer.send, producer.try_send, producer.sync_send, producer.send_future):
            with pytest.raises(ZeroDivisionError):
                send(ProducerRecord("t", value))
        value.append(1)
        assert producer.metrics().sent == 0

    def test_an_object_with_index_will_do(self, make_producer):
        class Two:
            def __index__(self):
                return 2

        producer = make_producer(partitioner=lambda topic, key, count: Two())
        assert producer.sync_send(ProducerRecord("t", b""), timeout=10).partition == 2

    def test_works_in_a_callback(self, make_producer, reports):
        producer = make_producer(partitioner=lambda topic, key, count: 1)
        producer.send(
            ProducerRecord("t", b""), lambda *_: producer.send(ProducerRecord("u", b""), reports)
        )
        producer.flush(10)
        assert [metadata.partition for metadata, _ in reports] == [1]


def test_fetch_broker_metadata_of_a_topic(producer):
    producer.sync_send(ProducerRecord("t", b""), timeout=10)
    metadata = producer.fetch_broker_metadata("t")
    assert list(metadata.topics) == ["t"]
    topic = metadata.topics["t"]
    assert (topic.name, topic.error, sorted(topic.partitions)) == (
        "t",
        None,
        list(range(PARTITIONS)),
    )
    assert all(
        partition.leader == 1 and partition.replicas == (1,)
        for partition in topic.partitions.values()
    )
    broker = metadata.brokers[1]
    assert (broker.id, broker.host) == (1, "127.0.0.1")
    assert broker.port > 0
    assert metadata.cluster_id


def test_fetch_broker_metadata_of_all_topics(producer):
    for topic in ("a", "b"):
        producer.sync_send(ProducerRecord(topic, b""), timeout=10)
    assert set(producer.fetch_broker_metadata().topics) == {"a", "b"}


def test_fetch_broker_metadata_without_a_broker(make_producer):
    producer = make_producer({"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": ...})
    with pytest.raises(TimeoutError) as caught:
        producer.fetch_broker_metadata(timeout=0.2)
    assert isinstance(caught.value, KafkaException)
    assert caught.value.error == ErrorCode.TIMED_OUT
