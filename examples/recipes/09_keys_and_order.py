"""How do I choose the partition, and keep what belongs together in order?

python examples/recipes/09_keys_and_order.py
"""

from __future__ import annotations

from collections import defaultdict

from kafka_ext import ErrorCode, KafkaProducer, ProducerRecord
from kafka_ext.testing import ApiKey, EmbeddedBroker


def main() -> None:
    with EmbeddedBroker(topics={"orders": 6}) as broker:
        with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
            # Records with one key go to one partition, and stay in the order they were sent
            # in; also when the broker fails in between and librdkafka sends again.
            broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.NOT_LEADER_FOR_PARTITION] * 2)
            for n in range(50):
                for customer in ("ada", "grace", "edsger"):
                    producer.send(ProducerRecord("orders", f"order {n}", key=customer))

            # Or say which.
            metadata = producer.sync_send(
                ProducerRecord("orders", "an order", partition=5), timeout=30
            )
            assert metadata.partition == 5

        orders = defaultdict(list)
        partitions = defaultdict(set)
        for message in broker.messages("orders", count=151):
            orders[message.key].append(message.value)
            partitions[message.key].add(message.partition)
        for key in (b"ada", b"grace", b"edsger"):
            assert orders[key] == [b"order %d" % n for n in range(50)]
            assert len(partitions[key]) == 1
            print(key.decode(), "is in partition", *partitions[key])

        # A key's place is murmur2 of it, as for Java's clients, modulo the number of
        # partitions: it moves when there are more partitions. The Python client that hashes
        # otherwise is confluent-kafka; while both write:
        with KafkaProducer(
            bootstrap_servers=broker.bootstrap_servers, partitioner="consistent_random"
        ) as producer:
            metadata = producer.sync_send(
                ProducerRecord("orders", "an order", key="ada"), timeout=30
            )
        print("ada, by confluent-kafka's partitioner, is in partition", metadata.partition)
        from zlib import crc32

        assert metadata.partition == crc32(b"ada") % 6


if __name__ == "__main__":
    main()
