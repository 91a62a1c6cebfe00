"""pytest fixtures that are there as soon as kafka-ext is installed.

    def test_orders(kafka_broker, kafka_producer):
        kafka_producer.sync_send(ProducerRecord("orders", b"a value"))
        kafka_broker.assert_delivered("orders", [b"a value"], exactly_once=True)

    @pytest.mark.kafka_broker(brokers=3, topics={"orders": 6})
    def test_failover(kafka_broker, kafka_producer): ...

Fixtures:
    kafka_broker: an EmbeddedBroker of its own for each test; `@pytest.mark.kafka_broker` takes
        EmbeddedBroker's arguments.
    kafka_broker_session: one EmbeddedBroker for the whole run; tests must tell their topics apart.
    kafka_producer: a KafkaProducer of `kafka_broker`, closed after the test. What is then left of
        it is an error.
    async_kafka_producer: the same for tests that are coroutines: an AsyncKafkaProducer on the
        test's own event loop. It needs pytest-asyncio, in either of its modes, or anyio's plugin.

Options:
    --kafka-bootstrap-servers: run the same tests against a real cluster. The fixtures are an
    ExternalCluster then, which reads back what
        the test wrote; a test that injects a fault, or wants more brokers than there are, is
        skipped.

A fault that a test sets and that no request uses fails the test: it did not test what it says.

Loading this plugin imports nothing of kafka_ext that is worth mentioning; the extension is loaded
with the first fixture.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kafka_ext import KafkaProducer
    from kafka_ext.aio import AsyncKafkaProducer

    from ._broker import EmbeddedBroker
    from ._external import ExternalCluster

_OPTION = "--kafka-bootstrap-servers"
_FIXTURES = frozenset(
    {"kafka_broker", "kafka_broker_session", "kafka_producer", "async_kafka_producer"}
)
_ARGUMENTS = ("brokers", "topics", "auto_create_topics", "isolation")

# The brokers whose faults a test may have set: its own, and on the session the one that all share.
_brokers = pytest.StashKey[list[Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kafka_ext", "Kafka (kafka-ext)")
    group.addoption(
        _OPTION,
        metavar="HOST:PORT[,...]",
        default=None,
        help=(
            "run the tests that use kafka_broker against this cluster instead of an embedded"
            " broker; those that inject faults are skipped"
        ),
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "kafka_broker(brokers=1, topics={'orders': 4}, auto_create_topics=True,"
        " isolation='thread'): the arguments of kafka_ext.testing.EmbeddedBroker for the"
        " kafka_broker of this test",
    )
    # Now, for pytest-asyncio prepares fixtures when it collects tests.
    plugins = config.pluginmanager
    for kind in ("asyncio", "anyio"):
        if plugins.hasplugin(kind):
            from ._async_fixtures import fixtures_for

            try:
                plugins.register(fixtures_for(kind), f"kafka_ext-{kind}")
            except TypeError:
                # a pytest-asyncio that does not know loop_scope: who asks for async_kafka_producer
                # is told
                pass


def pytest_plugin_registered(plugin: object) -> None:
    # pytester runs pytest inside pytest and takes back, after each run, what that has imported: the
    # extension must be there before, for it cannot be loaded a second time.
    if getattr(plugin, "__name__", None) == "_pytest.pytester":
        import kafka_ext.producer
        import kafka_ext.testing._external  # noqa: F401


def pytest_report_header(config: pytest.Config) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        ours = version("kafka-ext")
    except PackageNotFoundError:
        ours = "(not installed)"
    servers = config.getoption(_OPTION)
    return f"kafka-ext: {ours}, " + (f"the cluster at {servers}" if servers else "embedded brokers")


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    # Only a run that uses it pays for loading librdkafka to ask its version.
    if not any(_FIXTURES.intersection(getattr(item, "fixturenames", ())) for item in items):
        return []
    from kafka_ext._rdkafka import version

    return [f"kafka-ext: librdkafka {version()[1]}"]


# ---------------------------------------------------------------------- brokers


def _marked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The marker's arguments."""
    marker = request.node.get_closest_marker("kafka_broker")
    if marker is None:
        return {}
    if len(marker.args) > 2:
        pytest.fail(
            "@pytest.mark.kafka_broker takes brokers and topics by position, not"
            f" {len(marker.args)} arguments",
            pytrace=False,
        )
    arguments = dict(zip(_ARGUMENTS, marker.args, strict=False))
    for name, value in marker.kwargs.items():
        if name not in _ARGUMENTS:
            pytest.fail(
                f"@pytest.mark.kafka_broker has no argument {name!r}; there are"
                f" {', '.join(_ARGUMENTS)}",
                pytrace=False,
            )
        if name in arguments:
            pytest.fail(f"@pytest.mark.kafka_broker got {name!r} twice", pytrace=False)
        arguments[name] = value
    return arguments


def _open(
    request: pytest.FixtureRequest, arguments: dict[str, Any]
) -> EmbeddedBroker | ExternalCluster:
    servers = request.config.getoption(_OPTION)
    try:
        if servers:
            return _open_external(servers, arguments)
        from ._broker import EmbeddedBroker

        return EmbeddedBroker(**arguments)
    except (TypeError, ValueError) as error:
        # Whoever wrote the marker wants to read what is wrong with it, not where we found out.
        if not arguments:
            raise
        pytest.fail(f"@pytest.mark.kafka_broker: {error}", pytrace=False)


