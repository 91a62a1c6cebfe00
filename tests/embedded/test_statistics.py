"""librdkafka's statistics as typed objects: nothing of a real event is missing, nothing is made up
(kafka_ext/statistics.py).
"""

from __future__ import annotations

import dataclasses
import json
from functools import cached_property

import pytest
from faultlib import wait_until

from kafka_ext import ErrorCode, KafkaProducer, ProducerRecord, TopicPartition
from kafka_ext.statistics import (
    BrokerStatistics,
    FatalStatistics,
    IdempotenceStatistics,
    PartitionStatistics,
    Statistics,
    TopicStatistics,
    WindowStatistics,
)
from kafka_ext.testing import EmbeddedBroker

# What a producer's event has as well, and what is always nothing there.
OF_CONSUMERS = {
    Statistics: {"rxmsgs", "rxmsg_bytes", "simple_cnt"},
    BrokerStatistics: {"rxpartial"},
    PartitionStatistics: set(
        """fetchq_cnt fetchq_size fetch_state query_offset next_offset app_offset stored_offset stored_leader_epoch commited_offset
        committed_offset committed_leader_epoch eof_offset lo_offset hi_offset ls_offset consumer_lag consumer_lag_stored rxmsgs rxbytes
        rx_ver_drops""".split()
    ),
}


@pytest.fixture(scope="module")
def event():
    """The last event of a producer that has done all that one can: each kind of field is in it."""
    events = []
    with EmbeddedBroker(topics={"one": 2, "two": 1}) as broker:
        properties = broker.config(
            transactional_id="t", statistics_interval_ms=50, linger_ms=0, client_id="counted"
        )
        with KafkaProducer(
            properties, stats_cb=events.append, error_cb=lambda error: None
        ) as producer:
            producer.init_transactions(20)
            producer.begin_transaction()
            for topic in ("one", "two"):
                for n in range(20):
                    producer.send(
                        ProducerRecord(topic, b"12345", key=b"%d" % n), lambda metadata, error: None
                    )
            producer.flush(10)
            seen = len(events)
            wait_until(lambda: len(events) > seen + 1)
            producer.handle.test_fatal_error(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "for the test")
            wait_until(lambda: "fatal" in events[-1])
            event = events[-1]
            # Windows are those of the last interval, so the one with something in it comes from
            # before.
            event["before"] = next(each for each in events if window(each)["cnt"])
    return event


def window(event):
    return max(
        (broker["int_latency"] for broker in event["brokers"].values() if "int_latency" in broker),
        key=lambda w: w["cnt"],
    )


def parts(statistics):
    """Every object that is in the statistics, itself first."""
    yield statistics
    for name, attribute in vars(type(statistics)).items():
        if not isinstance(attribute, cached_property):
            continue
        value = getattr(statistics, name)
        for part in value.values() if hasattr(value, "values") else [value]:
            if dataclasses.is_dataclass(part):
                yield from parts(part)


def attributes(cls):
    fields = {field.name for field in dataclasses.fields(cls)} - {"raw"}
    return fields | {
        name for name, value in vars(cls).items() if isinstance(value, (property, cached_property))
    }


class TestARealEvent:
    def test_has_an_attribute_for_each_of_its_fields(self, event):
        """A newer librdkafka's new field fails here: give it an attribute, or put it among those of
        consumers.
        """
        seen = set()
        for part in parts(Statistics.parse(event)):
            cls = type(part)
            seen.add(cls)
            assert (
                set(part.raw) - attributes(cls) - OF_CONSUMERS.get(cls, set()) - {"before"} == set()
            ), cls
        assert seen == {
            Statistics,
            BrokerStatistics,
            TopicStatistics,
            PartitionStatistics,
            WindowStatistics,
            IdempotenceStatistics,
            FatalStatistics,
        }

    def test_has_a_field_for_each_attribute(self, event):
        """A default is for another librdkafka; the one this is built with sends everything."""
        for part in parts(Statistics.parse(event)):
            fields = {field.name for field in dataclasses.fields(part)} - {"raw"}
            assert fields <= set(part.raw)
            for name in fields:
                assert getattr(part, name) == part.raw[name]
                assert type(getattr(part, name)) is type(
                    next(f.default for f in dataclasses.fields(part) if f.name == name)
                ), name

    def test_has_nothing_that_consumers_have_alone(self, event):
        for part in parts(Statistics.parse(event)):
            assert OF_CONSUMERS.get(type(part), set()) <= set(part.raw)

    def test_says_what_was_done(self, event):
        statistics = Statistics.parse(event)
        assert (statistics.client_id, statistics.type, statistics.txmsgs) == (
            "counted",
            "producer",
            40,
        )
        assert statistics.name.startswith("counted#producer-")
        assert set(statistics.topics) == {"one", "two"}
        one = statistics.topics["one"]
        assert (
            sum(partition.msgs for number, partition in one.partitions.items() if number >= 0) == 20
        )
        assert {0, 1} <= set(one.partitions)
        assert one.partitions[0].leader == 1
        (broker,) = (broker for broker in statistics.brokers.values() if broker.nodeid == 1)
        assert (broker.state, broker.source) == ("UP", "learned")
        assert broker.req["Produce"] >= 2
        assert TopicPartition("one", 0) in broker.toppars.values()
        assert statistics.eos.txn_state in ("InTransaction", "FatalError")
        assert (statistics.eos.epoch_cnt, statistics.eos.producer_id > 0) == (1, True)
        assert statistics.fatal.reason == "test_fatal_error: for the test"
        assert statistics.retries == sum(each["txretries"] for each in event["brokers"].values())
        assert statistics.in_flight_messages == 0

    def test_has_windows_of_an_interval(self, event):
        statistics = Statistics.parse(event["before"])
        latency = max(
            (broker.int_latency for broker in statistics.brokers.values()),
            key=lambda window: window.cnt,
        )
        assert latency.cnt > 0
        assert 0 <= latency.min <= latency.p50 <= latency.p99 <= latency.p99_99
        sizes = max(
            (topic.batchcnt for topic in statistics.topics.values()), key=lambda window: window.cnt
        )
        assert sizes.max >= 1


