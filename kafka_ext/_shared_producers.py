"""The producers that the sinks of one process share: made when first needed, one for the same
properties, gone with the process.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from . import _rdkafka
from ._rdkafka import ErrorCode, KafkaError, KafkaTimeoutError
from ._replacement import Replaceable, left_at_exit, register
from .metrics import ProducerMetrics
from .producer import KafkaProducer
from .properties import MANUAL_POLL, Properties, invalid, resolve

PropertiesSource: TypeAlias = Mapping[str, Any] | Callable[[], Mapping[str, Any]]

_REFUSED = {
    "transactional.id": (
        "every process would fence off the one before it; records in a transaction need a producer"
        " of their own"
    ),
    MANUAL_POLL: "the events of a shared producer are served by its own thread",
}


def _checked(properties: Mapping[str, Any]) -> Properties:
    checked = Properties(properties)
    settings = resolve(checked)
    if settings.manual:
        raise invalid(
            MANUAL_POLL,
            f"property {MANUAL_POLL!r} cannot be set for a sink: {_REFUSED[MANUAL_POLL]}",
        )
    if "transactional.id" in settings.librdkafka:
        raise invalid(
            "transactional.id",
            f"property 'transactional.id' cannot be set for a sink: {_REFUSED['transactional.id']}",
        )
    return checked


class Recipe:
    """What a producer is made from, so that it can be compared, hashed and sent to another process.

    Text is compared as text. What is no text (a callback, or a callable that gives the properties)
    is compared by identity; so that it is the same thing again however often it is unpickled, it
    travels under a name of its own, and a process keeps the first that came.
    """

    __slots__ = ("__weakref__", "_key", "_token", "source")

    source: PropertiesSource

    def __init__(self, source: PropertiesSource) -> None:
        self._token: str | None = None
        if callable(source):
            self.source = source
            self._key: tuple[Any, ...] = (id(source),)
        else:
            self.source = _checked(source)
            self._key = tuple(
                sorted(
                    (name, value if isinstance(value, str) else _identity(value))
                    for name, value in self.source.items()
                )
            )

    def make(self) -> KafkaProducer:
        if not callable(self.source):
            return KafkaProducer(self.source)
        properties = self.source()
        if not isinstance(properties, Mapping):
            raise TypeError(f"properties() must return a mapping, not {type(properties).__name__}")
        return KafkaProducer(_checked(properties))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> tuple[Any, ...]:
        source = self.source if callable(self.source) else dict(self.source)
        if not callable(source) and all(isinstance(value, str) for value in source.values()):
            return Recipe, (source,)
        with _lock:
            if self._token is None:
                self._token = os.urandom(16).hex()
            _named.setdefault(self._token, self)
        return _restore, (self._token, source)

    def __repr__(self) -> str:
        if not callable(self.source):
            return repr(self.source)
        name = getattr(self.source, "__qualname__", type(self.source).__qualname__)
        return f"<callable {name}>"  # not its repr: that of a functools.partial shows its arguments


def _identity(value: Any) -> str:
    """Of a list, who is in it: the list itself is made anew each time it is written down."""
    members = value if isinstance(value, (list, tuple)) else (value,)
    return " ".join(f"object at {id(member):#x}" for member in members)


def _restore(token: str, source: PropertiesSource) -> Recipe:
    recipe = Recipe(source)
    recipe._token = token
    with _lock:
        return _named.setdefault(token, recipe)


class _Shared(Replaceable):
    """The producer that all sinks with equal properties use."""

    _exit_turn = 1

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe.make)
        register(self)

    def _end_at_exit(self, seconds: float) -> None:
        if self.current is not None and not self.current.handle.forked:
            self.current.close(left_at_exit(seconds))

    def _forget_parent(self) -> None:
        self.forget()


_lock = _rdkafka.Monitor()
_named: weakref.WeakValueDictionary[str, Recipe] = weakref.WeakValueDictionary()
_producers: dict[Recipe, _Shared] = {}


@contextmanager
def producer_for(recipe: Recipe, until: int) -> Iterator[KafkaProducer]:
    """This process's producer for `recipe`; it is not closed while the block lasts.

    Raises:
        KafkaTimeoutError: there was none to be had before `until`.
    """
    shared, producer = _enter(recipe, until)
    try:
        yield producer
    finally:
        shared.leave(producer)


def _enter(recipe: Recipe, until: int) -> tuple[_Shared, KafkaProducer]:
    while True:
        with _lock:
            shared = _producers.get(recipe)
            if shared is None:
                shared = _producers[recipe] = _Shared(recipe)
        producer = shared.enter(until)
        if producer is not None:
            return shared, producer
        if not shared.closing:  # or else another thread has called close(): there will be another
            text = "no producer could be made in time in place of one that had a fatal error"
            raise KafkaTimeoutError(KafkaError(ErrorCode["TIMED_OUT"], text))


def metrics(recipe: Recipe) -> ProducerMetrics:
    """Of this process's producer for `recipe`, and of those that it has replaced."""
    with _lock:
        shared = _producers.get(recipe)
    return ProducerMetrics() if shared is None else shared.metrics()


def close(recipe: Recipe) -> None:
    """Close this process's producer for `recipe`, once nobody uses it; the next to ask gets
    another.
    """
    with _lock:
        shared = _producers.pop(recipe, None)
    if shared is not None:
        shared.close()


def _after_fork_in_child() -> None:
    global _lock
    _lock = _rdkafka.Monitor()  # a thread that is not here any more may have had it
    _producers.clear()  # the parent's


os.register_at_fork(after_in_child=_after_fork_in_child)
