"""The pytest plugin, as its users meet it: each test runs pytest on a file of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points

import pytest
from faultlib import LEAK

from kafka_ext.testing import EmbeddedBroker

pytest_plugins = ["pytester"]

Run = Callable[..., pytest.RunResult]

# Where kafka-ext is installed, pytest finds the plugin by itself; a mere checkout names it.
PLUGIN = (
    []
    if any(point.name == "kafka_ext" for point in entry_points(group="pytest11"))
    else ["-p", "kafka_ext.testing.plugin"]
)

# hypothesis is loaded anew by every run inside this one, and takes a second each time.
# pytest-asyncio is for test_pytest_plugin_async.py.
QUICK = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:asyncio"]

HEAD = """
import pytest
from kafka_ext import ErrorCode, KafkaException, KafkaProducer, ProducerRecord
from kafka_ext.testing import ApiKey, EmbeddedBroker, ExternalCluster
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Runs pytest on a source, with the plugin and whatever else is given."""

    def run(source: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(HEAD + source)
        return pytester.runpytest_inprocess(*PLUGIN, *QUICK, "--strict-markers", *arguments)

    return run


# ---------------------------------------------------------------------- fixtures


def test_a_broker_and_a_producer_without_any_set_up(run: Run) -> None:
    run("""
def test_it(kafka_broker, kafka_producer):
    assert isinstance(kafka_broker, EmbeddedBroker)
    assert isinstance(kafka_producer, KafkaProducer)
    kafka_producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    kafka_broker.assert_delivered("orders", [b"a"], exactly_once=True)
""").assert_outcomes(passed=1)


def test_each_test_has_a_fresh_broker_and_it_is_closed_afterwards(run: Run) -> None:
    run("""
brokers = []

@pytest.mark.parametrize("n", range(3))
def test_it(kafka_broker, kafka_producer, n):
    assert all(broker.closed for broker in brokers)
    brokers.append(kafka_broker)
    assert kafka_broker.messages("orders") == []
    kafka_producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)

def test_afterwards():
    assert len({id(broker) for broker in brokers}) == 3
    assert all(broker.closed for broker in brokers)
""").assert_outcomes(passed=4)


def test_the_session_has_one_broker(run: Run) -> None:
    run("""
seen = []

@pytest.mark.parametrize("n", range(3))
def test_it(kafka_broker_session, n):
    seen.append(kafka_broker_session)
    assert len({id(broker) for broker in seen}) == 1
    assert not kafka_broker_session.closed

def test_it_is_not_the_tests_own(kafka_broker, kafka_broker_session):
    assert kafka_broker is not kafka_broker_session
""").assert_outcomes(passed=4)


def test_the_producer_is_closed_after_the_test(run: Run) -> None:
    run("""
kept = []

def test_it(kafka_producer):
    kafka_producer.send(ProducerRecord("orders", b"a"), lambda metadata, error: kept.append(error))
    kept.append(kafka_producer)

def test_afterwards():
    producer, error = kept
    assert error is None
    with pytest.raises(KafkaException, match="closed"):
        producer.send(ProducerRecord("orders", b"a"))
""").assert_outcomes(passed=2)


def test_a_producer_that_leaks_is_an_error(run: Run) -> None:
    result = run(
        LEAK
        + """
def test_it(leak, kafka_producer):
    pass
"""
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*after the producer was closed there is left: 7 messages*"])


def test_a_test_may_close_its_producer_itself(run: Run) -> None:
    run("""
def test_it(kafka_producer):
    kafka_producer.close()
""").assert_outcomes(passed=1)


# ---------------------------------------------------------------------- marker


def test_the_marker_says_what_the_broker_is_made_of(run: Run) -> None:
    run("""
@pytest.mark.kafka_broker(brokers=3, topics={"a": 6, "b": 1})
def test_by_name(kafka_broker, kafka_producer):
    metadata = kafka_producer.fetch_broker_metadata(timeout=30)
    assert sorted(metadata.brokers) == [1, 2, 3]
    assert {name: len(topic.partitions) for name, topic in metadata.topics.items()} == {"a": 6, "b": 1}

@pytest.mark.kafka_broker(2, {"a": 1})
def test_by_position(kafka_broker):
    assert kafka_broker.brokers == 2

@pytest.mark.kafka_broker(isolation="process", auto_create_topics=False)
def test_isolation(kafka_broker):
    assert kafka_broker.isolation == "process"
    kafka_broker.pause()
    kafka_broker.resume()

@pytest.mark.kafka_broker(brokers=2)
class TestClass:
    def test_inherits(self, kafka_broker):
        assert kafka_broker.brokers == 2

    @pytest.mark.kafka_broker(brokers=1)
    def test_the_closest_counts(self, kafka_broker):
        assert kafka_broker.brokers == 1