def _open_external(servers: str, arguments: dict[str, Any]) -> ExternalCluster:
    from ._external import ExternalCluster
    from ._faults import BrokerStateError

    def skip(call: str) -> None:
        pytest.skip(f"{call}() needs an embedded broker, and {_OPTION} names a real cluster")

    if arguments.get("auto_create_topics", True) is not True:
        pytest.skip(f"auto_create_topics is up to the cluster that {_OPTION} names")
    try:
        return ExternalCluster(
            servers, arguments.get("brokers", 1), arguments.get("topics"), on_fault=skip
        )
    except BrokerStateError as error:
        pytest.skip(error.error.message)


@pytest.fixture
def kafka_broker(request: pytest.FixtureRequest) -> Iterator[EmbeddedBroker | ExternalCluster]:
    """A Kafka cluster of its own for this test: an EmbeddedBroker, with the arguments of
    `@pytest.mark.kafka_broker`.
    """
    with _open(request, _marked(request)) as broker:
        request.node.stash.setdefault(_brokers, []).append(broker)
        yield broker


@pytest.fixture(scope="session")
def kafka_broker_session(
    request: pytest.FixtureRequest,
) -> Iterator[EmbeddedBroker | ExternalCluster]:
    """One Kafka cluster for the whole run: an EmbeddedBroker. Give each test topics of its own."""
    with _open(request, {}) as broker:
        request.session.stash.setdefault(_brokers, []).append(broker)
        yield broker


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    """Once a test has passed: what it set up to go wrong must have gone wrong."""
    outcome = yield
    unused: list[str] = []
    for broker in [*item.stash.get(_brokers, []), *item.session.stash.get(_brokers, [])]:
        if not broker.closed:
            unused += _unused_faults(broker)
    if unused and outcome.excinfo is None:
        outcome.force_exception(
            pytest.fail.Exception(
                f"faults that were set and never used: {'; '.join(unused)}. What they were to show"
                " was not shown; broker.clear_faults() takes back those that need not happen.",
                pytrace=False,
            )
        )


def _unused_faults(broker: Any) -> list[str]:
    """What is left, which the next test shall not find."""
    from ._faults import BrokerStateError

    try:
        unused: list[str] = broker.unused_faults()
        if unused:
            broker.clear_faults()
    except BrokerStateError:
        return []  # paused: it goes with the fixture
    return unused


# ---------------------------------------------------------------------- producers


@pytest.fixture
def kafka_producer(kafka_broker: EmbeddedBroker | ExternalCluster) -> Iterator[KafkaProducer]:
    """A KafkaProducer of `kafka_broker`, with its defaults. After the test it is closed, and
    nothing of it may be left.
    """
    from kafka_ext import KafkaProducer
    from kafka_ext._rdkafka import live_objects

    before = live_objects()
    producer = KafkaProducer(kafka_broker.config())
    yield producer
    # A broker that the test has stopped or paused answers nobody: what is left then is purged, and
    # called back.
    producer.close(timeout=10.0)
    left_behind(before)


def left_behind(before: dict[str, int]) -> None:
    """Fail when there is more of anything than before."""
    from kafka_ext._rdkafka import live_objects

    left = {
        name: n - before.get(name, 0)
        for name, n in live_objects().items()
        if n > before.get(name, 0)
    }
    if left:
        pytest.fail(
            "after the producer was closed there is left:"
            f" {', '.join(f'{n} {name}' for name, n in left.items())}",
            pytrace=False,
        )


@pytest.fixture
def async_kafka_producer(request: pytest.FixtureRequest) -> AsyncKafkaProducer:
    """An AsyncKafkaProducer of `kafka_broker`, on the event loop that pytest-asyncio or anyio runs
    this test on.

    After the test it is closed, on that loop, and nothing of it may be left.
    """
    plugins = request.config.pluginmanager
    marker = request.node.get_closest_marker("asyncio")
    if marker is not None and plugins.hasplugin("asyncio"):
        if not plugins.hasplugin("kafka_ext-asyncio"):
            pytest.fail(
                "async_kafka_producer needs pytest-asyncio 1.0 or newer; this one is older",
                pytrace=False,
            )
        fixture = f"_async_kafka_producer_{_loop_scope(request.config, marker)}"
    elif "anyio_backend" in request.fixturenames:
        fixture = "_async_kafka_producer_anyio"
    else:
        pytest.fail(
            "async_kafka_producer is for tests that are coroutines and have an event loop: install"
            " pytest-asyncio and mark the test with @pytest.mark.asyncio, or anyio and"
            " @pytest.mark.anyio. Others take kafka_producer.",
            pytrace=False,
        )
    producer: AsyncKafkaProducer = request.getfixturevalue(fixture)
    return producer


def _loop_scope(config: pytest.Config, marker: pytest.Mark) -> str:
    """Whose loop pytest-asyncio runs a test on: its own, or one that it shares with its class,
    module, package, or all.
    """
    scope = marker.kwargs.get("loop_scope")
    if scope is None:
        scope = config.getini("asyncio_default_test_loop_scope")
    return str(scope)
