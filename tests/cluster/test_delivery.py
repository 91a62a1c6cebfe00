"""Exactly once and in order through lost acknowledgements, changed leaders, killed and paused
brokers, and with each setting of acks.
"""

import threading
import time

import pytest
from faultlib import Outcomes, is_pinned, wait_until, within
from proxy import ByteProxy, Proxy

from kafka_ext import ErrorCode, PersistedStatus, ProducerRecord, _rdkafka
from kafka_ext.testing import KafkaCluster

# Soon enough to be noticed within a test, and as patient as a cluster needs that elects a leader.
QUICK = {"request.timeout.ms": 3000, "message.timeout.ms": 60_000}


class Numbers:
    """Sends numbers to one partition until told to stop, from a thread of its own, and knows what
    became of each.
    """

    def __init__(self, producer, topic, pause=0.002):
        self.producer = producer
        self.topic = topic
        self.pause = pause
        self.outcomes = Outcomes()
        self.values = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stop.wait(self.pause):
            self.values.append(bytearray(b"%d" % len(self.values)))
            self.producer.send(
                ProducerRecord(self.topic, self.values[-1], partition=0),
                self.outcomes.expect(len(self.values) - 1),
            )

    def __enter__(self):
        self._thread.start()
        wait_until(lambda: len(self.outcomes.reports) > 20)
        return self

    def __exit__(self, *exc_info):
        count = len(self.outcomes.reports)
        if exc_info[0] is None:
            wait_until(
                lambda: len(self.outcomes.reports) > count + 20, 60
            )  # it goes on behind the fault
        self._stop.set()
        self._thread.join()

    def check(self, cluster):
        """Each was reported once, as delivered, and is there once, in order; nothing is held any
        more.
        """
        self.producer.flush(60)
        self.outcomes.check(range(len(self.values)))
        assert self.outcomes.errors == []
        assert not any(map(is_pinned, self.values))
        cluster.assert_delivered(
            self.topic, [bytes(value) for value in self.values], exactly_once=True, ordered=True
        )
        assert [
            metadata.offset
            for metadata, _ in (self.outcomes.reports[n] for n in range(len(self.values)))
        ] == list(range(len(self.values)))


# ---------------------------------------------------------------------- acknowledgements


@pytest.fixture(scope="module")
def proxied():
    """A broker that clients reach by a proxy only."""
    with Proxy() as proxy, KafkaCluster(advertised={1: proxy.address}) as cluster:
        proxy.target = cluster.address(1)
        yield cluster, proxy


def test_fault_04_a_lost_acknowledgement_leaves_no_duplicate(proxied, connect, new_topic):
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = connect(cluster.config(retry_backoff_ms=50), **{"linger.ms": 5})
    outcomes = Outcomes()
    lost = proxy.lost
    producer.sync_send(ProducerRecord(topic, b"first", partition=0), timeout=10)
    for number in range(300):
        if number % 100 == 50:
            proxy.lose_responses(1)
        producer.send(ProducerRecord(topic, b"%d" % number, partition=0), outcomes.expect(number))
        time.sleep(0.002)
    producer.flush(30)
    outcomes.check(range(300))
    assert outcomes.errors == []
    assert proxy.lost - lost == 3
    cluster.assert_delivered(
        topic,
        [b"first", *(b"%d" % number for number in range(300))],
        exactly_once=True,
        ordered=True,
    )


def test_fault_04_and_does_without_idempotence(proxied, connect, new_topic):
    """The same fault, so that the test above is known to have had one."""
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = connect(cluster.config(enable_idempotence=False, retry_backoff_ms=50))
    producer.sync_send(ProducerRecord(topic, b"first"), timeout=10)
    proxy.lose_responses(1)
    producer.sync_send(ProducerRecord(topic, b"twice"), timeout=10)
    assert [message.value for message in cluster.messages(topic)] == [b"first", b"twice", b"twice"]


def test_fault_04_a_lost_acknowledgement_without_retries_is_possibly_persisted(
    proxied, connect, new_topic
):
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = connect(cluster.config(enable_idempotence=False, retries=0))
    producer.sync_send(ProducerRecord(topic, b"first"), timeout=10)
    proxy.lose_responses(1)
    outcomes = Outcomes()
    producer.send(ProducerRecord(topic, b"maybe"), outcomes.expect("it"))
    outcomes.wait(1)
    metadata, error = outcomes.reports["it"]
    assert error == ErrorCode["TRANSPORT"]
    assert metadata.persisted_status == PersistedStatus.POSSIBLY
    assert [message.value for message in cluster.messages(topic)] == [b"first", b"maybe"]


