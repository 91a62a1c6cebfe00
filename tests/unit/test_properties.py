"""Properties, and what a producer makes of them."""

import collections
import re
from collections.abc import MutableMapping
from types import MappingProxyType

import pytest
from faultlib import shown

from kafka_ext import InvalidConfigError, KafkaProducer, Properties
from kafka_ext.properties import resolve

BROKER = {"bootstrap.servers": "localhost:9092"}


def effective(**settings):
    """What librdkafka would be given for `settings`."""
    return resolve(
        Properties(BROKER | {name.replace("_", "."): value for name, value in settings.items()})
    ).librdkafka


class TestMapping:
    def test_is_a_mutable_mapping(self):
        properties = Properties({"linger.ms": "5"})
        assert isinstance(properties, MutableMapping)
        properties["acks"] = "all"
        assert dict(properties) == {"linger.ms": "5", "acks": "all"}
        del properties["acks"]
        assert list(properties) == ["linger.ms"]
        assert len(properties) == 1
        assert "acks" not in properties
        assert properties == {"linger.ms": "5"}

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("x", "x"),
            (5, "5"),
            (0.5, "0.5"),
            (True, "true"),
            (False, "false"),
            (["a:1", "b:2"], "a:1,b:2"),
            (b"y", "y"),
        ],
    )
    def test_values_become_what_librdkafka_reads(self, value, text):
        assert Properties({"some.name": value})["some.name"] == text

    def test_keywords_have_underscores_for_dots_and_go_before_the_mapping(self):
        properties = Properties({"linger.ms": 1, "acks": "all"}, linger_ms=5)
        assert properties == {"linger.ms": "5", "acks": "all"}

    def test_objects_stay_what_they_are(self):
        def callback(*_):
            pass

        assert Properties(error_cb=callback, partitioner=callback)["error_cb"] is callback

    @pytest.mark.parametrize("value", [object(), {}, None, 1j])
    def test_a_value_of_a_wrong_type_is_named(self, value):
        with pytest.raises(TypeError, match=r"linger\.ms"):
            Properties({"linger.ms": value})

    def test_a_name_must_be_a_str(self):
        with pytest.raises(TypeError, match="name"):
            Properties({5: "x"})

    def test_a_list_of_pairs_is_no_mapping(self):
        with pytest.raises(TypeError, match="mapping"):
            Properties([("acks", "all")])

    def test_put_and_copy(self):
        properties = Properties().put("acks", "all").put("linger.ms", 5)
        copy = properties.copy()
        copy["acks"] = "1"
        assert properties["acks"] == "all"


class TestSecrets:
    @pytest.mark.parametrize(
        "name",
        [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "sasl.oauthbearer.client.secret",
            "ssl.key.pem",
            "sasl.oauthbearer.config",
        ],
    )
    def test_are_masked_in_repr(self, name):
        assert "hunter2" not in repr(Properties({name: "hunter2"}))
        assert name in repr(Properties({name: "hunter2"}))

    @pytest.mark.parametrize(
        "name", ["ssl.ca.location", "sasl.oauthbearer.token.endpoint.url", "sasl.username"]
    )
    def test_what_is_no_secret_is_shown(self, name):
        assert "hunter2" in repr(Properties({name: "hunter2"}))

    def test_are_masked_in_a_producers_repr_too(self, make_producer):
        producer = make_producer({"sasl.password": "hunter2"})
        assert "hunter2" not in repr(producer)
        assert "hunter2" not in repr(producer.properties)
        assert producer.properties["sasl.password"] == "hunter2"


