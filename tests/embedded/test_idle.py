"""A producer that waits for a broker's answer does nothing meanwhile
(wheels/patches/0007-inflight-wait.patch).
"""

from __future__ import annotations

from typing import Any

import pytest
from faultlib import wait_until

from kafka_ext import KafkaProducer, ProducerRecord
from kafka_ext.testing import EmbeddedBroker

SETTINGS: dict[str, Any] = {
    "enable.idempotence": True,
    "batch.num.messages": 1,
    "statistics.interval.ms": 200,
}
SPINNING = (
    2000  # a spinning thread wakes up some 200,000 times a second; ten milliseconds apart are 100
)


@pytest.mark.parametrize(
    "count", [2, 10], ids=["behind the first request", "behind many in flight"]
)
def test_waiting_for_an_answer_takes_no_processor(count: int) -> None:
    wakeups: list[int] = []

    def on_statistics(statistics: dict[str, Any]) -> None:
        wakeups.append(
            sum(one["wakeups"] for one in statistics["brokers"].values() if one["nodeid"] == 1)
        )

    with (
        EmbeddedBroker(topics={"orders": 2}, isolation="process") as broker,
        KafkaProducer(broker.config(), stats_cb=on_statistics, **SETTINGS) as producer,
    ):
        producer.sync_send(ProducerRecord("orders", b"before", partition=0), timeout=10)
        broker.pause()
        reports: list[Any] = []
        for number in range(count):
            record = ProducerRecord("orders", b"%d" % number, partition=1)
            producer.send(record, lambda metadata, error: reports.append(error))
        begin = len(wakeups) + 1
        wait_until(lambda: len(wakeups) > begin + 5)
        broker.resume()
        assert wakeups[begin + 5] - wakeups[begin] < SPINNING
        wait_until(lambda: reports == [None] * count)
        assert [message.value for message in broker.messages("orders", 1 + count)][1:] == [
            b"%d" % number for number in range(count)
        ]
