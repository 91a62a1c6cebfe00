"""Batches when something goes wrong: each message is delivered or in errors() by its index, and
what was pinned is let go once.
"""

import gc
import threading
import time
import weakref

import pytest
from batchlib import Rows, delivered, fresh_topic
from faultlib import interrupt_after, is_pinned, run_program

from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    KafkaException,
    KafkaProducer,
    ProducerClosedError,
    SendOption,
    _rdkafka,
)
from kafka_ext.testing import ApiKey

pa = pytest.importorskip("pyarrow")

UNREACHABLE = {
    "bootstrap.servers": "127.0.0.1:1",
    "test.mock.num.brokers": ...,
    "log_level": 0,
    "error_cb": lambda error: None,
}
SMALL_QUEUE = {"queue.buffering.max.messages": 1000}


def at(broker, **settings):
    """A producer's settings for `broker` instead of a mock cluster of its own."""
    return broker.config(**settings) | {"test.mock.num.brokers": ...}


def check_every_index_once(batch):
    """`(accepted, refused)`: the indices of both, which are all there are."""
    refused = [index for index, _ in batch.errors()]
    assert refused == sorted(set(refused))
    assert len(refused) == batch.failed
    accepted = [i for i, offset in enumerate(batch.offsets) if offset >= 0]
    assert sorted([*accepted, *refused]) == list(range(len(batch)))
    return accepted, refused


# ---------------------------------------------------------------------- errors by index


def test_too_large_ones(kafka_broker, make_producer):
    topic = fresh_topic(kafka_broker)
    producer = make_producer(at(kafka_broker, **{"message.max.bytes": 2000}))
    values = [b"x" * 3000 if i in (0, 5, 1024, 1025, 2999) else b"%d" % i for i in range(3000)]
    batch = producer.send_batch(topic, values)
    batch.wait(20)
    assert [index for index, _ in batch.errors()] == [0, 5, 1024, 1025, 2999]
    assert {error.code for _, error in batch.errors()} == {ErrorCode.MSG_SIZE_TOO_LARGE}
    with pytest.raises(KafkaException, match="5 of 3000 records failed; the first, at index 0"):
        batch.raise_for_errors()
    assert Rows(kafka_broker, topic, 2995).values == [
        value for value in values if len(value) < 3000
    ]


@pytest.mark.kafka_broker(topics={"t": 3})
def test_requests_that_fail_for_good_and_those_that_are_retried(kafka_broker, make_producer):
    """The broker refuses one request for good, and then some that are retried: order is kept,
    nothing doubled.
    """
    producer = make_producer(at(kafka_broker, **{"max.in.flight": 1, "retry.backoff.ms": 10}))
    kafka_broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.MSG_SIZE_TOO_LARGE])
    first = producer.send_batch("t", [b"%d" % i for i in range(100)], partitions=0)
    first.wait(20)
    assert {error.code for _, error in first.errors()} == {ErrorCode.MSG_SIZE_TOO_LARGE}
    done = len(check_every_index_once(first)[0])
    kafka_broker.fail_requests(
        ApiKey.PRODUCE, [ErrorCode.NOT_LEADER_FOR_PARTITION, ErrorCode.REQUEST_TIMED_OUT]
    )
    delivered(producer.send_batch("t", [b"%d" % i for i in range(1000)], partitions=1))
    rows = Rows(kafka_broker, "t", 1000 + done)
    assert [int(row.value) for row in rows if row.partition == 1] == list(range(1000))


def test_message_timeout(make_producer):
    producer = make_producer(UNREACHABLE | {"message.timeout.ms": 300})
    called = []
    batch = producer.send_batch("t", [b"x"] * 5000, on_delivery=called.append)
    batch.wait(20)
    assert called == [batch]
    assert [index for index, _ in batch.errors()] == list(range(5000))
    assert {error.code for _, error in batch.errors()} == {ErrorCode.MSG_TIMED_OUT}
    assert set(batch.offsets) == {-1}


