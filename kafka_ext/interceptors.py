"""What an interceptor looks like."""

from __future__ import annotations

from typing import Protocol

from ._rdkafka import KafkaError, ProducerRecord, RecordMetadata


class ProducerInterceptor(Protocol):
    """Sees every record before it is sent and after it was answered: `interceptors=[...]` in the
    properties.

    They are called in their order. One that raises is reported to `sys.unraisablehook` and passed
    over: the record goes on as it was, as with the Java client
    (org.apache.kafka.clients.producer.ProducerInterceptor).
    """

    def on_send(self, record: ProducerRecord) -> ProducerRecord:
        """The record to send in place of `record`, often itself. Called by the thread that sends,
        before anything is enqueued.
        """
        ...

    def on_acknowledgement(self, metadata: RecordMetadata, error: KafkaError | None) -> None:
        """What became of a record that `on_send` saw: delivered (error None), failed, or refused by
        `send`, which then raises.

        Called before the record's own callback, on the same thread.
        """
        ...
