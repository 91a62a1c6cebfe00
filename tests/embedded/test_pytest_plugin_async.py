"""The pytest plugin in tests that are coroutines, under the real pytest-asyncio and anyio: each
test runs pytest on a file of its own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import entry_points

import pytest
from faultlib import LEAK

pytest_plugins = ["pytester"]

Run = Callable[..., pytest.RunResult]

HEAD = """
import asyncio

import pytest
from kafka_ext import ErrorCode, KafkaException, ProducerRecord
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.testing import ApiKey
"""

OURS = (
    []
    if any(point.name == "kafka_ext" for point in entry_points(group="pytest11"))
    else ["-p", "kafka_ext.testing.plugin"]
)
QUICK = [
    "-p",
    "no:cacheprovider",
    "-p",
    "no:hypothesispytest",
    "--strict-markers",
    "-W",
    "error",
    "-rs",
]

needs_asyncio = pytest.mark.skipif(
    importlib.util.find_spec("pytest_asyncio") is None, reason="pytest-asyncio is not installed"
)
needs_anyio = pytest.mark.skipif(
    importlib.util.find_spec("anyio") is None, reason="anyio is not installed"
)


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Runs pytest on a source, with the plugins that are named and no other for coroutines."""

    def run(
        source: str, *arguments: str, asyncio: str | None = None, anyio: bool = False
    ) -> pytest.RunResult:
        pytester.makepyfile(HEAD + source)
        chosen = (
            ["-o", f"asyncio_mode={asyncio}", "-o", "asyncio_default_fixture_loop_scope=function"]
            if asyncio
            else ["-p", "no:asyncio"]
        )
        # A process of its own: both plugins keep what they know of loops in their modules.
        return pytester.runpytest_subprocess(
            *OURS, *QUICK, *chosen, *([] if anyio else ["-p", "no:anyio"]), *arguments
        )

    return run


# Each way to run a coroutine, and what has to be written for it.
FRAMEWORKS = [
    pytest.param(
        {"asyncio": "strict"},
        "pytestmark = pytest.mark.asyncio\n",
        marks=needs_asyncio,
        id="pytest-asyncio, strict",
    ),
    pytest.param({"asyncio": "auto"}, "", marks=needs_asyncio, id="pytest-asyncio, auto"),
    pytest.param(
        {"anyio": True},
        "pytestmark = pytest.mark.anyio\n\n@pytest.fixture\ndef anyio_backend():\n    return"
        ' "asyncio"\n',
        marks=needs_anyio,
        id="anyio",
    ),
    pytest.param(
        {"asyncio": "strict", "anyio": True},
        "pytestmark = pytest.mark.anyio\n\n@pytest.fixture\ndef anyio_backend():\n    return"
        ' "asyncio"\n',
        marks=[needs_asyncio, needs_anyio],
        id="anyio, with pytest-asyncio beside it",
    ),
]


@pytest.mark.parametrize(("framework", "marks"), FRAMEWORKS)
def test_a_producer_on_the_tests_own_loop(
    run: Run, framework: dict[str, object], marks: str
) -> None:
    run(
        marks
        + """
kept = []

async def test_sends(kafka_broker, async_kafka_producer):
    assert isinstance(async_kafka_producer, AsyncKafkaProducer)
    metadata = await async_kafka_producer.send_and_wait(ProducerRecord("orders", b"a"))
    assert metadata.topic == "orders"
    kafka_broker.assert_delivered("orders", [b"a"], exactly_once=True)

async def test_what_is_on_its_way_is_delivered_by_the_fixture(async_kafka_producer):
    kept.append(async_kafka_producer)
    kept.append(await async_kafka_producer.send(ProducerRecord("orders", b"a")))

async def test_it_is_closed_afterwards():
    producer, future = kept
    assert future.result().offset == 0
    assert repr(producer).endswith(" closed>")

@pytest.mark.kafka_broker(brokers=2, topics={"orders": 1})
class TestClass:
    async def test_marker_and_faults(self, kafka_broker, async_kafka_producer):
        assert kafka_broker.brokers == 2
        kafka_broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE])
        with pytest.raises(KafkaException) as refused:
            await async_kafka_producer.send_and_wait(ProducerRecord("orders", b"a"))
        assert refused.value.error == ErrorCode.MSG_SIZE_TOO_LARGE
""",
        **framework,
    ).assert_outcomes(passed=4)


