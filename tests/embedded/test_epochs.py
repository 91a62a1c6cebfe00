"""An outage does not use up a producer's epochs (wheels/patches/0012-epochs.patch)."""

from __future__ import annotations

import time
from typing import Any

from faultlib import wait_until

from kafka_ext import ErrorCode, KafkaProducer, ProducerRecord
from kafka_ext.testing import EmbeddedBroker

PARTITIONS = 50


def test_records_that_time_out_while_no_broker_is_up_use_one_epoch() -> None:
    epochs: list[int] = []
    codes: list[int] = []

    def on_statistics(statistics: dict[str, Any]) -> None:
        epochs.append(statistics["eos"]["producer_epoch"])

    def on_delivery(metadata: Any, error: Any) -> None:
        codes.append(0 if error is None else error.code)

    def send_to_all() -> None:
        for partition in range(PARTITIONS):
            producer.send(ProducerRecord("orders", b"x", partition=partition), on_delivery)

    settings = {
        "enable.idempotence": True,
        "message.timeout.ms": 1000,
        "statistics.interval.ms": 200,
        "log_level": 0,
    }
    with (
        EmbeddedBroker(topics={"orders": PARTITIONS}, isolation="process") as broker,
        KafkaProducer(
            broker.config(), stats_cb=on_statistics, error_cb=lambda error: None, **settings
        ) as producer,
    ):
        send_to_all()
        producer.flush(10)
        assert codes == [0] * PARTITIONS
        wait_until(lambda: epochs and epochs[-1] >= 0)
        before = epochs[-1]
        broker.kill()
        rounds = 20
        for _ in range(rounds):
            send_to_all()
            time.sleep(0.1)  # so that they time out one after the other
        wait_until(lambda: len(codes) == (1 + rounds) * PARTITIONS)
        assert set(codes[PARTITIONS:]) == {ErrorCode.MSG_TIMED_OUT}
        seen = len(epochs)
        wait_until(lambda: len(epochs) > seen)
        # One, and one more for what the kill itself may have cut off. It was 50 for each of ten
        # scans a second.
        assert epochs[-1] - before <= 3
