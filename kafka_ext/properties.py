"""A producer's settings: from what the caller wrote to what librdkafka is given."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

from ._rdkafka import (
    ErrorCode,
    InvalidConfigError,
    KafkaError,
    check_callback,
    known_properties,
    shown,
    shown_url,
    unknown_property,
)
from .serialization import Serialize, Serializers, with_topic

# Whatever keeps a report from coming would keep buffers pinned for ever.
_REFUSED = {
    "delivery.report.only.error": (
        "every record's report is what releases its memory and calls back"
    ),
    "dr_cb": "delivery reports come to the callback given to send()",
    "dr_msg_cb": "delivery reports come to the callback given to send()",
    "event_cb": "events come to error_cb, stats_cb, throttle_cb and log_cb",
    "background_event_cb": "events come to error_cb, stats_cb, throttle_cb and log_cb",
    "opaque": "it carries what the producer keeps of each record",
    "default_topic_conf": "give topic properties by their names, beside the others",
    "enabled_events": "the producer needs all the events it enables",
    "sasl.jaas.config": "the names here are 'sasl.username' and 'sasl.password'",
}

CALLBACKS = frozenset(
    {"error_cb", "stats_cb", "throttle_cb", "log_cb", "oauthbearer_token_refresh_cb"}
)
MANUAL_POLL = "enable.manual.events.poll"
# Ours, or with a meaning of ours. librdkafka's own names with an underscore are few, and hold
# Python objects or are for tests.
SERIALIZERS = ("key_serializer", "value_serializer")
_OWN_OBJECTS = CALLBACKS | {"interceptors", "partitioner", *SERIALIZERS}
OWN_NAMES = _OWN_OBJECTS | {MANUAL_POLL}
_OBJECTS = _OWN_OBJECTS | {
    name for name in _REFUSED if "." not in name
}  # what is refused stays what it is until then
_UNDERSCORED = frozenset(
    {"log_level", "ssl_ca", "ssl_certificate", "ssl_key", "ssl_engine_callback_data"}
)
# What other clients for Python and Java call it.
_IN_OTHER_CLIENTS = {
    "api.version": "leave it out: librdkafka asks each broker for its version",
    "buffer.memory": "the name here is 'queue.buffering.max.kbytes', in KiB",
    "default.topic.config": "give topic properties by their names, beside the others",
    "key.deserializer": "a producer has none; 'key_serializer' makes bytes of keys",
    "key.serializer": "the name here is 'key_serializer', a callable or an object with serialize()",
    "logger": "logs go to logging.getLogger('kafka_ext'), or to the callable given as 'log_cb'",
    "loop": "an AsyncKafkaProducer uses the running event loop",
    "max.block.ms": "give seconds to each call: send(record, timeout=60)",
    "max.request.size": "the name here is 'message.max.bytes'",
    "on.delivery": "give the callback to each call: send(record, on_delivery)",
    "sasl.oauth.token.provider": (
        "the name here is 'oauthbearer_token_refresh_cb', a callable that returns an"
        " OAuthBearerToken"
    ),
    "sasl.plain.password": "the name here is 'sasl.password'",
    "sasl.plain.username": "the name here is 'sasl.username'",
    "ssl.cafile": "the name here is 'ssl.ca.location'",
    "ssl.certfile": "the name here is 'ssl.certificate.location'",
    "ssl.check.hostname": "the name here is 'ssl.endpoint.identification.algorithm': https or none",
    "ssl.context": (
        "librdkafka has its own TLS: set 'ssl.ca.location', 'ssl.certificate.location' and"
        " 'ssl.key.location'"
    ),
    "ssl.keyfile": "the name here is 'ssl.key.location'",
    "ssl.password": "the name here is 'ssl.key.password'",
    "value.deserializer": "a producer has none; 'value_serializer' makes bytes of values",
    "value.serializer": (
        "the name here is 'value_serializer', a callable or an object with serialize()"
    ),
}
_ACKS = ("0", "1", "-1", "all")
_PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_SERVER = re.compile(
    r"(?:(?P<protocol>[A-Za-z_]+)://)?(?P<host>\[[0-9A-Fa-f:.]+(?:%[^\]\s]+)?\]|[^\s:;,/@?#\[\]]+)(?::(?P<port>[0-9]{1,5}))?"
)

# The settings an idempotent producer needs, under each of their names (librdkafka's
# INTRODUCTION.md, "Idempotent Producer").
_IDEMPOTENCE_NEEDS: dict[str, Callable[[str], bool]] = {
    "acks": lambda value: value in ("-1", "all"),
    "request.required.acks": lambda value: value in ("-1", "all"),
    "max.in.flight": lambda value: _number(value, 1) <= 5,
    "max.in.flight.requests.per.connection": lambda value: _number(value, 1) <= 5,
    "retries": lambda value: _number(value, 1) >= 1,
    "message.send.max.retries": lambda value: _number(value, 1) >= 1,
    "queuing.strategy": lambda value: value == "fifo",
}


def invalid(name: str | None, message: str) -> InvalidConfigError:
    return InvalidConfigError(KafkaError(ErrorCode["INVALID_ARG"], message), name)


def _number(value: str, otherwise: int) -> int:
    """A property's number; `otherwise` where it is none, which librdkafka's table of properties
    finds out later.
    """
    return int(value) if re.fullmatch(r"[0-9]{1,10}", value) else otherwise


def _text(name: str, value: object) -> str:
    """A property's value as librdkafka spells it."""
    if isinstance(value, str):
        return str.__str__(value)  # of a subclass, its text and not what it prints
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # NumPy's numbers and bools
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value).removesuffix(".0")
    if isinstance(value, os.PathLike):
        return _text(name, os.fspath(value))
    if isinstance(value, bytes):
        text = value.decode(errors="replace")
        if text.encode() != value:  # no UnicodeDecodeError, which would hold what may be a secret
            raise invalid(name, f"property {name!r} is not text in UTF-8")
        return text
    if isinstance(value, (list, tuple)):
        return ",".join(_item(name, item) for item in value)
    raise TypeError(
        f"property {name!r} must be a str, a number, a bool or a list of them, not"
        f" {type(value).__name__}"
    )