@pytest.mark.librdkafka(">=2.15.1")
def test_the_latency_inside_is_right_when_records_never_time_out():
    """Before 2.15.1 librdkafka took it from the timeout, and told of millions of years."""
    events = []
    with EmbeddedBroker(topics={"t": 1}) as broker:
        properties = broker.config(message_timeout_ms=0, statistics_interval_ms=50, linger_ms=0)
        with KafkaProducer(properties, stats_cb=events.append) as producer:
            for _ in range(20):
                producer.send(ProducerRecord("t", b"value"))
            producer.flush(10)
            wait_until(lambda: any(window(event)["cnt"] for event in events))
    latency = next(window(event) for event in events if window(event)["cnt"])
    assert 0 <= latency["min"] <= latency["max"] < 60_000_000  # microseconds


@pytest.mark.librdkafka(">=2.15.1")
@pytest.mark.parametrize("host", ["[::1]", "[2001:db8::]"])
def test_a_brokers_name_has_its_ipv6_address_in_brackets(host):
    """Before 2.15.1 an address that ends in :: could not be connected to: its name was
    2001:db8:::9092.
    """
    events = []
    with KafkaProducer(
        bootstrap_servers=f"{host}:1", statistics_interval_ms=50, stats_cb=events.append
    ) as producer:
        wait_until(lambda: events and events[-1]["brokers"])
        (broker,) = (
            broker for broker in events[-1]["brokers"].values() if broker["source"] == "configured"
        )
        producer.close(0)
    assert broker["nodename"] == f"{host}:1"
    assert broker["name"] == f"{host}:1/bootstrap"


class TestParse:
    def test_takes_text_bytes_and_what_is_parsed(self, event):
        text = json.dumps(event)
        assert Statistics.parse(text) == Statistics.parse(text.encode()) == Statistics.parse(event)
        assert hash(Statistics.parse(text)) == hash(Statistics.parse(event))

    @pytest.mark.parametrize("text", ["", "{", "5", "[]", b"null"])
    def test_refuses_other_json(self, text):
        with pytest.raises(ValueError):
            Statistics.parse(text)

    @pytest.mark.parametrize("thing", [None, 5, []])
    def test_refuses_other_types(self, thing):
        with pytest.raises(TypeError, match="event must be a str, bytes or a mapping"):
            Statistics.parse(thing)

    def test_what_it_does_not_know_is_in_raw(self):
        statistics = Statistics.parse(
            {"name": "n", "new": 5, "brokers": {"b": {"name": "b", "newer": {"x": 1}}}}
        )
        assert (statistics.raw["new"], statistics["new"]) == (5, 5)
        assert statistics.brokers["b"]["newer"] == {"x": 1}
        with pytest.raises(KeyError):
            statistics["newest"]

    def test_what_is_not_there_is_nothing(self):
        """An older librdkafka's events, and those of an unlucky moment."""
        statistics = Statistics.parse(
            {"brokers": {"b": {}}, "topics": {"t": {"partitions": {"0": {}}}}}
        )
        assert (statistics.name, statistics.msg_cnt, statistics.eos, statistics.fatal) == (
            "",
            0,
            None,
            None,
        )
        broker = statistics.brokers["b"]
        assert (broker.nodeid, broker.rtt.p99, dict(broker.req), dict(broker.toppars)) == (
            -1,
            0,
            {},
            {},
        )
        assert statistics.topics["t"].partitions[0].leader == -1
        assert (statistics.retries, statistics.in_flight_messages) == (0, 0)
        assert Statistics.parse({}).brokers == {}

    def test_is_frozen(self):
        statistics = Statistics.parse({"brokers": {"b": {}}})
        with pytest.raises(dataclasses.FrozenInstanceError):
            statistics.name = "other"
        with pytest.raises(TypeError):
            statistics.brokers["c"] = None

    def test_shows_its_own_fields(self):
        assert repr(Statistics.parse({"name": "n"})).startswith("Statistics(name='n', client_id=''")


def test_metrics_have_the_newest_parsed_when_asked_for(make_producer):
    producer = make_producer({"statistics.interval.ms": 50, "client.id": "counted"})
    wait_until(lambda: producer.metrics().statistics_json)
    metrics = producer.metrics()
    assert metrics.statistics is metrics.statistics
    assert metrics.statistics == Statistics.parse(metrics.statistics_json)
    assert metrics.statistics.client_id == "counted"
    assert metrics.statistics.msg_max == 100_000
