"""Purges, aborts and a bad network in any order: what is reported as delivered is in the log.

The network cuts connections, loses answers, corrupts requests and holds them up. The schedules are
random, and a seed's first choices are always the same; when each meets a request is up to the
machine.
"""

import random
import threading
import time
from collections import Counter

import pytest
from proxy import Proxy

from kafka_ext import KafkaException, ProducerRecord, _rdkafka
from kafka_ext.testing import KafkaCluster

if "txn-abort-nothing" not in _rdkafka.build_info()["patches"]:
    pytest.skip("this librdkafka is not mended (wheels/patches)", allow_module_level=True)

PARTITIONS = 3
SECONDS = 10
QUICK = {"retry.backoff.ms": 20, "retry.backoff.max.ms": 200, "reconnect.backoff.max.ms": 200}


@pytest.fixture(scope="module")
def proxied():
    with Proxy() as proxy, KafkaCluster(advertised={1: proxy.address}) as cluster:
        proxy.target = cluster.address(1)
        yield cluster, proxy


class BadNetwork:
    """A thread that does something to the network several times a second."""

    def __init__(self, proxy, seed):
        self._proxy = proxy
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stop.wait(self._random.uniform(0.02, 0.3)):
            self._random.choice([self._proxy.cut, self._lose, self._hold_up])()

    def _lose(self):
        self._proxy.lose_responses(self._random.randint(1, 2))

    def _hold_up(self):
        self._proxy.hold()
        self._stop.wait(self._random.uniform(0.01, 0.2))
        self._proxy.release(*self._random.choices(["pass", "corrupt"], k=5))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        self._thread.join()
        self._proxy.lose_responses(0)
        self._proxy.release()


class Sender:
    """Sends numbers to random partitions and keeps each one's single report."""

    def __init__(self, producer, topic, choose):
        self._producer, self._topic, self._choose = producer, topic, choose
        self.reports = {}
        self.twice = []

    def send(self, count):
        numbers = range(len(self.reports), len(self.reports) + count)
        for number in numbers:
            self.reports[number] = "none yet"
            record = ProducerRecord(
                self._topic, b"%d" % number, partition=self._choose.randrange(PARTITIONS), id=number
            )
            self._producer.send(record, self._on_delivery)
        return numbers

    def _on_delivery(self, metadata, error):
        if self.reports[metadata.record_id] != "none yet":
            self.twice.append(metadata.record_id)
        self.reports[metadata.record_id] = error

    def check(self):
        self._producer.flush(30)
        assert self.twice == []
        assert "none yet" not in self.reports.values()


def found(cluster, topic):
    """The numbers in each partition."""
    partitions = [[] for _ in range(PARTITIONS)]
    for message in cluster.messages(topic):
        partitions[message.partition].append(int(message.value))
    return partitions


@pytest.mark.found(1)
@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_delivered_amid_purges_is_in_the_log_and_in_order(
    proxied, connect, new_topic, seed
):
    cluster, proxy = proxied
    topic = new_topic(cluster, PARTITIONS)
    producer = connect(cluster.config(), **QUICK)
    choose = random.Random(seed)
    sender = Sender(producer, topic, choose)
    with BadNetwork(proxy, seed):
        give_up = time.monotonic() + SECONDS
        while time.monotonic() < give_up:
            sender.send(choose.choice([1, 5, 50, 300]))
            if choose.random() < 0.15:
                producer.purge(in_queue=choose.random() < 0.8, in_flight=choose.random() < 0.3)
            time.sleep(choose.choice([0, 0.01, 0.05]))
    sender.check()
    delivered = {number for number, error in sender.reports.items() if error is None}
    assert len(delivered) < len(sender.reports), "nothing was purged"
    for numbers in found(cluster, topic):
        once = [number for number in dict.fromkeys(numbers) if number in delivered]
        assert once == sorted(once)
        delivered.difference_update(once)
    assert delivered == set()


@pytest.mark.found(2)
@pytest.mark.parametrize("seed", [1, 2])
def test_transactions_are_whole_and_none_is_fatal_in_a_bad_network(
    proxied, connect, new_topic, seed
):
    cluster, proxy = proxied
    topic = new_topic(cluster, PARTITIONS)
    producer = connect(cluster.config(transactional_id=f"of-{topic}"), **QUICK)
    producer.init_transactions(30)
    choose = random.Random(seed)
    sender = Sender(producer, topic, choose)
    committed = []
    with BadNetwork(proxy, seed):
        give_up = time.monotonic() + SECONDS
        while time.monotonic() < give_up:
            producer.begin_transaction()
            numbers = sender.send(choose.choice([1, 1, 2, 5, 50]))
            end = choose.choice(["commit", "commit", "abort", "abort", "purge"])
            if end == "abort":
                time.sleep(choose.choice([0, 0, 0.001, 0.01, 0.1]))
                producer.abort_transaction(60)
                continue
            if end == "purge":
                producer.purge(in_flight=False)
            try:
                producer.commit_transaction(60)
            except KafkaException as error:
                if not error.error.transaction_requires_abort:
                    raise
                producer.abort_transaction(60)
            else:
                committed += numbers
    sender.check()
    assert committed
    assert Counter(number for numbers in found(cluster, topic) for number in numbers) == Counter(
        committed
    )
