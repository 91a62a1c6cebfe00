"""A record is reported at its offset or at none (wheels/patches/0017-unknown-offset.patch)."""

import pytest

from kafka_ext import ErrorCode, KafkaProducer, ProducerRecord, _rdkafka
from kafka_ext.testing import ApiKey, EmbeddedBroker

if "unknown-offset" not in _rdkafka.build_info()["patches"]:
    pytest.skip("this librdkafka is not mended (wheels/patches)", allow_module_level=True)

MANY = 1500  # librdkafka counts up from -1001


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"t": 1}) as broker:
        yield broker


def test_without_acknowledgements_no_offset_of_a_batch_is_known(broker):
    with KafkaProducer(broker.config(acks=0, linger_ms=100)) as producer:
        batch = producer.send_batch("t", [b"value"] * MANY)
        batch.wait(10)
        batch.raise_for_errors()
    assert set(batch.offsets) == {-1}
    assert set(batch.partitions) == {0}


def test_without_acknowledgements_no_callback_is_told_an_offset(broker):
    offsets = []
    with KafkaProducer(broker.config(acks=0, linger_ms=100)) as producer:
        for _ in range(MANY):
            producer.send(
                ProducerRecord("t", b"value"),
                lambda metadata, error: offsets.append((metadata.offset, error)),
            )
    assert len(offsets) == MANY
    assert set(offsets) == {(None, None)}


def test_a_duplicate_that_the_broker_no_longer_remembers_has_no_offsets(broker):
    with KafkaProducer(broker.config(linger_ms=100)) as producer:
        producer.sync_send(ProducerRecord("t", b"first"), 10)
        # librdkafka takes it for what it is: the records are in the log, the broker no longer knows
        # where. One such answer is enough if all three records are in one request.
        broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.DUPLICATE_SEQUENCE_NUMBER] * 3)
        batch = producer.send_batch("t", [b"a", b"b", b"c"])
        batch.wait(10)
        batch.raise_for_errors()
    assert list(batch.offsets) == [-1, -1, -1]
