"""A producer's settings: from what the caller wrote to what librdkafka is given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

from ._rdkafka import ErrorCode, InvalidConfigError, KafkaError, known_properties, unknown_property
from .serialization import Serialize, Serializers, with_topic

# Whatever keeps a report from coming would keep buffers pinned for ever (DESIGN.md, rule 5).
_REFUSED = {
    "delivery.report.only.error": "every record's report is what releases its memory and calls back",
    "dr_cb": "delivery reports come to the callback given to send()",
    "dr_msg_cb": "delivery reports come to the callback given to send()",
    "event_cb": "events come to error_cb, stats_cb, throttle_cb and log_cb",
    "background_event_cb": "events come to error_cb, stats_cb, throttle_cb and log_cb",
    "opaque": "it carries what the producer keeps of each record",
    "default_topic_conf": "give topic properties by their names, beside the others",
    "enabled_events": "the producer needs all the events it enables",
}

CALLBACKS = frozenset({"error_cb", "stats_cb", "throttle_cb", "log_cb", "oauthbearer_token_refresh_cb"})
MANUAL_POLL = "enable.manual.events.poll"
# Ours, or with a meaning of ours. librdkafka's own names with an underscore are few, and hold Python objects or are for tests.
SERIALIZERS = ("key_serializer", "value_serializer")
_OWN_OBJECTS = CALLBACKS | {"interceptors", "partitioner", *SERIALIZERS}
OWN_NAMES = _OWN_OBJECTS | {MANUAL_POLL}
_OBJECTS = _OWN_OBJECTS | {name for name in _REFUSED if "." not in name}  # what is refused stays what it is until then
_UNDERSCORED = frozenset({"log_level", "ssl_ca", "ssl_certificate", "ssl_key", "ssl_engine_callback_data"})
_SECRET = re.compile(
    r"password|secret|token|\.key\.pem$|private|ssl\.key|sasl\.jaas|assertion|userinfo|oauthbearer\.config$", re.IGNORECASE
)
_SECRET_EXCEPT = re.compile(r"location|endpoint|\.url|algorithm|\.file")

# The settings an idempotent producer needs, under each of their names (librdkafka's INTRODUCTION.md, "Idempotent Producer").
_IDEMPOTENCE_NEEDS: dict[str, Callable[[str], bool]] = {
    "acks": lambda value: value in ("-1", "all"),
    "request.required.acks": lambda value: value in ("-1", "all"),
    "max.in.flight": lambda value: not value.isdigit() or int(value) <= 5,
    "max.in.flight.requests.per.connection": lambda value: not value.isdigit() or int(value) <= 5,
    "retries": lambda value: not value.isdigit() or int(value) >= 1,
    "message.send.max.retries": lambda value: not value.isdigit() or int(value) >= 1,
    "queuing.strategy": lambda value: value == "fifo",
}


def invalid(name: str | None, message: str) -> InvalidConfigError:
    return InvalidConfigError(KafkaError(ErrorCode["INVALID_ARG"], message), name)


def _text(name: str, value: object) -> str:
    """A property's value as librdkafka spells it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return ",".join(_text(name, item) for item in value)
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(f"property {name!r} must be a str, a number, a bool or a list of them, not {type(value).__name__}")


class Properties(MutableMapping[str, Any]):
    """A producer's settings by librdkafka's names, as str to str; callbacks, interceptors and a partitioner stay what they are.

    Args:
        settings: any mapping of names to values. True is "true", 5 is "5", ["a:1", "b:2"] is "a:1,b:2".
        keywords: the same with underscores for dots: `linger_ms=5` means `linger.ms`. They go before `settings`.

    Raises:
        TypeError: a name or value is of a type that no property has.

    Secrets are masked in its `repr`.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None, /, **keywords: Any) -> None:
        self._values: dict[str, Any] = {}
        if settings is not None:
            if not isinstance(settings, Mapping):
                raise TypeError(f"properties must be a mapping, not {type(settings).__name__}")
            for name, value in settings.items():
                self[name] = value
        for name, value in keywords.items():
            self[name if name in _OBJECTS or name in _UNDERSCORED or name.startswith("ut_") else name.replace("_", ".")] = value

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a property's name must be a str, not {type(name).__name__}")
        self._values[name] = value if name in _OBJECTS and not isinstance(value, str) else _text(name, value)

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def put(self, name: str, value: Any) -> Properties:
        """Set a property and return self, as the C++ library's `Properties::put` does."""
        self[name] = value
        return self

    def copy(self) -> Properties:
        """A mapping of its own with the same settings."""
        return Properties(self._values)

    def __repr__(self) -> str:
        shown = {name: "***" if _SECRET.search(name) and not _SECRET_EXCEPT.search(name) else value for name, value in self._values.items()}
        return f"Properties({shown})"