class TestSafeDefaults:
    def test_acks_all_and_idempotence(self):
        settings = effective()
        assert settings["enable.idempotence"] == "true"
        assert settings["acks"] == "all"

    def test_the_partitioner_is_the_java_clients(self):
        assert effective()["partitioner"] == "murmur2_random"
        assert effective(partitioner="consistent")["partitioner"] == "consistent"

    @pytest.mark.parametrize(
        "own",
        [
            {"acks": "1"},
            {"acks": 0},
            {"request.required.acks": "1"},
            {"max.in.flight": 10},
            {"max.in.flight.requests.per.connection": 6},
            {"retries": 0},
            {"message.send.max.retries": 0},
            {"queuing.strategy": "lifo"},
        ],
        ids=str,
    )
    def test_the_callers_own_settings_switch_idempotence_off(self, own):
        settings = effective(**own)
        assert settings.get("enable.idempotence", "false") == "false"
        for name, value in own.items():
            assert settings[name] == str(value)

    @pytest.mark.parametrize(
        "own",
        [
            {"acks": "all"},
            {"acks": "-1"},
            {"max.in.flight": 5},
            {"retries": 3},
            {"queuing.strategy": "fifo"},
            {"linger.ms": 5},
        ],
        ids=str,
    )
    def test_settings_that_fit_leave_it_on(self, own):
        assert effective(**own)["enable.idempotence"] == "true"

    def test_acks_stays_all_when_something_else_switches_idempotence_off(self):
        assert effective(max_in_flight=10)["acks"] == "all"

    def test_named_false_it_is_off(self):
        assert effective(enable_idempotence=False)["enable.idempotence"] == "false"

    @pytest.mark.parametrize(
        "own",
        [{"acks": "1"}, {"max.in.flight": 10}, {"retries": 0}, {"queuing.strategy": "lifo"}],
        ids=str,
    )
    def test_named_together_and_in_conflict_they_are_refused(self, own):
        with pytest.raises(InvalidConfigError, match=r"idempotence"):
            KafkaProducer(BROKER | {"enable.idempotence": True} | own)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("acks", "-1"), ("enable.idempotence", "true"), ("partitioner", "murmur2_random")],
    )
    def test_are_in_force(self, make_producer, name, value):
        producer = make_producer({"enable.idempotence": ...})
        assert producer.get_property(name) == value

    def test_every_other_default_is_librdkafkas(self, make_producer):
        producer = make_producer({"linger.ms": ...})
        assert producer.get_property("linger.ms") == "5"
        assert producer.get_property("message.timeout.ms") == "300000"
        assert producer.get_property("queue.buffering.max.messages") == "100000"
        assert producer.get_property("compression.codec") == "none"


class TestProducersProperties:
    @pytest.mark.parametrize(
        "kind", [dict, Properties, MappingProxyType, collections.OrderedDict, collections.ChainMap]
    )
    def test_takes_any_mapping(self, make_producer, kind):
        given = kind({"test.mock.num.brokers": 1, "linger.ms": "7", "enable.idempotence": "false"})
        with KafkaProducer(given) as producer:
            assert producer.get_property("linger.ms") == "7"

    def test_takes_keywords_or_both(self):
        with KafkaProducer(bootstrap_servers="localhost:1", linger_ms=5) as producer:
            assert producer.get_property("linger.ms") == "5"
        with KafkaProducer(
            {"bootstrap.servers": "localhost:1", "linger.ms": 1}, linger_ms=9
        ) as producer:
            assert producer.get_property("linger.ms") == "9"

    def test_are_given_back_as_given(self, make_producer):
        producer = make_producer({"linger.ms": 3})
        assert producer.properties["linger.ms"] == "3"
        assert "message.timeout.ms" not in producer.properties

    def test_are_a_copy(self, make_producer):
        producer = make_producer()
        producer.properties["linger.ms"] = "1000"
        assert producer.properties["linger.ms"] == "0"

    def test_changing_what_was_given_changes_nothing(self):
        given = Properties(BROKER, linger_ms=3)
        with KafkaProducer(given) as producer:
            given["linger.ms"] = "7"
            assert producer.properties["linger.ms"] == "3"

    def test_get_property_gives_the_value_in_force(self, producer):
        assert producer.get_property("linger.ms") == "0"
        assert producer.get_property("queue.buffering.max.ms") == "0"  # its other name
        assert producer.get_property("sasl.username") in (None, "")
        assert producer.get_property("enable.manual.events.poll") == "false"

    def test_get_property_refuses_a_name_that_is_none(self, producer):
        with pytest.raises(InvalidConfigError, match=r"linger\.mss.*linger\.ms") as caught:
            producer.get_property("linger.mss")
        assert caught.value.property == "linger.mss"
        with pytest.raises(TypeError, match="name"):
            producer.get_property(5)

    def test_is_printed_with_its_brokers_and_state(self):
        producer = KafkaProducer(BROKER)
        assert repr(producer) == "<KafkaProducer 'localhost:9092' open>"
        producer.close()
        assert repr(producer) == "<KafkaProducer 'localhost:9092' closed>"