def test_connections_cut_in_the_middle_of_everything(proxied, connect, new_topic):
    cluster, proxy = proxied
    topic = new_topic(cluster)
    with Numbers(connect(cluster.config(), **QUICK), topic) as numbers:
        for _ in range(5):
            proxy.cut()
            time.sleep(0.3)
    numbers.check(cluster)


def test_fault_03_a_network_that_swallows_everything(connect):
    """Connections stay open and nothing comes back: each record is reported within
    message.timeout.ms, and the next ones arrive.
    """
    topic = "orders"

    class Swallowing(ByteProxy):
        swallows = False

        def _pump(self, source, target, passes):
            try:
                while read := source.recv(1 << 16):
                    if not self.swallows:
                        target.sendall(read)
            except OSError:
                pass
            finally:
                self._shut(source)
                self._shut(target)

    with Swallowing() as proxy, KafkaCluster(advertised={1: proxy.address}) as cluster:
        proxy.target = cluster.address(1)
        cluster.create_topic(topic)
        producer = connect(
            cluster.config(message_timeout_ms=2000, request_timeout_ms=1000, socket_timeout_ms=1000)
        )
        producer.sync_send(ProducerRecord(topic, b"before"), timeout=10)
        proxy.swallows = True
        outcomes = Outcomes()
        with within(2 + 1):
            for number in range(10):
                producer.send(ProducerRecord(topic, b"%d" % number), outcomes.expect(number))
            producer.flush()
        outcomes.check(range(10))
        assert set(outcomes.errors) == {ErrorCode["MSG_TIMED_OUT"]}
        proxy.swallows = False
        proxy.cut()
        producer.sync_send(ProducerRecord(topic, b"after"), timeout=20)


# ---------------------------------------------------------------------- one request refused, others
# behind it


def send_one_by_one(proxy, producer, records, fates):
    """Each record in a request of its own, all on their way before the first of them reaches the
    broker; what becomes of them.
    """
    outcomes = Outcomes()
    for partition in (0, 1):
        producer.sync_send(
            ProducerRecord(records[0].topic, b"before", partition=partition), timeout=10
        )
    proxy.hold()
    try:
        for record in records:
            producer.send(record, outcomes.expect(bytes(record.value)))
            time.sleep(0.3)
    finally:
        proxy.release(*fates)
    outcomes.wait(len(records), 30)
    outcomes.check(bytes(record.value) for record in records)
    assert outcomes.errors == []
    return outcomes


def in_partition(cluster, topic, partition):
    return [message.value for message in cluster.messages(topic) if message.partition == partition]


def test_a_request_refused_for_its_checksum_keeps_its_place(proxied, connect, new_topic):
    cluster, proxy = proxied
    topic = new_topic(cluster, 2)
    records = [
        ProducerRecord(topic, value, partition=0) for value in (b"first", b"second", b"third")
    ]
    send_one_by_one(proxy, connect(cluster.config(retry_backoff_ms=50)), records, ["corrupt"])
    assert in_partition(cluster, topic, 0) == [b"before", b"first", b"second", b"third"]


def test_a_request_refused_for_its_checksum_loses_its_place_without_idempotence(
    proxied, connect, new_topic
):
    """The same fault, so that the test above is known to have had one."""
    cluster, proxy = proxied
    topic = new_topic(cluster, 2)
    records = [
        ProducerRecord(topic, value, partition=0) for value in (b"first", b"second", b"third")
    ]
    send_one_by_one(
        proxy,
        connect(cluster.config(enable_idempotence=False, retry_backoff_ms=50)),
        records,
        ["corrupt"],
    )
    assert in_partition(cluster, topic, 0) == [b"before", b"second", b"third", b"first"]


