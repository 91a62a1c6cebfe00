"""What `async_kafka_producer` is made of: a fixture for each kind of event loop that a test can run
on.

A producer belongs to one event loop, and it must be the test's. Which that is, a test says by its
marker, but a fixture can only say when it is defined: so there is one for each. The plugin loads
this where one of the plugins is active that run coroutines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from .plugin import left_behind

if TYPE_CHECKING:
    from kafka_ext.aio import AsyncKafkaProducer

LOOP_SCOPES = ("function", "class", "module", "package", "session")


@asynccontextmanager
async def _checked_producer(broker: Any) -> AsyncIterator[AsyncKafkaProducer]:
    from kafka_ext._rdkafka import live_objects
    from kafka_ext.aio import AsyncKafkaProducer

    before = live_objects()
    producer = AsyncKafkaProducer(broker.config())
    yield producer
    # A broker that the test has stopped or paused answers nobody: what is left then is purged, and
    # its futures fail.
    await producer.aclose(timeout=10.0)
    left_behind(before)


def fixtures_for(plugin: str) -> object:
    """The fixtures that this plugin of pytest's runs: "asyncio" (pytest-asyncio) or "anyio"."""
    return _with_asyncio() if plugin == "asyncio" else _WithAnyio()


class _WithAnyio:
    @pytest.fixture
    async def _async_kafka_producer_anyio(
        self, kafka_broker: Any, anyio_backend_name: str
    ) -> AsyncIterator[AsyncKafkaProducer]:
        if anyio_backend_name != "asyncio":
            pytest.skip(
                "AsyncKafkaProducer is for asyncio, and this is the test's run on"
                f" {anyio_backend_name}"
            )
        async with _checked_producer(kafka_broker) as producer:
            yield producer


def _with_asyncio() -> object:
    """One for each scope that a test's loop can have. The scope of all is a test."""
    import pytest_asyncio

    def on_loop_of(scope: Any) -> object:
        # A function each: pytest-asyncio writes the scope onto it.
        async def fixture(self: object, kafka_broker: Any) -> AsyncIterator[AsyncKafkaProducer]:
            async with _checked_producer(kafka_broker) as producer:
                yield producer

        return pytest_asyncio.fixture(loop_scope=scope, name=f"_async_kafka_producer_{scope}")(
            fixture
        )

    return type("WithAsyncio", (), {f"_{scope}": on_loop_of(scope) for scope in LOOP_SCOPES})()
