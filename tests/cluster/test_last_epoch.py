"""What comes after a producer's last epoch, on real Kafka (wheels/patches/0012-epochs.patch)."""

from __future__ import annotations

from typing import Any

from faultlib import wait_until

from kafka_ext import ErrorCode, ProducerRecord

BLOCK = 1000


def test_records_are_delivered_after_the_last_epoch(
    single: Any, connect: Any, new_topic: Any
) -> None:
    """Each refused record uses an epoch. There are 32,767, and brokers refuse a lower one than they
    know.
    """
    good, small = new_topic(single), new_topic(single, max_message_bytes=1000)
    ids: list[int] = []

    def on_statistics(statistics: dict[str, Any]) -> None:
        ids.append(statistics["eos"]["producer_id"])

    producer = connect(
        single.config(
            **{"batch.num.messages": 1, "statistics.interval.ms": 500, "stats_cb": on_statistics}
        )
    )
    refused: list[int] = []

    def on_refusal(metadata: Any, error: Any) -> None:
        refused.append(error.code)

    sent = [b"0"]
    producer.sync_send(ProducerRecord(good, sent[0], partition=0), timeout=20)
    wait_until(lambda: ids and ids[-1] >= 0)
    first = ids[-1]
    while ids[-1] in (first, -1):
        for _ in range(BLOCK):
            producer.send(ProducerRecord(small, b"x" * 2000, partition=0), on_refusal)
        producer.flush(60)
        sent.append(b"%d" % len(sent))
        producer.sync_send(ProducerRecord(good, sent[-1], partition=0), timeout=20)
        assert len(sent) < 150
    assert set(refused) == {ErrorCode.MSG_SIZE_TOO_LARGE}
    assert len(refused) == BLOCK * (len(sent) - 1)
    assert [message.value for message in single.messages(good)] == sent