@pytest.mark.parametrize(("framework", "marks"), FRAMEWORKS)
def test_faults_left_unused_and_leaks_fail_the_test(
    run: Run, framework: dict[str, object], marks: str
) -> None:
    result = run(
        marks
        + LEAK
        + """
async def test_fault(kafka_broker, async_kafka_producer):
    kafka_broker.lose_acks(2)

async def test_leak(leak, async_kafka_producer):
    pass
""",
        **framework,
    )
    result.assert_outcomes(passed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines_random(
        [
            "*faults that were set and never used: lose_acks: 2 of 2. *",
            "*after the producer was closed there is left: 7 messages*",
        ]
    )


@needs_asyncio
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_loops_that_tests_share(run: Run, mode: str) -> None:
    """pytest-asyncio has loops of a class, a module, a package or the session: the producer is on
    the one of its test.
    """
    run(
        """
loops = {}

def check(scope, producer):
    assert producer._loop_ is asyncio.get_running_loop()
    loops.setdefault(scope, set()).add(id(asyncio.get_running_loop()))

@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("n", range(2))
async def test_session(async_kafka_producer, n):
    check("session", async_kafka_producer)
    await async_kafka_producer.send_and_wait(ProducerRecord("orders", b"a"))

@pytest.mark.asyncio(loop_scope="module")
async def test_module(async_kafka_producer):
    check("module", async_kafka_producer)
    await async_kafka_producer.send_and_wait(ProducerRecord("orders", b"a"))

@pytest.mark.asyncio(loop_scope="class")
class TestClass:
    async def test_one(self, async_kafka_producer):
        check("class", async_kafka_producer)
        await async_kafka_producer.send(ProducerRecord("orders", b"a"))

    async def test_two(self, async_kafka_producer):
        check("class", async_kafka_producer)

@pytest.mark.asyncio
async def test_function(async_kafka_producer):
    check("function", async_kafka_producer)
    await async_kafka_producer.send(ProducerRecord("orders", b"a"))

def test_loops():
    assert {scope: len(ids) for scope, ids in loops.items()} == {"session": 1, "module": 1, "class": 1, "function": 1}
    assert len(set.union(*loops.values())) >= 3
""",
        asyncio=mode,
    ).assert_outcomes(passed=7)


@needs_asyncio
def test_the_loop_scope_of_the_configuration(run: Run) -> None:
    run(
        """
pytestmark = pytest.mark.asyncio
loops = []

@pytest.mark.parametrize("n", range(2))
async def test_it(async_kafka_producer, n):
    await async_kafka_producer.send_and_wait(ProducerRecord("orders", b"a"))
    loops.append(asyncio.get_running_loop())
    assert loops[0] is loops[-1]
""",
        "-o",
        "asyncio_default_test_loop_scope=session",
        asyncio="strict",
    ).assert_outcomes(passed=2)


@needs_asyncio
def test_fixtures_of_the_users_own(run: Run) -> None:
    """What docs/testing.md shows: a service that is given the producer, and one producer for all
    tests on the session's loop.
    """
    run(
        """
import pytest_asyncio

pytestmark = pytest.mark.asyncio(loop_scope="session")

class Service:
    def __init__(self, producer):
        self.producer = producer

    async def order(self, what):
        return await self.producer.send_and_wait(ProducerRecord("orders", what))

@pytest_asyncio.fixture(loop_scope="session")
async def service(async_kafka_producer):
    return Service(async_kafka_producer)

@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def producer_of_all(kafka_broker_session):
    async with AsyncKafkaProducer(kafka_broker_session.config()) as producer:
        yield producer

async def test_service(kafka_broker, service):
    await service.order(b"a book")
    kafka_broker.assert_delivered("orders", [b"a book"], exactly_once=True)

@pytest.mark.parametrize("n", range(2))
async def test_shared(kafka_broker_session, producer_of_all, n):
    await producer_of_all.send_and_wait(ProducerRecord(f"orders-{n}", b"a book"))
    kafka_broker_session.assert_delivered(f"orders-{n}", [b"a book"], exactly_once=True)
""",
        asyncio="strict",
    ).assert_outcomes(passed=3)


@needs_asyncio
def test_both_kinds_of_tests_in_one_file(run: Run) -> None:
    run(
        """
async def test_async(async_kafka_producer):
    await async_kafka_producer.send_and_wait(ProducerRecord("orders", b"a"))

def test_sync(kafka_producer):
    kafka_producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)

async def test_sync_producer_in_a_coroutine(kafka_broker, kafka_producer):
    await asyncio.wrap_future(kafka_producer.send_future(ProducerRecord("orders", b"a")))
    kafka_broker.assert_delivered("orders", [b"a"], exactly_once=True)
""",
        asyncio="auto",
    ).assert_outcomes(passed=3)


@needs_anyio
@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")
def test_anyio_on_uvloop(run: Run) -> None:
    run(
        """
@pytest.fixture(params=[False, True])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param}

@pytest.mark.anyio
async def test_it(anyio_backend, async_kafka_producer):
    assert ("uvloop" in type(asyncio.get_running_loop()).__module__) == anyio_backend[1]["use_uvloop"]
    await async_kafka_producer.send_and_wait(ProducerRecord("orders", b"a"))
""",
        anyio=True,
    ).assert_outcomes(passed=2)


@needs_anyio
@pytest.mark.skipif(importlib.util.find_spec("trio") is None, reason="trio is not installed")
def test_anyio_on_trio_is_skipped_with_the_reason(run: Run) -> None:
    result = run(
        """
@pytest.mark.anyio
async def test_it(async_kafka_producer):
    await async_kafka_producer.send_and_wait(ProducerRecord("orders", b"a"))
""",
        anyio=True,
    )
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["*AsyncKafkaProducer is for asyncio, and this is the test's run on trio*"]
    )


def test_a_test_that_has_no_loop_is_told_what_to_do(run: Run) -> None:
    result = run("""
def test_it(async_kafka_producer):
    pass
""")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "async_kafka_producer is for tests that are coroutines*install pytest-asyncio*Others"
            " take kafka_producer.*"
        ]
    )
