"""What every test of this package has: nothing it made is left behind, and it can name the
librdkafka it needs.
"""

import gc
import inspect
import signal
import time
from collections import Counter
from functools import cache

import pytest
import watchdog

from kafka_ext import KafkaProducer, _rdkafka

# Long enough for a producer that was dropped to deliver and end in its own time; reached only by a
# test that fails.
PATIENCE = 10.0


def _alive():
    return Counter(
        {
            name: count
            for name, count in _rdkafka.live_objects().items()
            if name in ("handles", "topics", "messages")
        }
    )


def pytest_configure(config):
    watchdog.pytest_configure(config)
    # A shell starts what it runs in the background with SIGINT ignored; Python then leaves it so,
    # and so do the children of the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@cache
def _forks(function):
    text = inspect.getsource(function)
    return "os.fork()" in text or "get_context(" in text


def pytest_itemcollected(item):
    """Mark what forks: its own text says so, and none is forgotten."""
    if _forks(item.function):
        item.add_marker(pytest.mark.forks)


def pytest_collection_modifyitems(items):
    """The longest first (the seconds of their marker `slow`): one that begins last is waited for by
    all the other processes.
    """
    markers = {item: item.get_closest_marker("slow") for item in items}
    items.sort(key=lambda item: -markers[item].args[0] if markers[item] else 0)


def pytest_collection_finish():
    # What collecting has imported stays: 200,000 objects, which took gc.collect() 0.13 s for each
    # of 4,000 tests.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def signals_as_they_were():
    """Whatever a test did with signals, the next one's Ctrl-C is a KeyboardInterrupt."""
    # A Ctrl-C that comes in one of these is lost, and hypothesis leaves one behind.
    gc.callbacks.clear()
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Every message was released and every handle and topic destroyed, once the test and its
    fixtures are through.
    """
    # Nothing, but where an earlier test has failed here: that is not this one's fault, whether it
    # goes now or stays.
    before = _alive()
    yield
    gc.collect()
    deadline = time.monotonic() + PATIENCE
    while (left := _alive() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"left behind: {dict(left)}"


@pytest.fixture
def make_producer():
    """Makes producers on a mock cluster of their own inside librdkafka, and closes them after the
    test.

    Idempotence is off unless asked for: with a system's librdkafka a producer id takes half a
    second.
    """
    made = []

    def make(properties=None, /, cls=KafkaProducer, **keywords):
        given = {"test.mock.num.brokers": 1, "enable.idempotence": False, "linger.ms": 0} | dict(
            properties or {}
        )
        producer = cls(
            {name: value for name, value in given.items() if value is not ...}, **keywords
        )
        made.append(producer)
        return producer

    yield make
    for producer in made:
        producer.close(timeout=0.0)


@pytest.fixture
def producer(make_producer):
    """A producer with its events thread."""
    return make_producer()


@pytest.fixture
def manual(make_producer):
    """A producer whose events are served by whoever calls it."""
    return make_producer({"enable.manual.events.poll": True})


@pytest.fixture
def reports():
    """A list that is a delivery callback: `(metadata, error)` of each report, in their order."""
    return Reports()


class Reports(list):
    """Collects delivery reports; `wait(n)` until there are n of them."""

    def __call__(self, metadata, error):
        self.append((metadata, error))

    def wait(self, count, timeout=10.0):
        deadline = time.monotonic() + timeout
        while len(self) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(self) == count
        return self

    @property
    def errors(self):
        return [error for _, error in self]

    @property
    def ids(self):
        return [metadata.record_id for metadata, _ in self]


@pytest.fixture
def unraisable(monkeypatch):
    """What went to sys.unraisablehook during the test, as `(exception, object)` pairs."""
    seen = []
    # The arguments themselves must not be kept: they resurrect what is being destroyed.
    monkeypatch.setattr(
        "sys.unraisablehook", lambda args: seen.append((args.exc_value, args.object))
    )
    return seen


def pytest_runtest_setup(item):
    """Skip tests marked `librdkafka(">=2.12")` where another version is linked."""
    from packaging.specifiers import SpecifierSet

    number, text = _rdkafka.version()
    linked = f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}"
    for marker in item.iter_markers("librdkafka"):
        if linked not in SpecifierSet(marker.args[0]):
            pytest.skip(f"needs librdkafka {marker.args[0]}; linked is {text}")
