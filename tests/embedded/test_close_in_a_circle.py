"""Producers that close each other from their callbacks, each of which a close() waits for."""

import threading

import pytest

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, ProducerRecord
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import EmbeddedBroker

PATIENCE = 60.0


@pytest.mark.found(13)
@pytest.mark.parametrize("make", [KafkaProducer, RecoverableProducer])
@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("closed_outside", [False, True])
def test_a_circle_of_callbacks_that_close_is_refused(make, number, closed_outside):
    """They waited for each other, whatever their timeouts."""
    together = threading.Barrier(number)
    outcomes = {}
    ended = threading.Semaphore(0)

    def callback(i):
        def close_the_next(metadata, error):
            together.wait(PATIENCE)
            try:
                producers[(i + 1) % number].close(PATIENCE)
                outcomes[i] = None
            except KafkaException as exc:
                outcomes[i] = exc.error.code
            ended.release()

        return close_the_next

    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producers = [make(broker.config()) for _ in range(number)]
        for i, producer in enumerate(producers):
            producer.send(ProducerRecord("orders", b"v"), callback(i))
        if closed_outside:
            producers[0].close(PATIENCE)
        for _ in producers:
            assert ended.acquire(timeout=PATIENCE)
        for producer in producers:
            producer.close(PATIENCE)
    assert ErrorCode.STATE in outcomes.values()
    assert set(outcomes.values()) <= {None, ErrorCode.STATE}
