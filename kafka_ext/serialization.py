"""Serializers: what turns a record's key and value into bytes, at the edge, before anything is
enqueued.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ._rdkafka import check_callback


@runtime_checkable
class Serializer(Protocol):
    """A serializer that wants to know the topic: `value_serializer=` and `key_serializer=` of a
    producer's properties.

    One that does not is any callable of one argument, such as `lambda value: json.dumps(value)`.
    """

    def serialize(self, topic: str, data: Any) -> Any:
        """What is sent for `data`: a buffer, a str or None.

        Called by the thread that sends, before anything is enqueued; what it raises, `send` raises.
        Never called with None, which stays a tombstone or no key. (As
        org.apache.kafka.common.serialization.Serializer, but for that.)
        """
        ...


Serialize: TypeAlias = Callable[[str, Any], Any]
# Of keys and of values.
Serializers: TypeAlias = tuple[Serialize | None, Serialize | None]


def with_topic(name: str, serializer: Any) -> Serialize | None:
    """A serializer as something that is called with the topic and the object.

    Raises:
        TypeError: it is none.
    """
    if serializer is None:
        return None
    serialize = getattr(serializer, "serialize", None)
    if callable(serialize):
        check_callback(serialize, f"{name}: serialize")
        found: Serialize = serialize
        return found
    if not callable(serializer):
        raise TypeError(
            f"{name} must be callable, or have a method serialize(topic, data);"
            f" {type(serializer).__name__} is neither"
        )
    check_callback(serializer, name)
    call = serializer
    return lambda topic, data: call(data)
