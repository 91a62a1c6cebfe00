"""Constant memory, threads and descriptors, however often something is done: delivered, refused,
failed, opened and closed.
"""

import sys

import pytest
from faultlib import SCALE, run_program

pytestmark = [
    pytest.mark.slow(5),
    pytest.mark.measures,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self"),
]

MEASURE = (
    f"""
SCALE = {SCALE}         # below 1 under valgrind, which finds the leak itself; the figures then mean nothing

def times(count):
    return max(int(count * SCALE), 20)
"""
    + """
from kafka_ext.testing import EmbeddedBroker

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def threads():
    return len(os.listdir("/proc/self/task"))

def descriptors():
    return len(os.listdir("/proc/self/fd"))

def settled(count, target, timeout=10):
    deadline = time.monotonic() + timeout
    while count() > target and time.monotonic() < deadline:
        time.sleep(0.01)
    return count()
"""
)


def grown_less_than(done, limit):
    assert int(done.stdout) < limit or SCALE < 1


def test_ten_million_sends_with_callbacks_in_constant_memory():
    """After the warm-up, less than a byte a message. The broker is a process of its own: what it
    keeps is not ours.
    """
    done = run_program(
        MEASURE,
        """
        def main():
            with EmbeddedBroker(topics={"orders": 4}, isolation="process") as broker:
                # A short queue: how full it ever was in the warm-up must not decide how much memory comes on top of that.
                queue = {"queue.buffering.max.messages": 10_000}
                with KafkaProducer(broker.config(linger_ms=5, enable_idempotence=False) | queue) as producer:
                    reports = failures = 0
                    def on_delivery(metadata, error):
                        nonlocal reports, failures
                        reports += 1
                        if error is not None:
                            failures += 1
                    def send(count):
                        send, value = producer.send, b"x" * 20
                        for i in range(count):
                            send(ProducerRecord("orders", value, id=i), on_delivery)
                        producer.flush()
                    send(times(1_000_000))
                    before = resident()
                    send(times(9_000_000))
                    grown = resident() - before
                    assert (reports, failures) == (times(1_000_000) + times(9_000_000), 0), (reports, failures)
                    metrics = producer.metrics()
                    assert (metrics.pinned_messages, metrics.outstanding) == (0, 0)
            assert not any(_rdkafka.live_objects().values()), _rdkafka.live_objects()
            print(grown)
        main()
        """,
        timeout=280,
    )
    grown_less_than(done, 9_000_000)