def _item(name: str, item: object) -> str:
    if isinstance(item, (list, tuple)):
        like = (
            ", such as 'localhost:9092'"
            if name in ("bootstrap.servers", "metadata.broker.list")
            else ""
        )
        raise TypeError(
            f"property {name!r}: each item of its list must be a str{like}, not a"
            f" {type(item).__name__}"
        )
    return _text(name, item)


class Properties(MutableMapping[str, Any]):
    """A producer's settings by librdkafka's names, as str to str; callbacks, interceptors and a
    partitioner stay what they are.

    Args:
        settings: any mapping of names to values. True is "true", 5 is "5", ["a:1", "b:2"] is
            "a:1,b:2".
        keywords: the same with underscores for dots: `linger_ms=5` means `linger.ms`. They go
            before `settings`.

    Raises:
        TypeError: a name or value is of a type that no property has.
        InvalidConfigError: a name is another client's, or bytes are not UTF-8.

    Secrets are masked in its `repr`: whatever by its name may be one, and users, passwords and
    queries in URLs.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None, /, **keywords: Any) -> None:
        self._values: dict[str, Any] = {}
        if settings is not None:
            if not isinstance(settings, Mapping):
                raise TypeError(f"properties must be a mapping, not {type(settings).__name__}")
            for name, value in settings.items():
                self[name] = value
        for name, value in keywords.items():
            self[
                (
                    name
                    if name in _OBJECTS or name in _UNDERSCORED or name.startswith("ut_")
                    else name.replace("_", ".")
                )
            ] = value

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a property's name must be a str, not {type(name).__name__}")
        name = str.__str__(name)
        hint = None if name in _OBJECTS else _IN_OTHER_CLIENTS.get(name.replace("_", "."))
        if hint is not None:
            raise invalid(name, f"property {name!r} cannot be set: {hint}")
        self._values[name] = (
            value if name in _OBJECTS and not isinstance(value, str) else _text(name, value)
        )

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
        return f"Properties({ {name: shown(name, value) for name, value in self._values.items()} })"


class Settings(NamedTuple):
    """A producer's settings, checked and sorted by who wants them."""

    librdkafka: dict[str, str]
    callbacks: dict[str, Callable[..., Any]]
    manual: bool
    partitioner: Callable[[str, Any, int], int] | None
    interceptors: tuple[Any, ...]
    serializers: Serializers | None

    def __repr__(self) -> str:
        return "<Settings>"  # with secrets, and tracebacks that show local variables print it


def _boolean(name: str, value: str) -> bool:
    if value.lower() in ("true", "1"):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise invalid(name, f"property {name!r} must be true or false, not {shown(name, value)!r}")


def _check_bootstrap(name: str, servers: str, protocol: str) -> None:
    """What librdkafka would only log, or look up as a host: an address list that holds no usable
    address.
    """
    for server in servers.split(","):
        problem = _problem_of(server.strip(), protocol)
        if problem is not None:
            raise invalid(name, f"property {name!r}: {shown_url(server.strip())!r} {problem}")


