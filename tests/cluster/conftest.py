"""Two real clusters for all the tests, and topics of a test's own on them."""

import itertools
import re

import pytest

from kafka_ext import KafkaProducer
from kafka_ext.testing import KafkaCluster, Listener

USERS = {"ada": "ada's secret", "bob": 'with "quotes" \\ and more', "eve": "another"}

_clusters = []
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def single():
    """One broker, with a listener for each way of connecting, and with ACLs: anonymous clients may
    do everything.
    """
    listeners = {
        "PLAIN": Listener(),
        "TLS": Listener("SSL"),
        "MUTUAL": Listener("SSL", client_certificate="required"),
        "SASL": Listener("SASL_PLAINTEXT"),
        "SASLTLS": Listener("SASL_SSL"),
    }
    with KafkaCluster(listeners=listeners, users=USERS, acls=True) as cluster:
        _clusters.append(cluster)
        yield cluster


@pytest.fixture(scope="session")
def shared_trio():
    with KafkaCluster(3) as cluster:
        _clusters.append(cluster)
        yield cluster


@pytest.fixture
def trio(shared_trio):
    """Three brokers; topics have three replicas, two of which must be in sync. Whatever a test does
    to them, the next one's run.
    """
    yield shared_trio
    states = {broker: shared_trio.state(broker) for broker in range(1, shared_trio.brokers + 1)}
    for broker, state in states.items():
        if state == "paused":
            shared_trio.resume(broker)
        elif state == "stopped":
            shared_trio.start(broker, wait=False)
    shared_trio.wait_until_ready()


@pytest.fixture
def new_topic(request):
    """Makes topics on a cluster that no other test has: `new_topic(cluster, partitions,
    **settings)`.
    """

    def make(cluster, partitions=1, replicas=None, **config):
        name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{request.node.name[:80]}-{next(_numbers)}")
        cluster.create_topic(
            name,
            partitions,
            config={key.replace("_", "."): str(value) for key, value in config.items()},
            replicas=replicas,
        )
        return name

    return make


@pytest.fixture
def connect():
    """Makes producers, and closes them after the test. What they log and what goes wrong with their
    connections is theirs alone.
    """
    made = []

    def make(config, **settings):
        made.append(
            KafkaProducer(
                {"linger.ms": 0, "log_level": 0, "error_cb": lambda error: None} | config | settings
            )
        )
        return made[-1]

    yield make
    for producer in made:
        producer.close(1)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Where a test has failed, the brokers' logs are kept."""
    outcome = yield
    if outcome.get_result().failed:
        for cluster in _clusters:
            if not cluster.closed:
                cluster.keep_logs = True
                outcome.get_result().sections.append(
                    ("brokers", f"the logs of {cluster!r} are kept in {cluster.logs}")
                )
