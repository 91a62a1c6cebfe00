"""A record without a timestamp carries the time of its send, although one reading of the clock
serves a whole enqueue (0021-clock-readings.patch).
"""

from __future__ import annotations

import time

from kafka_ext import KafkaProducer, ProducerRecord
from kafka_ext.testing import EmbeddedBroker


def test_timestamps_are_the_time_of_the_send() -> None:
    with EmbeddedBroker(topics={"t": 1}) as broker:
        sent = []
        with KafkaProducer(broker.config(**{"enable.idempotence": "false"})) as producer:
            for pause in (0.0, 0.02, 0.3, 0.0):
                time.sleep(pause)
                before = time.time()
                producer.send(ProducerRecord("t", b"one"))
                producer.send_batch("t", [b"of a batch"])
                sent.append((before, time.time()))
        messages = broker.messages("t", count=8)
    times = [message.timestamp / 1000 for message in messages]
    assert times == sorted(times)
    for (before, after), first, second in zip(sent, times[::2], times[1::2], strict=True):
        # A millisecond for the rounding of Kafka's timestamps, another for the age that the
        # distance between the clocks may have.
        assert before - 0.002 <= first <= after + 0.002
        assert before - 0.002 <= second <= after + 0.002