def _problem_of(server: str, protocol: str) -> str | None:
    found = _SERVER.fullmatch(server)
    if found is None or (found["protocol"] or "plaintext").lower() not in _PROTOCOLS:
        if "://" in server:
            return "is a URL; write host:port"
        if re.search(r"[\s;]", server):
            return "is not host:port; commas separate servers"
        if re.fullmatch(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%\w+)?", server):
            return "is not host:port; an IPv6 address stands in brackets: '[::1]:9092'"
        return "is not host:port"
    if found["port"] is None and found["host"].isdigit():
        return f"is a port without a host; write 'localhost:{found['host']}'"
    if not 0 < int(found["port"] or 9092) < 65536:
        return "is not host:port; a port is from 1 to 65535"
    if found["protocol"] is not None and found["protocol"].lower() != protocol.lower():
        return f"is not for 'security.protocol', which is {protocol!r}; write host:port"
    return None


def _check_meaning(values: dict[str, str]) -> None:
    """What librdkafka takes and a broker then refuses, or what means something else
    than it says.
    """
    for name in ("bootstrap.servers", "metadata.broker.list"):
        if name in values:
            _check_bootstrap(name, values[name], values.get("security.protocol", "plaintext"))
    for name in ("acks", "request.required.acks"):
        if name in values and values[name].strip().lower() not in _ACKS:
            raise invalid(
                name,
                f"property {name!r}: a broker takes 0, 1 and all (or -1), not {values[name]!r}",
            )
    if values.get("transactional.id", "-").strip() == "":
        raise invalid(
            "transactional.id",
            "property 'transactional.id' is empty: leave it out for a producer without"
            " transactions",
        )


def _with_safe_defaults(values: dict[str, str]) -> dict[str, str]:
    """Idempotence and the Java client's partitioner, unless the caller's own settings say
    otherwise.
    """
    values.setdefault("partitioner", "murmur2_random")
    values.setdefault("log.queue", "true")
    if "enable.idempotence" in values:
        return values
    allows = all(
        fits(values[name].strip().lower())
        for name, fits in _IDEMPOTENCE_NEEDS.items()
        if name in values
    )
    if allows or "transactional.id" in values:
        values["enable.idempotence"] = "true"  # and with it acks=all, in librdkafka
    if "acks" not in values and "request.required.acks" not in values:
        values["acks"] = "all"
    return values


def resolve(properties: Properties, *, coroutines: bool = False) -> Settings:
    """Check and sort `properties`. With `coroutines`, callbacks may be coroutine functions.

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
            check_callback(value, name, coroutines=coroutines)
            callbacks[name] = value
        elif name == "interceptors":
            interceptors = _checked_interceptors(value)
        elif name in SERIALIZERS:
            serializers[name] = with_topic(name, value)
        elif name == "partitioner" and callable(value):
            check_callback(value, name)
            partitioner = value
        elif name == "partitioner" and not isinstance(value, str):
            raise TypeError(
                "partitioner must be one of librdkafka's names or a callable, not"
                f" {type(value).__name__}"
            )
        elif name == MANUAL_POLL:
            manual = _boolean(name, value)
        elif name in _REFUSED:
            raise invalid(name, f"property {name!r} cannot be set: {_REFUSED[name]}")
        elif name == "log.queue" and not _boolean(name, value):
            raise invalid(
                name, f"property {name!r} cannot be false: librdkafka's threads never call Python"
            )
        else:
            values[name] = value
    if not any(
        name in values
        for name in ("bootstrap.servers", "metadata.broker.list", "test.mock.num.brokers")
    ):
        known = known_properties()
        unknown = next((name for name in values if name not in known), None)
        if unknown is not None:
            raise unknown_property(unknown, OWN_NAMES)  # perhaps what is missing, misspelt
        missing = (
            "property 'bootstrap.servers' is missing: it says where the cluster is, such as"
            " 'localhost:9092'"
        )
        raise invalid("bootstrap.servers", missing)
    _check_meaning(values)
    pair = (serializers.get("key_serializer"), serializers.get("value_serializer"))
    return Settings(
        _with_safe_defaults(values),
        callbacks,
        manual,
        partitioner,
        interceptors,
        None if pair == (None, None) else pair,
    )


def _checked_interceptors(value: Any) -> tuple[Any, ...]:
    try:
        interceptors = tuple(value or ())
    except TypeError:
        raise TypeError(
            f"interceptors must be a sequence of interceptors, not {type(value).__name__}"
        ) from None
    for interceptor in interceptors:
        for method in ("on_send", "on_acknowledgement"):
            if not callable(getattr(interceptor, method, None)):
                raise TypeError(
                    f"interceptors: {type(interceptor).__name__} has no method {method}"
                )
            check_callback(
                getattr(interceptor, method),
                f"interceptors: {method} of {type(interceptor).__name__}",
            )
    return interceptors