class TestRefused:
    """Bad configuration is an InvalidConfigError that names the property, and leaves nothing behind
    (the fixture sees to that).
    """

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("linger.ms", "soon"),
            ("linger.ms", -1),
            ("linger.ms", 10**12),
            ("acks", "most"),
            ("enable.idempotence", "perhaps"),
            ("compression.codec", "zip"),
            ("message.timeout.ms", 2**40),
            ("queue.buffering.max.messages", -5),
            ("enable.manual.events.poll", "perhaps"),
            ("partitioner", "by moon"),
            ("client.id", "a\0b"),
            ("log.queue", False),
            ("delivery.report.only.error", True),
            ("bootstrap.servers", ""),
            ("bootstrap.servers", "localhost:port"),
            ("bootstrap.servers", ":9092"),
            ("bootstrap.servers", "localhost:70000"),
            ("security.protocol", "telnet"),
            ("group.protocol.nonsense", "x"),
        ],
    )
    def test_is_named(self, name, value):
        with pytest.raises(InvalidConfigError) as caught:
            KafkaProducer(BROKER | {name: value})
        assert caught.value.property == name
        assert name in str(caught.value)
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize(
        ("typo", "meant"),
        [
            ("linger.mss", "linger.ms"),
            ("bootstrap.server", "bootstrap.servers"),
            ("enable.idempotance", "enable.idempotence"),
            ("error_cbb", "error_cb"),
            ("intercepters", "interceptors"),
            ("partitoner", "partitioner"),
            ("enable.manual.event.poll", "enable.manual.events.poll"),
        ],
    )
    def test_a_typo_is_answered_with_the_nearest_name(self, typo, meant):
        with pytest.raises(InvalidConfigError, match=f"did you mean '{meant}'"):
            KafkaProducer(BROKER | {typo: "1"})

    @pytest.mark.parametrize(
        "name",
        [
            "delivery.report.only.error",
            "dr_cb",
            "dr_msg_cb",
            "event_cb",
            "background_event_cb",
            "opaque",
            "enabled_events",
        ],
    )
    def test_whatever_would_keep_a_report_from_coming(self, name):
        with pytest.raises(InvalidConfigError) as caught:
            KafkaProducer(BROKER | {name: "1"})
        assert caught.value.property == name

    @pytest.mark.parametrize("name", ["dr_cb", "dr_msg_cb", "event_cb"])
    def test_such_a_callback_is_refused_for_what_it_is(self, name):
        for given in ({"properties": BROKER | {name: print}}, {"properties": BROKER, name: print}):
            properties = given.pop("properties")
            with pytest.raises(InvalidConfigError, match="cannot be set") as caught:
                KafkaProducer(properties, **given)
            assert caught.value.property == name

    @pytest.mark.parametrize(
        ("settings", "name"),
        [
            ({"enable.idempotence": "true", "acks": "1"}, "acks"),
            ({"security.protocol": "ssl", "ssl.ca.location": "/nonexistent"}, "ssl.ca.location"),
            ({"message.timeout.ms": "5", "linger.ms": "1000"}, "message.timeout.ms"),
        ],
    )
    def test_what_is_refused_together_is_named_too(self, settings, name):
        with pytest.raises(InvalidConfigError, match=re.escape(name)) as caught:
            KafkaProducer(BROKER | settings)
        assert caught.value.property == name

    @pytest.mark.parametrize("name", ["linger.ms", "message.max.bytes"])
    def test_the_message_is_one_line(self, name):
        with pytest.raises(InvalidConfigError, match="outside allowed range") as caught:
            KafkaProducer(BROKER | {name: "-5"})
        assert caught.value.error.message == caught.value.error.message.strip()

    @pytest.mark.parametrize("name", ["bootstrap.server", "bootstrap_servers"])
    def test_the_brokers_under_a_wrong_name(self, name):
        """It used to say that bootstrap.servers is missing, and not why."""
        with pytest.raises(
            InvalidConfigError, match=r"did you mean 'bootstrap\.servers'"
        ) as caught:
            KafkaProducer({name: "localhost:9092"})
        assert caught.value.property == name

    def test_no_bootstrap_servers(self):
        with pytest.raises(InvalidConfigError, match=r"bootstrap\.servers"):
            KafkaProducer()

    @pytest.mark.parametrize(
        "name", ["error_cb", "stats_cb", "throttle_cb", "log_cb", "oauthbearer_token_refresh_cb"]
    )
    def test_a_callback_that_is_not_callable(self, name):
        with pytest.raises(TypeError, match=name):
            KafkaProducer(BROKER | {name: "print"})
        with pytest.raises(TypeError, match=name):
            KafkaProducer(BROKER | {name: 5})

    def test_a_callback_of_none_is_none(self):
        KafkaProducer(BROKER | {"error_cb": None}).close()

    @pytest.mark.parametrize(
        "value", [5, [1], [object()], [type("Half", (), {"on_send": print})()]], ids=shown
    )
    def test_interceptors_that_are_none(self, value):
        with pytest.raises(TypeError, match="interceptors"):
            KafkaProducer(BROKER | {"interceptors": value})

    def test_a_partitioner_that_is_neither_a_name_nor_callable(self):
        with pytest.raises(TypeError, match="partitioner"):
            KafkaProducer(BROKER | {"partitioner": 5})

    @pytest.mark.parametrize("properties", [5, "acks=all", [("acks", "all")], b""])
    def test_properties_that_are_no_mapping(self, properties):
        with pytest.raises(TypeError, match="mapping"):
            KafkaProducer(properties)


def test_a_name_that_has_an_underscore_itself_is_a_keyword_too():
    assert dict(Properties(log_level=3, linger_ms=5)) == {"log_level": "3", "linger.ms": "5"}