def test_a_fatal_error_is_in_the_errors(make_producer):
    producer = make_producer(UNREACHABLE | {"enable.idempotence": True})
    producer.handle.test_fatal_error(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "made for this test")
    batch = producer.send_batch("t", [b"x"] * 10)
    batch.wait(20)
    assert len(batch.errors()) == 10
    assert all(
        error.is_fatal and "made for this test" in error.message for _, error in batch.errors()
    )


def test_unheard_failures_are_logged_once(make_producer, caplog):
    producer = make_producer(UNREACHABLE)
    batch = producer.send_batch("t", [b"x"] * 10)
    producer.purge()
    batch.wait(20)
    producer.flush(5)
    assert [record.message for record in caplog.records if "not delivered" in record.message] == [
        "kafka_ext: 10 of 10 records of a batch to t not delivered, and no callback to tell:"
        " PURGE_QUEUE: Local: Purged in queue"
    ]


# ---------------------------------------------------------------------- a full queue


@pytest.mark.parametrize("option", SendOption)
def test_larger_than_the_queue(kafka_broker, make_producer, option):
    """With an events thread it waits for room, as often as it takes; order and number are kept."""
    topic = fresh_topic(kafka_broker, partitions=4)
    producer = make_producer(at(kafka_broker, **SMALL_QUEUE))
    partitions = [i * 31 % 4 for i in range(30_000)]
    for keywords in (
        {},
        {"partitions": partitions},
        {"headers": {"h": b""}, "partitions": partitions},
    ):
        before = len(kafka_broker.messages(topic))
        delivered(
            producer.send_batch(
                topic, [b"%d" % i for i in range(30_000)], option=option, **keywords
            )
        )
        rows = Rows(kafka_broker, topic, before + 30_000)
        last = {}
        for row in rows:
            last.setdefault(row.partition, []).append(int(row.value))
        if keywords:
            assert {p: seen[-len(range(30_000)) // 4 :] for p, seen in last.items()} == {
                p: [i for i in range(30_000) if partitions[i] == p] for p in range(4)
            }
    assert producer.metrics().blocked_seconds > 0


@pytest.mark.parametrize(
    "partitions", [None, [i % 3 for i in range(5000)]], ids=["partitioner", "partitions"]
)
@pytest.mark.parametrize(
    ("keywords", "settings", "code"),
    [
        ({"timeout": 0.2}, {}, ErrorCode.TIMED_OUT),
        ({"action": ActionWhileQueueIsFull.NO_BLOCK}, {}, ErrorCode.QUEUE_FULL),
        ({}, {"enable.manual.events.poll": True}, ErrorCode.QUEUE_FULL),
    ],
    ids=["timeout", "no block", "manual polling"],
)
def test_what_finds_no_room_is_in_the_errors(make_producer, keywords, settings, code, partitions):
    producer = make_producer(UNREACHABLE | SMALL_QUEUE | settings)
    values = [bytearray(b"x") for _ in range(5000)]
    started = time.monotonic()
    batch = producer.send_batch("t", values, partitions=partitions, **keywords)
    assert time.monotonic() - started < 5
    refused = {index for index, error in batch.errors() if error.code == code}
    assert len(refused) == batch.failed == 4000
    assert refused >= set(range(1024, 5000))
    assert batch.pending == 1000
    assert all(
        map(is_pinned, values)
    )  # as one: the column is let go when the last message of it is reported
    producer.purge()
    assert batch.wait(20)
    assert [index for index, _ in batch.errors()] == list(range(5000))
    producer.flush(5)
    assert not any(map(is_pinned, values))


def test_in_a_callback_it_never_waits(make_producer):
    producer = make_producer(SMALL_QUEUE)
    inner = []
    batch = producer.send_batch(
        "t", [b"x"], on_delivery=lambda batch: inner.append(producer.send_batch("t", [b"y"] * 5000))
    )
    batch.wait(20)
    producer.flush(20)
    _, refused = check_every_index_once(inner[0])
    assert len(refused) >= 1
    assert {error.code for _, error in inner[0].errors()} == {ErrorCode.QUEUE_FULL}


def test_ctrl_c_in_the_middle(make_producer):
    producer = make_producer(UNREACHABLE | SMALL_QUEUE)
    values = [bytearray(b"x") for _ in range(5000)]
    called = []
    timer = interrupt_after(0.3)
    with pytest.raises(KeyboardInterrupt) as caught:
        producer.send_batch("t", values, on_delivery=called.append)
    timer.join()
    batch = caught.value.batch
    assert (len(batch), batch.failed, batch.pending) == (5000, 4000, 1000)
    assert {error.code for _, error in batch.errors()} == {ErrorCode.INTR}
    assert not called
    producer.purge()
    batch.wait(20)
    assert called == [batch]
    producer.flush(5)
    assert not any(map(is_pinned, values))


def test_ctrl_c_in_the_middle_of_a_stream(make_producer):
    """The chunks are small, so that no single one is ever waited for."""
    producer = make_producer()
    schema = pa.schema({"v": pa.string()})
    # Made before: the first one has pyarrow import pandas, where an interrupt gets lost, and then
    # nothing would end the stream.
    rows = pa.record_batch({"v": ["x"] * 3})
    end = (
        time.monotonic() + 30
    )  # nor may it go on, and fill the memory, should the interrupt be lost elsewhere
    source = pa.RecordBatchReader.from_batches(
        schema, iter(lambda: rows if time.monotonic() < end else None, None)
    )
    timer = interrupt_after(0.3)
    with pytest.raises(
        (KeyboardInterrupt, ValueError)
    ) as caught:  # pyarrow makes an error of the stream's of one it sees itself
        producer.send_table(source, topic="t", value="v")
    timer.join()
    batch = caught.value.batch
    batch.wait(20)
    check_every_index_once(batch)


# ---------------------------------------------------------------------- close, purge, drop, exit,
# fork


def test_close_from_another_thread(make_producer):
    producer = make_producer(UNREACHABLE | SMALL_QUEUE)
    values = [bytearray(b"x") for _ in range(5000)]
    called = []
    closer = threading.Timer(0.3, producer.close, [0.1])
    closer.start()
    batch = producer.send_batch("t", values, on_delivery=called.append)
    closer.join()
    assert called == [batch]
    assert batch.done()
    assert batch.wait(0) is True
    codes = [error.code for _, error in batch.errors()]
    assert (len(codes), codes.count(ErrorCode.STATE), codes.count(ErrorCode.PURGE_QUEUE)) == (
        5000,
        4000,
        1000,
    )
    assert not any(map(is_pinned, values))
    with pytest.raises(ProducerClosedError):
        producer.send_batch("t", values)


def test_close_and_purge_race_with_batches():
    for attempt in range(10):
        producer = KafkaProducer(
            {"test.mock.num.brokers": 1, "enable.idempotence": False, "linger.ms": 0, **SMALL_QUEUE}
        )
        batches, called = [], []

        def sending(producer=producer, batches=batches, called=called):
            while True:
                try:
                    batches.append(
                        producer.send_batch(
                            "t", [bytearray(b"x") for _ in range(1500)], on_delivery=called.append
                        )
                    )
                except ProducerClosedError as error:  # noqa: PERF203
                    if hasattr(error, "batch"):
                        batches.append(error.batch)
                    return

        threads = [threading.Thread(target=sending) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.02 * attempt)
        producer.purge()
        producer.close(0.05)
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert all(batch.done() for batch in batches)
        assert sorted(map(id, called)) == sorted(id(batch) for batch in batches if len(batch))
        for batch in batches:
            check_every_index_once(batch)


@pytest.mark.parametrize("ending", ["delivered", "purged", "timed out", "closed"])
@pytest.mark.parametrize("form", ["list", "rows", "array", "table"])
def test_columns_are_let_go_once_it_is_over(make_producer, form, ending):
    """And not before, whoever else still knows of the batch."""
    settings = {
        "delivered": {"linger.ms": 300},
        "timed out": UNREACHABLE | {"message.timeout.ms": 300},
    }.get(ending, UNREACHABLE)
    producer = make_producer(settings)
    memory = bytearray(b"abcdefgh" * 10)
    if form == "list":
        batch = producer.send_batch("t", [memory] * 10, keys=[memory] * 10)
    elif form == "rows":
        batch = producer.send_batch("t", memoryview(memory).cast("B", (10, 8)))
    else:
        column = pa.Array.from_buffers(pa.binary(8), 10, [None, pa.py_buffer(memory)])
        table = pa.table({"v": column})
        batch = (
            producer.send_batch("t", column)
            if form == "array"
            else producer.send_table(table, topic="t", value="v")
        )
        del table
        del column
    assert is_pinned(memory)
    if ending == "purged":
        producer.purge()
    if ending == "closed":
        producer.close(0)
    batch.wait(20)
    if ending != "closed":
        producer.flush(5)
    gc.collect()
    assert batch.done()
    assert not is_pinned(memory)


def test_a_copied_column_is_free_at_once(make_producer):
    producer = make_producer(UNREACHABLE)
    memory = bytearray(b"abcdefgh" * 10)
    producer.send_batch("t", [memory] * 3, option=SendOption.TO_COPY_RECORD_VALUE)
    column = pa.Array.from_buffers(pa.binary(8), 10, [None, pa.py_buffer(memory)])
    producer.send_table(
        pa.table({"v": column}), topic="t", value="v", option=SendOption.TO_COPY_RECORD_VALUE
    )
    del column
    gc.collect()
    assert not is_pinned(memory)
    producer.purge()


def test_each_chunk_of_a_stream_is_let_go_by_itself(make_producer):
    producer = make_producer()
    memory = [bytearray(b"abcdefgh" * 10) for _ in range(3)]
    released = []

    def chunks():
        for content in memory:
            yield pa.record_batch(
                {"v": pa.Array.from_buffers(pa.binary(8), 10, [None, pa.py_buffer(content)])}
            )
            producer.flush(10)
            released.append([is_pinned(chunk) for chunk in memory])

    reader = pa.RecordBatchReader.from_batches(pa.schema({"v": pa.binary(8)}), chunks())
    delivered(producer.send_table(reader, topic="t", value="v"))
    assert [row[0] for row in released[1:]] == [False, False]


def test_nothing_of_a_batch_is_kept_once_nobody_has_it(make_producer):
    """Without the help of the collector: there is no cycle that would keep the offsets of millions
    of messages waiting for it.
    """
    producer = make_producer()
    gc.collect()
    gc.disable()
    try:
        batch = producer.send_batch("t", [b"x"] * 100)
        delivered(batch)
        producer.flush(10)
        gone = weakref.ref(batch)
        del batch
        deadline = time.monotonic() + 5
        while gone() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert gone() is None
    finally:
        gc.enable()


def test_dropped_with_a_batch_in_flight(recwarn):
    called = []
    producer = KafkaProducer(
        {"test.mock.num.brokers": 1, "enable.idempotence": False, "linger.ms": 100}
    )
    batch = producer.send_batch(
        "t", [bytearray(b"x") for _ in range(1000)], on_delivery=called.append
    )
    del producer
    gc.collect()
    delivered(batch)
    assert called == [batch]
    assert [warning.category for warning in recwarn] == [ResourceWarning]


def test_exit_with_a_batch_in_flight():
    done = run_program("""
        producer = KafkaProducer({**QUICK, "linger.ms": 200})
        def on_delivery(batch):
            print(len(batch), batch.failed, batch.pending)

        producer.send_batch("t", [bytearray(b"x") for _ in range(1000)], on_delivery=on_delivery)
        """)
    assert done.stdout == "1000 0 0\n"


def test_fork_with_a_batch_in_flight():
    done = run_program(
        """
        producer = KafkaProducer({**QUICK, "linger.ms": 300})
        called = []
        batch = producer.send_batch("t", [bytearray(b"x") for _ in range(1000)], on_delivery=called.append)
        child = os.fork()
        if not child:
            outcomes = []
            for call in (batch.wait, lambda: producer.send_batch("t", [b"x"])):
                try:
                    call()
                except ProducerForkedError:
                    outcomes.append(True)
            os._exit(0 if outcomes == [True, True] and len(batch) == 1000 and batch.errors() == [] and not called else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        batch.wait(20)
        assert (batch.failed, called) == (0, [batch])
        producer.close()
        """,
        flags=[
            "-W",
            "ignore::DeprecationWarning",
        ],  # from 3.12 on: forking with threads is what this is about
    )
    assert not done.stderr


# ---------------------------------------------------------------------- callbacks and threads


def test_a_callback_that_raises(make_producer, unraisable):
    def raising(batch):
        raise RuntimeError("from the callback")

    producer = make_producer()
    later = []
    batch = producer.send_batch("t", [b"x"] * 10, on_delivery=raising)
    batch.add_done_callback(raising)
    batch.add_done_callback(later.append)
    delivered(batch)
    producer.flush(10)
    assert later == [batch]
    assert {str(error) for error, _ in unraisable} == {"from the callback"}


def test_a_callback_that_raises_under_manual_polling(manual):
    def raising(batch):
        raise RuntimeError("from the callback")

    batch = manual.send_batch("t", [b"x"] * 10, on_delivery=raising)
    with pytest.raises(RuntimeError, match="from the callback"):
        batch.wait(20)
    assert batch.wait(20) is True
    assert batch.done()


def test_errors_read_by_many_threads_while_more_fail(make_producer):
    """Each reader makes Python objects of what another thread is adding to."""
    producer = make_producer(UNREACHABLE | SMALL_QUEUE)
    batch = producer.send_batch("t", [b"x"] * 20_000, action=ActionWhileQueueIsFull.NO_BLOCK)
    stop = threading.Event()

    def reading():
        while not stop.is_set():
            errors = batch.errors()
            assert len(errors) >= 19_000

    readers = [threading.Thread(target=reading) for _ in range(4)]
    for reader in readers:
        reader.start()
    time.sleep(0.1)
    producer.purge()
    batch.wait(20)
    stop.set()
    for reader in readers:
        reader.join(20)
        assert not reader.is_alive()
    assert len(batch.errors()) == 20_000


def test_many_threads_send_batches(kafka_broker, make_producer):
    topic = fresh_topic(kafka_broker, partitions=4)
    producer = make_producer(at(kafka_broker, **SMALL_QUEUE))
    batches = []

    def sending(number):
        for i in range(10):
            batches.append(  # noqa: PERF401
                producer.send_batch(topic, [b"%d %d %d" % (number, i, j) for j in range(500)])
            )

    threads = [threading.Thread(target=sending, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for batch in batches:
        delivered(batch)
    rows = Rows(kafka_broker, topic, 20_000)
    assert set(rows.values) == {
        b"%d %d %d" % (n, i, j) for n in range(4) for i in range(10) for j in range(500)
    }
    assert _rdkafka.live_objects()["batches"] == 0


# ---------------------------------------------------------------------- memory


@pytest.mark.parametrize("one", [b"x", "x"], ids=["bytes", "str"])
def test_no_more_than_64_bytes_a_message(one):
    """Beyond what librdkafka takes: the queue is small, so that two million messages wait in the
    batch.
    """
    done = run_program(
        f"""
        import resource
        values = [{one!r}] * 2_000_000
        """
        """
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        def tell():
            print((peak() - before) / len(values), flush=True)
            os._exit(0)

        producer = KafkaProducer({**UNREACHABLE, "queue.buffering.max.messages": 1000})
        producer.send_batch("t", values[:1000], action=ActionWhileQueueIsFull.NO_BLOCK)
        before = peak()
        threading.Timer(1.0, tell).start()
        producer.send_batch("t", values)
        """
    )
    assert float(done.stdout) <= 64