""").assert_outcomes(passed=5)


@pytest.mark.parametrize(
    ("arguments", "explained"),
    [
        (
            "broker=3",
            (
                "*@pytest.mark.kafka_broker has no argument 'broker'; there are brokers, topics,"
                " auto_create_topics, isolation*"
            ),
        ),
        ("brokers=0", "*@pytest.mark.kafka_broker: brokers must be from 1 to 100, not 0*"),
        ("brokers='3'", "*@pytest.mark.kafka_broker: brokers must be an int, not str*"),
        ("topics=['a']", "*@pytest.mark.kafka_broker: topics must be a mapping*"),
        ("topics={'a b': 1}", "*@pytest.mark.kafka_broker: *topic*'a b'*"),
        (
            "isolation='docker'",
            "*@pytest.mark.kafka_broker: isolation must be 'thread' or 'process', not 'docker'*",
        ),
        (
            "1, {}, True",
            "*@pytest.mark.kafka_broker takes brokers and topics by position, not 3 arguments*",
        ),
        ("1, brokers=1", "*@pytest.mark.kafka_broker got 'brokers' twice*"),
    ],
)
def test_a_wrong_marker_is_a_clear_error(run: Run, arguments: str, explained: str) -> None:
    result = run(f"""
@pytest.mark.kafka_broker({arguments})
def test_it(kafka_broker):
    pass
""")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([explained])


def test_the_marker_is_registered(run: Run) -> None:
    result = run("", "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.kafka_broker(brokers=1, *"])


# ---------------------------------------------------------------------- faults


def test_a_fault_that_is_never_used_fails_the_test_that_set_it(run: Run) -> None:
    result = run("""
def test_errors(kafka_broker):
    kafka_broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.INVALID_MSG] * 3)

def test_acks(kafka_broker):
    kafka_broker.lose_acks(2)

def test_none(kafka_broker):
    pass

def test_used(kafka_broker, kafka_producer):
    kafka_broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE])
    with pytest.raises(KafkaException):
        kafka_producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)

def test_taken_back(kafka_broker):
    kafka_broker.lose_acks(2)
    kafka_broker.clear_faults()

def test_closed(kafka_broker):
    kafka_broker.lose_acks(2)
    kafka_broker.close()
""")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*faults that were set and never used: fail_requests(ApiKey.PRODUCE): 3 of 3. *",
            "*faults that were set and never used: lose_acks: 2 of 2. *",
        ]
    )


def test_a_test_that_fails_anyway_says_why_it_failed(run: Run) -> None:
    result = run("""
def test_it(kafka_broker):
    kafka_broker.lose_acks(2)
    assert 1 + 1 == 3

def test_skipped(kafka_broker):
    kafka_broker.lose_acks(2)
    pytest.skip("on second thought")
""")
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*assert (1 + 1) == 3*"])
    result.stdout.no_fnmatch_line("*never used*")


def test_what_one_test_leaves_in_the_sessions_broker_is_not_the_next_ones(run: Run) -> None:
    run("""
def test_leaves(kafka_broker_session):
    kafka_broker_session.lose_acks(1)

def test_finds_none(kafka_broker_session):
    with KafkaProducer(kafka_broker_session.config()) as producer:
        producer.sync_send(ProducerRecord("orders", b"a"), timeout=30)
    kafka_broker_session.assert_delivered("orders", [b"a"], exactly_once=True)
""").assert_outcomes(failed=1, passed=1)


def test_a_paused_or_killed_broker_goes_quietly(run: Run) -> None:
    run("""
@pytest.mark.kafka_broker(isolation="process")
def test_paused(kafka_broker):
    kafka_broker.pause()

@pytest.mark.kafka_broker(isolation="process")
def test_killed(kafka_broker):
    kafka_broker.lose_acks(1)
    kafka_broker.kill()
""").assert_outcomes(passed=2)


# ---------------------------------------------------------------------- a real cluster


def test_the_same_tests_run_against_a_real_cluster(run: Run) -> None:
    with EmbeddedBroker(topics={"orders": 4, "other": 1}, isolation="process") as cluster:
        result = run(
            """
@pytest.fixture(params=[1, 2])
def twice(request):
    pass

def test_reads_back_its_own(twice, kafka_broker, kafka_producer):
    assert isinstance(kafka_broker, ExternalCluster)
    assert kafka_broker.messages("orders") == []
    for value in (b"a", b"b"):
        kafka_producer.sync_send(ProducerRecord("orders", value), timeout=30)
    kafka_broker.assert_delivered("orders", [b"a", b"b"], exactly_once=True)
    assert len(kafka_broker.messages("orders", 2)) == 2
    with kafka_broker.reader("orders") as reader:
        assert len(reader.read_to_end()) == 2
    with pytest.raises(AssertionError, match="missing"):
        kafka_broker.assert_delivered("orders", [b"c"])
    assert kafka_broker.config(linger_ms=1)["linger.ms"] == "1"