def test_one_request_in_flight_at_a_time_does_not_keep_the_order(proxied, connect, new_topic):
    """librdkafka makes the next request while the one before it is in flight, and sends it before
    what that has failed with.

    When this fails because the order is kept: docs/reliability.md says that it is not.
    """
    cluster, proxy = proxied
    topic = new_topic(cluster, 2)
    records = [
        ProducerRecord(topic, value, partition=0) for value in (b"first", b"second", b"third")
    ]
    config = cluster.config(
        enable_idempotence=False, retry_backoff_ms=50, max_in_flight_requests_per_connection=1
    )
    send_one_by_one(proxy, connect(config), records, ["corrupt"])
    assert in_partition(cluster, topic, 0) == [b"before", b"second", b"first", b"third"]


def test_a_refused_request_and_a_lost_answer_double_nothing(proxied, connect, new_topic):
    """A defect of librdkafka's that the bundled one is mended of (wheels/patches/), and the
    smallest program that shows it.

    A request is refused; the one behind it, in the same partition, has skipped sequence numbers
    then. The broker says so, librdkafka goes on under the producer's next epoch, and what another
    partition has stored and not answered is sent again under that: nobody knows it again.
    """
    cluster, proxy = proxied
    topic = new_topic(cluster, 2)
    records = [
        ProducerRecord(topic, value, partition=partition)
        for value, partition in ((b"first", 0), (b"second", 0), (b"other", 1))
    ]
    send_one_by_one(
        proxy, connect(cluster.config(retry_backoff_ms=50)), records, ["corrupt", "pass", "lose"]
    )
    mended = "librdkafka-4953" in _rdkafka.build_info()["patches"]
    assert in_partition(cluster, topic, 0) == [b"before", b"first", b"second"]
    assert in_partition(cluster, topic, 1) == [b"before", b"other", b"other"][: 2 if mended else 3]


# ---------------------------------------------------------------------- leaders


@pytest.fixture
def topic(trio, new_topic):
    return new_topic(trio, replicas={0: [1, 2, 3]})


def test_fault_02_leader_moved(trio, connect, topic):
    with Numbers(connect(trio.config(), **QUICK), topic) as numbers:
        for leader in (2, 3, 1):
            trio.move_leader(topic, 0, leader)
            time.sleep(0.3)
    assert trio.leader(topic) == 1
    numbers.check(trio)


def test_fault_01_and_02_leader_killed(trio, connect, topic):
    with Numbers(connect(trio.config(), **QUICK), topic) as numbers:
        trio.kill(1)
        wait_until(lambda: trio.leader(topic) not in (1, None), 30)
        trio.start(1)
    numbers.check(trio)


def test_fault_05_leader_paused_past_the_request_timeout(trio, connect, topic):
    with Numbers(connect(trio.config(), **QUICK), topic) as numbers:
        trio.pause(1)
        wait_until(lambda: trio.leader(topic) not in (1, None), 30)
        trio.resume(1)
    trio.wait_in_sync(topic)
    numbers.check(trio)


def test_brokers_restarted_one_after_the_other(trio, connect, topic):
    """A rolling restart, as an upgrade is: nobody notices."""
    with Numbers(connect(trio.config(), **QUICK), topic) as numbers:
        for broker in (1, 2, 3):
            trio.restart(broker)
            trio.wait_in_sync(topic)
    numbers.check(trio)


def test_the_three_kinds_of_acknowledgement(trio, connect, topic):
    """With acks=all an answer waits for the others, one of which is paused; with 1 it does not;
    with 0 there is none.
    """
    producers = {
        acks: connect(trio.config(acks=acks, **{"client.id": f"acks {acks}"}))
        for acks in ("all", "1", "0")
    }
    for producer in producers.values():
        producer.sync_send(ProducerRecord(topic, b"before"), timeout=10)
    trio.pause(2)
    outcomes = Outcomes()
    for acks, producer in producers.items():
        producer.send(ProducerRecord(topic, acks), outcomes.expect(acks))
    outcomes.wait(2, 2)
    assert set(outcomes.reports) == {"1", "0"}
    assert outcomes.reports["1"][0].persisted_status == PersistedStatus.DONE
    assert outcomes.reports["1"][0].offset is not None
    assert (outcomes.reports["0"][0].offset, outcomes.reports["0"][0].persisted_status) == (
        None,
        PersistedStatus.POSSIBLY,
    )
    outcomes.wait(3, 30)  # once the paused one has been taken out of the set
    outcomes.check(["all", "1", "0"])
    assert outcomes.errors == []
