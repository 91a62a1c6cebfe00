"""What every kind of producer tells of itself and of the cluster."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from . import _annotations, _rdkafka
from ._rdkafka import ErrorCode, KafkaError, KafkaException, KafkaTimeoutError, ProducerClient
from .properties import OWN_NAMES, Properties, invalid


class _Producer(Protocol):
    """What that needs of the rest."""

    _properties: Properties

    @property
    def handle(self) -> ProducerClient: ...
    def _handle_or_none(self) -> ProducerClient | None: ...
    def _state(self) -> str: ...


class Client:
    """The part of a producer that answers questions."""

    _properties = (
        Properties()
    )  # of an instance whose constructor was never through: it can still be printed
    _unpicklable: ClassVar[str]

    @property
    def properties(self: _Producer) -> Properties:
        """The properties as given, as a copy; secrets are masked in its `repr`."""
        _check_not_forked(self.handle)
        return self._properties.copy()

    def get_property(self: _Producer, name: str) -> str | None:
        """The value in force of any property, as librdkafka spells it (rd_kafka_conf_get); None
        where it has none.

        Raises:
            InvalidConfigError: there is no property of this name.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        self.handle.check_usable()
        name = str.__str__(name)
        if name in OWN_NAMES and not (
            name == "partitioner" and isinstance(self._properties.get(name, ""), str)
        ):
            value = self._properties.get(
                name, "false" if name == "enable.manual.events.poll" else None
            )
            return value if value is None or isinstance(value, str) else repr(value)
        try:
            return self.handle.get_property(name)
        except _rdkafka.InvalidConfigError as exc:
            raise invalid(name, exc.error.message) from None

    def metrics(self: _Producer) -> _annotations.ProducerMetrics:
        """The producer's counters now. Cheap, and any thread may call it, also after the producer
        was closed.
        """
        _check_not_forked(self.handle)
        from .metrics import ProducerMetrics

        return ProducerMetrics(*self.handle.counters())

    def fatal_error(self: _Producer) -> KafkaError | None:
        """The fatal error that ended this producer's work, or None while it can work
        (rd_kafka_fatal_error).
        """
        self.handle.check_usable()
        return self.handle.fatal_error()

    def __repr__(self: _Producer) -> str:
        servers = _rdkafka.shown_url(self._properties.get("bootstrap.servers", ""))
        return f"<{type(self).__name__} {servers!r} {self._state()}>"

    def _state(self: _Producer) -> str:
        handle = self._handle_or_none()
        return (
            "unusable"
            if handle is None
            else "forked"
            if handle.forked
            else "closed"
            if handle.closing
            else "open"
        )

    def __reduce__(self) -> Any:
        raise TypeError(self._unpicklable)


def _check_not_forked(handle: ProducerClient) -> None:
    if handle.forked:
        handle.check_usable()


def metadata_failure(
    exc: KafkaException, timeout: float | None, handle: ProducerClient
) -> KafkaException:
    if exc.error.code in (ErrorCode["TRANSPORT"], ErrorCode["TIMED_OUT"]):
        return KafkaTimeoutError(
            KafkaError(
                ErrorCode["TIMED_OUT"], f"no broker answered within {timeout} s{handle.cause}"
            )
        )
    return exc


def checked_metadata(found: tuple[Any, ...], topic: str | None) -> _annotations.BrokerMetadata:
    from .metadata import from_tuples

    metadata = from_tuples(found)
    if topic is not None:
        of_topic = metadata.topics.get(str.__str__(topic))
        if of_topic is None or of_topic.error is not None:
            error = of_topic.error if of_topic is not None else None
            raise _rdkafka.exception_for(error or KafkaError(ErrorCode["UNKNOWN_TOPIC"]))
    return metadata
