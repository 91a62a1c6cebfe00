"""The producers that the sinks of one process share: made when first needed, one for the same
properties, gone with the process.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from . import _rdkafka
from ._rdkafka import ErrorCode, KafkaError, KafkaTimeoutError
from ._replacement import Replaceable, abandon, left_at_exit, register
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


class Shared(Replaceable):
    """The producer that all sinks with equal properties use."""

    _exit_turn = 1

    def __init__(self, recipe: Recipe) -> None:
        # What a call that ran out of time has left behind is nothing for the next one to wait for.
        super().__init__(recipe.make, abandon)
        self._recipe = recipe
        register(self)

    def next(self) -> Shared:
        """After `enter` has given no producer: where to try again.

        Raises:
            KafkaTimeoutError: there is no reason to, but that time is up.
        """
        if not self.closing:
            text = "no producer could be made in time in place of one that had a fatal error"
            raise KafkaTimeoutError(KafkaError(ErrorCode["TIMED_OUT"], text))
        return producer_for(self._recipe)

    def forget_unmade(self) -> None:
        """Keep nothing of properties that no producer could be made from."""
        with _lock:
            if self.close_unmade() and _producers.get(self._recipe) is self:
                del _producers[self._recipe]

    def _end_at_exit(self, seconds: float) -> None:
        if self.current is not None and not self.current.handle.forked:
            self.current.close(left_at_exit(seconds))

    def _forget_parent(self) -> None:
        self.forget()


_lock = _rdkafka.Monitor()
_named: weakref.WeakValueDictionary[str, Recipe] = weakref.WeakValueDictionary()
_producers: dict[Recipe, Shared] = {}


def producer_for(recipe: Recipe) -> Shared:
    """This process's producer for `recipe`."""
    with _lock:
        found = _producers.get(recipe)
        if found is None:
            found = _producers[recipe] = Shared(recipe)
        return found


def metrics(recipe: Recipe) -> ProducerMetrics:
    """Of this process's producer for `recipe`, and of those that it has replaced."""
    with _lock:
        found = _producers.get(recipe)
    return ProducerMetrics() if found is None else found.metrics()


def close(recipe: Recipe) -> None:
    """Close this process's producer for `recipe`, once nobody uses it; the next to ask gets
    another.

    Raises:
        KafkaException: this is a callback of that producer.
    """
    with _lock:
        found = _producers.get(recipe)
        if found is not None and found.current is not None:
            found.current.handle.check_not_in_callback("close")
        _producers.pop(recipe, None)
    if found is not None:
        found.close()


def _after_fork_in_child() -> None:
    global _lock
    _lock = _rdkafka.Monitor()  # a thread that is not here any more may have had it
    _producers.clear()  # the parent's


os.register_at_fork(after_in_child=_after_fork_in_child)