class Settings(NamedTuple):
    """A producer's settings, checked and sorted by who wants them."""

    librdkafka: dict[str, str]
    callbacks: dict[str, Callable[..., Any]]
    manual: bool
    partitioner: Callable[[str, Any, int], int] | None
    interceptors: tuple[Any, ...]
    serializers: Serializers | None


def _boolean(name: str, value: str) -> bool:
    if value.lower() in ("true", "1"):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise invalid(name, f"property {name!r} must be true or false, not {value!r}")


def _check_bootstrap(name: str, servers: str) -> None:
    """What librdkafka would only log: an address list that holds no usable address."""
    for server in servers.split(","):
        host, colon, port = server.strip().split("://")[-1].rpartition(":")
        if not colon or server.strip().endswith("]"):
            host, port = server.strip(), "9092"
        if not host.strip("[]") or not (port.isdigit() and 0 < int(port) < 65536):
            raise invalid(name, f"property {name!r}: {server!r} is not host:port")


def _with_safe_defaults(values: dict[str, str]) -> dict[str, str]:
    """Idempotence and the Java client's partitioner, unless the caller's own settings say otherwise."""
    values.setdefault("partitioner", "murmur2_random")
    values.setdefault("log.queue", "true")
    if "enable.idempotence" in values:
        return values
    allows = all(fits(values[name].lower()) for name, fits in _IDEMPOTENCE_NEEDS.items() if name in values)
    if allows or "transactional.id" in values:
        values["enable.idempotence"] = "true"  # and with it acks=all, in librdkafka
    if "acks" not in values and "request.required.acks" not in values:
        values["acks"] = "all"
    return values


def resolve(properties: Properties) -> Settings:
    """Check and sort `properties`.

    Raises:
        TypeError: a callback is not callable.
        InvalidConfigError: a property is refused here; librdkafka refuses the others later.
    """
    values: dict[str, str] = {}
    callbacks: dict[str, Callable[..., Any]] = {}
    partitioner = None
    interceptors: tuple[Any, ...] = ()
    manual = False
    serializers: dict[str, Serialize | None] = {}
    for name, value in properties.items():
        if name in CALLBACKS:
            if value is None:
                continue
            if not callable(value):
                raise TypeError(f"{name} must be callable, not {type(value).__name__}")
            callbacks[name] = value
        elif name == "interceptors":
            interceptors = _checked_interceptors(value)
        elif name in SERIALIZERS:
            serializers[name] = with_topic(name, value)
        elif name == "partitioner" and callable(value):
            partitioner = value
        elif name == "partitioner" and not isinstance(value, str):
            raise TypeError(f"partitioner must be one of librdkafka's names or a callable, not {type(value).__name__}")
        elif name == MANUAL_POLL:
            manual = _boolean(name, value)
        elif name in _REFUSED:
            raise invalid(name, f"property {name!r} cannot be set: {_REFUSED[name]}")
        elif name == "log.queue" and not _boolean(name, value):
            raise invalid(name, f"property {name!r} cannot be false: librdkafka's threads never call Python")
        else:
            values[name] = value
    if not any(name in values for name in ("bootstrap.servers", "metadata.broker.list", "test.mock.num.brokers")):
        known = known_properties()
        unknown = next((name for name in values if name not in known), None)
        if unknown is not None:
            raise unknown_property(unknown, OWN_NAMES)  # perhaps what is missing, misspelt
        missing = "property 'bootstrap.servers' is missing: it says where the cluster is, such as 'localhost:9092'"
        raise invalid("bootstrap.servers", missing)
    for name in ("bootstrap.servers", "metadata.broker.list"):
        if name in values:
            _check_bootstrap(name, values[name])
    pair = (serializers.get("key_serializer"), serializers.get("value_serializer"))
    return Settings(_with_safe_defaults(values), callbacks, manual, partitioner, interceptors, None if pair == (None, None) else pair)


def _checked_interceptors(value: Any) -> tuple[Any, ...]:
    try:
        interceptors = tuple(value or ())
    except TypeError:
        raise TypeError(f"interceptors must be a sequence of interceptors, not {type(value).__name__}") from None
    for interceptor in interceptors:
        for method in ("on_send", "on_acknowledgement"):
            if not callable(getattr(interceptor, method, None)):
                raise TypeError(f"interceptors: {type(interceptor).__name__} has no method {method}")
    return interceptors
