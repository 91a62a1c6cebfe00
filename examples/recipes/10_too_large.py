"""How do I send what is larger than a message may be?

python examples/recipes/10_too_large.py
"""

from __future__ import annotations

import uuid

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, ProducerRecord
from kafka_ext.testing import ApiKey, EmbeddedBroker

PIECE = 900_000


def send_in_pieces(producer: KafkaProducer, topic: str, document: bytes) -> None:
    """Where the limits cannot be raised: several records, which a key keeps together."""
    name = uuid.uuid4().hex
    view = memoryview(document)  # a slice of it is no copy
    pieces = range(0, len(document), PIECE)
    futures = []
    for index, start in enumerate(pieces):
        headers = [("piece", f"{index + 1} of {len(pieces)}")]
        record = ProducerRecord(topic, view[start : start + PIECE], key=name, headers=headers)
        futures.append(producer.send_future(record))
    for future in futures:
        future.result(timeout=60)


def main() -> None:
    document = bytes(range(256)) * 10_000  # 2.5 MB
    with EmbeddedBroker(topics={"documents": 1}) as broker:
        with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
            # Refused here, by the producer's message.max.bytes (1 MB), before it is
            # compressed: nothing is sent.
            try:
                producer.send(ProducerRecord("documents", document))
            except KafkaException as exc:
                print("refused by send():", exc.error)
                assert exc.error == ErrorCode.MSG_SIZE_TOO_LARGE
            else:
                raise AssertionError("2.5 MB have been taken")
            send_in_pieces(producer, "documents", document)
        messages = broker.messages("documents", count=3)
        assert [message.headers for message in messages] == [
            [("piece", b"%d of 3" % n)] for n in (1, 2, 3)
        ]
        assert b"".join(message.value or b"" for message in messages) == document

        # Or raise the limit: here, and the topic's max.message.bytes.
        with KafkaProducer(
            bootstrap_servers=broker.bootstrap_servers, message_max_bytes=4_000_000
        ) as producer:
            producer.sync_send(ProducerRecord("documents", document), timeout=30)
            assert broker.messages("documents", count=4)[-1].value == document

            # A topic with a lower limit answers so: the same error, but in the report.
            broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE])
            try:
                producer.sync_send(ProducerRecord("documents", document), timeout=30)
            except KafkaException as exc:
                print("refused by the broker:", exc.error)
                assert exc.error == ErrorCode.MSG_SIZE_TOO_LARGE
            else:
                raise AssertionError("the broker has taken it")


if __name__ == "__main__":
    main()
