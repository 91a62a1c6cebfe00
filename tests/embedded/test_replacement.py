"""What is underneath KafkaSink, KafkaHandler and RecoverableProducer: one producer at a time."""

from __future__ import annotations

import threading
import time

import pytest
from faultlib import within

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, ProducerRecord, _rdkafka
from kafka_ext._replacement import NEVER, NOW, Replaceable
from kafka_ext.testing import EmbeddedBroker

QUIET = {"error_cb": lambda error: None, "log_cb": lambda *log: None}


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        yield broker


@pytest.fixture
def make(broker):
    made = []

    def make():
        made.append(KafkaProducer(broker.config(), **QUIET))
        return made[-1]

    make.made = made
    yield make
    for producer in made:
        producer.close(0)


def break_it(producer):
    producer.handle.test_fatal_error(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "for the test")


def test_many_threads_get_the_same_one(make):
    replaceable = Replaceable(make)
    for expected in range(1, 4):
        start, got = threading.Barrier(8), []

        def get(start=start, got=got):
            start.wait()
            got.append(replaceable.get(NEVER))

        threads = [threading.Thread(target=get) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [make.made[-1]] * 8
        assert len(make.made) == expected
        break_it(make.made[-1])


def test_who_uses_a_broken_one_keeps_it_until_he_leaves(make):
    replaceable = Replaceable(make)
    first = replaceable.enter(NEVER, 1)
    first.sync_send(ProducerRecord("orders", b"v"), timeout=10)
    break_it(first)
    second = replaceable.enter(NEVER, 2)
    assert second is not first
    assert not first.handle.closing
    del replaceable.uses[1]
    replaceable.end_unused()
    assert first.handle.closed
    del replaceable.uses[2]
    replaceable.end_unused()
    assert not second.handle.closing
    assert replaceable.metrics().delivered == 1
    replaceable.close()
    assert second.handle.closed
    assert replaceable.enter(NEVER, 3) is None


def test_waiting_for_one_that_another_thread_makes_ends_in_time(make):
    go_on, begun = threading.Event(), threading.Event()

    def slowly():
        begun.set()
        go_on.wait(30)
        return make()

    replaceable = Replaceable(slowly)
    maker = threading.Thread(target=replaceable.get, args=(NEVER,))
    maker.start()
    begun.wait(30)
    with within(0.3):
        assert replaceable.get(_rdkafka.deadline(0.3)) is None
    assert replaceable.get(NOW) is None
    go_on.set()
    assert replaceable.get(NEVER) is make.made[0]
    maker.join()


def test_the_pauses_grow_until_one_has_delivered(make):
    replaceable = Replaceable(make)
    replaceable.get(NOW)
    pauses = []
    for _ in range(4):
        break_it(make.made[-1])
        replaceable.get(NEVER).handle.check_usable()
        pauses.append(replaceable._pause)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8])
    replaceable._not_before = time.monotonic() + 60
    assert replaceable.get(NOW) is make.made[-1]
    broken = make.made[-1]
    break_it(broken)
    assert replaceable.get(NOW) is None
    assert replaceable.replace(broken, given_up=lambda: True) is None
    replaceable._not_before = 0
    replaceable.get(NOW)
    make.made[-1].sync_send(ProducerRecord("orders", b"v"), timeout=10)
    break_it(make.made[-1])
    replaceable._not_before = 0
    replaceable.get(NOW)
    assert replaceable._pause == 0


def test_a_callable_that_asks_for_what_it_makes_is_told(make):
    def again():
        return replaceable.get(NEVER)

    replaceable = Replaceable(again)
    with pytest.raises(KafkaException, match="this thread is making the producer") as caught:
        replaceable.get(NEVER)
    assert caught.value.error == ErrorCode.STATE
    replaceable._make = make
    assert replaceable.get(NEVER) is make.made[0]