REFUSALS = {
    "wrong type": ('ProducerRecord("orders", 5)', "TypeError"),
    "wrong key": ('ProducerRecord("orders", value, key=5)', "TypeError"),
    "strided": ('ProducerRecord("orders", memoryview(value)[::2])', "ValueError"),
    "bad topic": ('ProducerRecord("bad topic", value)', "ValueError"),
    "NUL in a header": (
        'ProducerRecord("orders", value, headers=[("fine", value), ("na\\0me", b"")])',
        "ValueError",
    ),
    "bad header": (
        'ProducerRecord("orders", value, headers=[("name", value), ("name", 5)])',
        "TypeError",
    ),
    "no pair": ('ProducerRecord("orders", value, headers=[("name", value, 5)])', "TypeError"),
    "too large": ('ProducerRecord("orders", large)', "KafkaException"),
    "too large, with headers": (
        'ProducerRecord("orders", large, headers=[("name", value)], timestamp=1)',
        "KafkaException",
    ),
    "no such partition": ('ProducerRecord("orders", value, partition=999)', "KafkaException"),
    "no such partition, with headers": (
        'ProducerRecord("orders", value, partition=999, headers=[("name", value)])',
        "KafkaException",
    ),
    "queue full": ('ProducerRecord("full", value, key=value, id=value)', "QueueFullError"),
    "queue full, with headers": (
        'ProducerRecord("full", value, headers=[("name", value)])',
        "QueueFullError",
    ),
    "not callable": ('ProducerRecord("orders", value)', "TypeError", "5"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_hundred_thousand_refused_sends_in_constant_memory(name):
    make, error, *callback = REFUSALS[name]
    done = run_program(
        MEASURE,
        f"""
        def main():
            value, large = bytearray(1000), bytearray(5000)
            def on_delivery(metadata, error):
                raise SystemExit("a refused send was called back")
            def refused(producer, count):
                for _ in range(count):
                    try:
                        producer.send({make}, {callback[0] if callback else "on_delivery"}, action=ActionWhileQueueIsFull.NO_BLOCK)
                    except {error}:
                        continue
                    raise SystemExit("was not refused")
            with EmbeddedBroker(topics={{"orders": 1, "full": 1}}) as broker:
                settings = {{"queue.buffering.max.messages": 1, "linger.ms": 60_000, "message.max.bytes": 4000}}
                with KafkaProducer(broker.config(enable_idempotence=False), **settings) as producer:
                    producer.fetch_broker_metadata("orders")
                    if {"queue full" in name}:
                        producer.send(ProducerRecord("full"))
                    refused(producer, times(10_000))
                    counts = [sys.getrefcount(thing) for thing in (value, large, on_delivery, None)]
                    before = resident()
                    refused(producer, times(100_000))
                    grown = resident() - before
                    after = [sys.getrefcount(thing) for thing in (value, large, on_delivery, None)]
                    assert counts[:3] == after[:3], (counts, after)
                    assert abs(after[3] - counts[3]) < 1000, (counts, after)
                    value.append(0), large.append(0)        # exported to nobody
                    producer.purge()
                    assert producer.metrics().pinned_messages <= 1
            assert not any(_rdkafka.live_objects().values()), _rdkafka.live_objects()
            print(grown)
        main()
        """,
        timeout=120,
    )
    grown_less_than(done, 2_000_000)


def test_failed_and_purged_records_in_constant_memory():
    done = run_program(
        MEASURE,
        """
        import logging
        def main():
            logging.getLogger("kafka_ext").setLevel(logging.ERROR)
            errors = set()
            reports = 0
            def on_delivery(metadata, error):
                nonlocal reports
                reports += 1
                errors.add(error)
            with KafkaProducer(UNREACHABLE) as producer:
                def turn(count):
                    for i in range(count):
                        for _ in range(50):
                            value = bytearray(100)
                            producer.send(ProducerRecord("t", value, key="k", headers=[("a", value)], id=value), on_delivery)
                            producer.send(ProducerRecord("t", value))
                            producer.send(ProducerRecord("t", bytes(100)))
                        producer.purge()
                        producer.flush(20)
                turn(times(200))
                before = resident()
                turn(times(2000))
                grown = resident() - before
                assert reports == (times(200) + times(2000)) * 50
                assert errors == {KafkaError(ErrorCode["PURGE_QUEUE"])}, errors
                assert producer.metrics().pinned_messages == 0
            print(grown)
        main()
        """,
        timeout=120,
    )
    grown_less_than(done, 2_000_000)


def test_two_hundred_producers_leave_nothing():
    done = run_program(
        MEASURE,
        """
        def main():
            with EmbeddedBroker(topics={"orders": 4}) as broker:
                def turn(i):
                    reports = []
                    settings = {"enable.manual.events.poll": i % 2 == 0, "enable.idempotence": False}
                    producer = KafkaProducer(broker.config() | settings)
                    for _ in range(10):
                        producer.send(ProducerRecord("orders", bytearray(b"x")), lambda metadata, error: reports.append(error))
                    if i % 4 < 2:
                        producer.close()
                    else:
                        del producer            # delivers, and ends by itself
                        deadline = time.monotonic() + 10
                        while len(reports) < 10 and time.monotonic() < deadline:
                            time.sleep(0.001)
                    assert reports == [None] * 10
                for i in range(20):
                    turn(i)
                before = settled(threads, 0, 0.5), settled(descriptors, 0, 0.5), resident()
                for i in range(times(200)):
                    turn(i)
                assert settled(threads, before[0]) <= before[0], (threads(), before)
                assert settled(descriptors, before[1]) <= before[1] + 2, (descriptors(), before)     # the broker's own connections
                print(resident() - before[2])
            assert not any(_rdkafka.live_objects().values()), _rdkafka.live_objects()
        main()
        """,
        flags=("-W", "ignore::ResourceWarning"),
        timeout=120,
    )
    grown_less_than(done, 20_000_000)