def test_session(kafka_broker_session):
    assert isinstance(kafka_broker_session, ExternalCluster)

@pytest.mark.kafka_broker(topics={"other": 1})
def test_topics(kafka_broker):
    assert kafka_broker.messages("other") == []
""",
            f"--kafka-bootstrap-servers={cluster.bootstrap_servers}",
        )
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines([f"kafka-ext: *the cluster at {cluster.bootstrap_servers}"])


def test_what_a_real_cluster_cannot_do_is_skipped_with_the_reason(run: Run) -> None:
    with EmbeddedBroker(topics={"orders": 4, "small": 1}, isolation="process") as cluster:
        result = run(
            """
@pytest.mark.parametrize("fault", [
    lambda broker: broker.fail_requests(ApiKey.PRODUCE, [1]),
    lambda broker: broker.round_trip_time(1),
    lambda broker: broker.stop_broker(1),
    lambda broker: broker.start_broker(1),
    lambda broker: broker.move_leader("orders", 0, 1),
    lambda broker: broker.fail_topic("orders", 1),
    lambda broker: broker.lose_acks(1),
    lambda broker: broker.kill(),
    lambda broker: broker.pause(),
    lambda broker: broker.resume(),
    lambda broker: broker.restart(),
])
def test_faults(kafka_broker, fault):
    fault(kafka_broker)

@pytest.mark.kafka_broker(brokers=3)
def test_brokers(kafka_broker):
    pass

@pytest.mark.kafka_broker(topics={"small": 4})
def test_partitions(kafka_broker):
    pass

@pytest.mark.kafka_broker(auto_create_topics=False)
def test_auto_create(kafka_broker):
    pass
""",
            f"--kafka-bootstrap-servers={cluster.bootstrap_servers}",
            "-rs",
        )
    result.assert_outcomes(skipped=14)
    output = result.stdout.str()
    for reason in (
        "lose_acks() needs an embedded broker, and --kafka-bootstrap-servers names a real cluster",
        "has 1 brokers, not 3",
        "has 1 partitions, not 4",
        "auto_create_topics is up to the cluster",
    ):
        assert reason in output


# ---------------------------------------------------------------------- what it costs those who do
# not use it


def test_the_header_has_the_versions(run: Run) -> None:
    result = run("""
def test_it(kafka_broker):
    pass
""")
    result.stdout.fnmatch_lines(["kafka-ext: *embedded brokers", "kafka-ext: librdkafka 2.*"])


def test_a_run_that_uses_no_fixture_does_not_load_librdkafka(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    pytester.makeconftest("""
import sys

def pytest_unconfigure(config):
    assert "kafka_ext.testing.plugin" in sys.modules
    loaded = sorted(name for name in sys.modules if name.startswith("kafka_ext"))
    plugin = ["kafka_ext", "kafka_ext.testing", "kafka_ext.testing._async_fixtures", "kafka_ext.testing.plugin"]
    assert [name for name in loaded if name not in plugin] == [], loaded
""")
    result = pytester.runpytest_subprocess(*PLUGIN, *QUICK)
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("kafka-ext: librdkafka*")


def test_a_run_with_pytester_can_run_tests_that_use_it_more_than_once(
    pytester: pytest.Pytester,
) -> None:
    # In a process of its own, which has not loaded the extension when the first of the inner runs
    # begins.
    pytester.makepyfile(
        """
        import pytest

        pytest_plugins = ["pytester"]

        @pytest.mark.parametrize("n", range(2))
        def test_inner(pytester, n):
            pytester.makepyfile("def test_it(kafka_broker, kafka_producer): kafka_producer.flush(timeout=30)")
            pytester.runpytest_inprocess(*ARGUMENTS).assert_outcomes(passed=1)
        """.replace("*ARGUMENTS", ", ".join(map(repr, [*PLUGIN, *QUICK])))
    )
    pytester.runpytest_subprocess(*PLUGIN, *QUICK).assert_outcomes(passed=2)


def test_importing_the_package_does_not_load_librdkafka() -> None:
    source = (
        "import sys, kafka_ext, kafka_ext.testing; assert not [name for name in sys.modules if"
        " 'rdkafka' in name]"
    )
    subprocess.run([sys.executable, "-c", source], check=True)


def test_every_public_name_can_be_had() -> None:
    import kafka_ext
    import kafka_ext.testing

    for module in (kafka_ext, kafka_ext.testing):
        for name in module.__all__:
            assert getattr(module, name) is not None
            assert name in dir(module)
        with pytest.raises(AttributeError, match="no_such_name"):
            module.no_such_name  # noqa: B018
