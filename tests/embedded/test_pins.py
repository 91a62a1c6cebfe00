"""The value is not copied: pinned from send until its callback has returned, whatever the outcome,
then let go exactly once.
"""

import array
import ctypes
import gc
import mmap
import sys
import weakref

import numpy as np
import pytest

from kafka_ext import (
    ActionWhileQueueIsFull,
    ErrorCode,
    InvalidRecordError,
    KafkaProducer,
    ProducerRecord,
    SendOption,
)

NEVER_DELIVERED = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": ...}


class OnlyDLPack:
    """A CPU tensor with neither buffer protocol nor __array_interface__."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **_):
        return self._array.__dlpack__()

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def pinned(buffer):
    """Whether a bytearray has exports: CPython refuses to resize it then."""
    try:
        buffer.append(0)
    except BufferError:
        return True
    buffer.pop()
    return False


class Watch:
    """A delivery callback that notes whether the buffer was still pinned while it ran."""

    def __init__(self, buffer):
        self.buffer = buffer
        self.pinned = []
        self.errors = []

    def __call__(self, metadata, error):
        self.pinned.append(pinned(self.buffer))
        self.errors.append(error)


def _counts(producer):
    metrics = producer.metrics()
    return metrics.pinned_messages, metrics.pinned_bytes


class TestUntilTheCallbackHasReturned:
    def check(self, producer, end, error=None):
        buffer = bytearray(b"0123456789")
        watch = Watch(buffer)
        producer.send(ProducerRecord("t", buffer), watch)
        assert pinned(buffer)
        assert _counts(producer) == (1, 10)
        end(producer)
        assert watch.pinned == [True]
        assert watch.errors == [error]
        assert not pinned(buffer)
        assert _counts(producer) == (0, 0)

    @pytest.mark.parametrize("manual", [False, True])
    def test_delivered(self, make_producer, manual):
        self.check(
            make_producer({"linger.ms": 1000, "enable.manual.events.poll": manual}),
            lambda producer: producer.flush(10),
        )

    @pytest.mark.parametrize("manual", [False, True])
    def test_timed_out(self, make_producer, manual):
        producer = make_producer(
            NEVER_DELIVERED, message_timeout_ms=100, **{"enable.manual.events.poll": manual}
        )
        self.check(producer, lambda producer: producer.flush(30), ErrorCode.MSG_TIMED_OUT)

    @pytest.mark.parametrize("manual", [False, True])
    def test_purged(self, make_producer, manual):
        def end(producer):
            producer.purge()
            producer.flush(10)

        self.check(
            make_producer(NEVER_DELIVERED, **{"enable.manual.events.poll": manual}),
            end,
            ErrorCode.PURGE_QUEUE,
        )

    @pytest.mark.parametrize("manual", [False, True])
    def test_closed_with_messages_waiting(self, make_producer, manual):
        producer = make_producer(NEVER_DELIVERED, **{"enable.manual.events.poll": manual})
        self.check(producer, lambda producer: producer.close(0), ErrorCode.PURGE_QUEUE)

    def test_refused_at_once_or_reported_by_the_cluster(self, make_producer):
        """A partition that does not exist: which of the two it is depends on what librdkafka knows
        of the topic by then.
        """
        producer = make_producer()
        for _ in range(2):
            buffer = bytearray(b"x")
            watch = Watch(buffer)
            refused = producer.try_send(ProducerRecord("t", buffer, partition=999), watch)
            producer.flush(10)
            assert [refused, *watch.errors] in (
                [None, ErrorCode.UNKNOWN_PARTITION],
                [ErrorCode.UNKNOWN_PARTITION],
            )
            assert all(watch.pinned)
            assert not pinned(buffer)

    def test_the_callback_raised(self, make_producer, unraisable):
        producer = make_producer()
        buffer = bytearray(b"x")

        def raising(metadata, error):
            assert pinned(buffer)
            raise RuntimeError("from the callback")

        producer.send(ProducerRecord("t", buffer), raising)
        producer.flush(10)
        assert not pinned(buffer)
        assert [str(exc) for exc, _ in unraisable] == ["from the callback"]

    @pytest.mark.parametrize("manual", [False, True])
    def test_nobody_listens(self, make_producer, manual):
        producer = make_producer({"linger.ms": 1000, "enable.manual.events.poll": manual})
        buffer = bytearray(b"x")
        producer.send(ProducerRecord("t", buffer))
        assert pinned(buffer)
        producer.flush(10)
        assert not pinned(buffer)
        assert _counts(producer) == (0, 0)

    @pytest.mark.parametrize("manual", [False, True])
    def test_nobody_listens_to_a_failure(self, make_producer, manual):
        producer = make_producer(NEVER_DELIVERED, **{"enable.manual.events.poll": manual})
        buffer = bytearray(b"x")
        producer.send(ProducerRecord("t", buffer))
        producer.purge()
        producer.flush(10)
        assert not pinned(buffer)

    @pytest.mark.parametrize("manual", [False, True])
    def test_sync_send_gives_it_back(self, make_producer, manual):
        """Also when the thread that called back is slow to let go: the switch interval makes it
        lose the GIL all the time.
        """
        producer = make_producer({"enable.manual.events.poll": manual})
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(500):
                buffer = bytearray(b"x")
                producer.sync_send(ProducerRecord("t", buffer), timeout=10)
                assert not pinned(buffer)
        finally:
            sys.setswitchinterval(interval)

    def test_sync_send_that_timed_out_keeps_it_pinned(self, make_producer):
        producer = make_producer(NEVER_DELIVERED)
        buffer = bytearray(b"x")
        with pytest.raises(TimeoutError):
            producer.sync_send(ProducerRecord("t", buffer), timeout=0.05)
        assert pinned(buffer)
        producer.close(0)
        assert not pinned(buffer)


class TestExactlyOnce:
    def test_the_same_buffer_many_times(self, make_producer, reports):
        producer = make_producer({"linger.ms": 1000})
        buffer = bytearray(b"x" * 10)
        for _ in range(1000):
            producer.send(ProducerRecord("t", buffer), reports)
        assert _counts(producer) == (1000, 10000)
        producer.flush(10)
        reports.wait(1000)
        assert _counts(producer) == (0, 0)
        assert not pinned(buffer)

    @pytest.mark.parametrize(
        "value",
        [b"a value of its own" * 3, "str of ascii" * 3, "stråle" * 3],
        ids=["bytes", "ASCII", "UTF-8"],
    )
    @pytest.mark.parametrize("listening", [True, False])
    def test_references_come_back_to_what_they_were(self, make_producer, reports, value, listening):
        producer = make_producer({"linger.ms": 1000})
        value = value[:-1]  # a new object, not a constant
        before = sys.getrefcount(value)
        for _ in range(50):
            producer.send(ProducerRecord("t", value), reports if listening else None)
        assert sys.getrefcount(value) == before + 50
        producer.flush(10)
        reports.clear()
        assert sys.getrefcount(value) == before

    def test_references_of_callback_and_id_and_headers_come_back(self, make_producer):
        producer = make_producer()

        class Thing:
            pass

        def callback(metadata, error):
            pass

        record_id, header = Thing(), b"header"[:-1]
        things = [weakref.ref(callback), weakref.ref(record_id)]
        before = sys.getrefcount(header)
        producer.send(ProducerRecord("t", b"x", id=record_id, headers=[("a", header)]), callback)
        producer.flush(10)
        del callback, record_id
        gc.collect()
        assert [thing() for thing in things] == [None, None]
        assert sys.getrefcount(header) == before

    def test_a_refused_send_keeps_no_reference(self, make_producer):
        producer = make_producer()
        value, key = b"value"[:-1], b"key"[:-1]
        before = sys.getrefcount(value), sys.getrefcount(key)

        def callback(metadata, error):
            raise AssertionError

        watched = weakref.ref(callback)
        for headers in ([("a", 5)], 5, [("a\0", b"")]):
            with pytest.raises((TypeError, ValueError)):
                producer.send(ProducerRecord("t", value, key=key, headers=headers), callback)
        del callback
        assert (sys.getrefcount(value), sys.getrefcount(key)) == before
        assert watched() is None


class TestExporters:
    """Every kind of exporter: its own way of saying that it is in use, and its own way of being
    free again.
    """

    def round_trip(self, make_producer, buffer, free):
        producer = make_producer({"linger.ms": 1000})
        got = []
        producer.send(
            ProducerRecord("t", buffer),
            lambda metadata, error: got.append((metadata.value_size, error)),
        )
        with pytest.raises(BufferError):
            free()
        producer.flush(10)
        free()
        return got

    def test_bytearray(self, make_producer):
        buffer = bytearray(b"abc")
        assert self.round_trip(make_producer, buffer, lambda: buffer.extend(b"more")) == [(3, None)]

    def test_memoryview(self, make_producer):
        view = memoryview(bytearray(b"abcdef"))[1:4]
        assert self.round_trip(make_producer, view, view.release) == [(3, None)]

    def test_a_two_dimensional_memoryview(self, make_producer):
        view = memoryview(bytes(12)).cast("B", (3, 4))
        assert self.round_trip(make_producer, view, view.release) == [(12, None)]

    def test_array(self, make_producer):
        buffer = array.array("i", [1, 2, 3])
        assert self.round_trip(make_producer, buffer, lambda: buffer.append(4)) == [(12, None)]

    def test_mmap(self, make_producer):
        buffer = mmap.mmap(-1, 4096)
        assert self.round_trip(make_producer, buffer, buffer.close) == [(4096, None)]

    def test_numpy(self, make_producer):
        """NumPy counts no exports, its memory is kept by references alone."""
        producer = make_producer({"linger.ms": 1000})
        buffer = np.arange(10, dtype=np.int64)
        before = sys.getrefcount(buffer)
        done = producer.send_future(ProducerRecord("t", buffer))
        assert sys.getrefcount(buffer) > before
        producer.flush(10)
        assert done.result(0).value_size == 80
        assert sys.getrefcount(buffer) == before

    def test_numpy_of_two_dimensions(self, make_producer, producer):
        assert (
            producer.sync_send(
                ProducerRecord("t", np.zeros((3, 5), np.float32)), timeout=10
            ).value_size
            == 60
        )

    def test_numpy_empty(self, producer):
        assert producer.sync_send(ProducerRecord("t", np.empty((0, 3))), timeout=10).value_size == 0

    def test_ctypes(self, producer):
        buffer = (ctypes.c_int32 * 5)(1, 2, 3, 4, 5)
        watched = weakref.ref(buffer)
        done = producer.send_future(ProducerRecord("t", buffer))
        del buffer
        assert done.result(10).value_size == 20
        producer.flush(10)
        assert watched() is None

    def test_only_dlpack(self, make_producer):
        producer = make_producer({"linger.ms": 1000})
        data = np.arange(6, dtype=np.int16)
        before = sys.getrefcount(data)
        done = producer.send_future(ProducerRecord("t", OnlyDLPack(data)))
        assert sys.getrefcount(data) > before
        producer.flush(10)
        assert done.result(0).value_size == 12
        assert sys.getrefcount(data) == before

    def test_only_dlpack_not_contiguous(self, producer):
        with pytest.raises(InvalidRecordError, match="contiguous"):
            producer.send(ProducerRecord("t", OnlyDLPack(np.arange(12).reshape(3, 4)[:, 1])))

    def test_dlpack_as_a_key_and_a_header(self, producer):
        tensor = OnlyDLPack(np.arange(6, dtype=np.int16))
        metadata = producer.sync_send(
            ProducerRecord("t", b"", key=tensor, headers=[("tensor", tensor)]), timeout=10
        )
        assert metadata.key_size == 12
        assert metadata.headers == [("tensor", np.arange(6, dtype=np.int16).tobytes())]

    def test_bytes_subclass(self, producer):
        class Octets(bytes):
            def __len__(self):
                return 1000  # what it says is not what it is

        assert producer.sync_send(ProducerRecord("t", Octets(b"abc")), timeout=10).value_size == 3

    def test_str_subclass(self, producer):
        class Text(str):
            __slots__ = ()

        assert producer.sync_send(ProducerRecord("t", Text("né")), timeout=10).value_size == 3

    def test_a_value_nobody_else_keeps(self, producer, reports):
        """The producer's own reference is the only one."""
        for size in (0, 1, 1000, 100_000):
            producer.send(ProducerRecord("t", bytearray(size)), reports)
            producer.send(ProducerRecord("t", bytes(size)), reports)
            producer.send(ProducerRecord("t", "é" * size), reports)
        gc.collect()
        producer.flush(10)
        sizes = [metadata.value_size for metadata, _ in reports]
        assert sorted(sizes) == sorted(
            size for n in (0, 1, 1000, 100_000) for size in (n, n, 2 * n)
        )


class TestToCopy:
    @pytest.mark.parametrize("size", [0, 1, 1000, 65535, 65536, 500_000])
    def test_the_buffer_is_free_when_send_returns(self, make_producer, reports, size):
        producer = make_producer({"linger.ms": 1000})
        buffer = bytearray(size)
        producer.send(ProducerRecord("t", buffer), reports, option=SendOption.TO_COPY_RECORD_VALUE)
        assert not pinned(buffer)
        assert _counts(producer) == (0, 0)
        producer.flush(10)
        assert [metadata.value_size for metadata, _ in reports] == [size]

    def test_no_reference_is_kept(self, make_producer):
        producer = make_producer({"linger.ms": 1000})
        value = b"value"[:-1]
        before = sys.getrefcount(value)
        producer.send(ProducerRecord("t", value), option=SendOption.TO_COPY_RECORD_VALUE)
        assert sys.getrefcount(value) == before

    @pytest.mark.parametrize("call", ["send", "try_send", "send_future"])
    def test_every_call_that_takes_the_option(self, make_producer, call):
        producer = make_producer({"linger.ms": 1000})
        buffer = bytearray(b"x")
        getattr(producer, call)(ProducerRecord("t", buffer), option=SendOption.TO_COPY_RECORD_VALUE)
        assert not pinned(buffer)
        producer.flush(10)


class TestKeysAndHeaders:
    def test_are_free_when_send_returns(self, make_producer, reports):
        producer = make_producer({"linger.ms": 1000})
        key, header = bytearray(b"key"), bytearray(b"header")
        producer.send(ProducerRecord("t", b"v", key=key, headers=[("h", header)]), reports)
        assert not pinned(key)
        assert not pinned(header)
        key[:] = b"longer than before"
        header[:] = b"xxxxxx"
        producer.flush(10)
        assert reports[0][0].key_size == 3
        assert reports[0][0].headers == [("h", b"header")]

    def test_closing_without_a_timeout_waits_for_all(self, reports):
        buffer = bytearray(b"x")
        with KafkaProducer({"test.mock.num.brokers": 1, "linger.ms": 50}) as producer:
            producer.send(ProducerRecord("t", buffer), reports)
        assert reports.errors == [None]
        assert not pinned(buffer)


COLUMNS = {
    "bytes": (lambda: [b"one", None, b"", b"four"], 3, 7),
    "anything": (lambda: ["one", None, bytearray(b"three"), memoryview(b"four")], 3, 12),
    "rows": (lambda: memoryview(bytearray(12)).cast("B", (3, 4)), 3, 12),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_what_a_batch_pins_is_counted_until_its_last_report(make_producer, name):
    """As a record's value, null ones not; and in the same two counts."""
    make_column, messages, size = COLUMNS[name]
    producer = make_producer({"linger.ms": 60_000})
    producer.send(ProducerRecord("t", b"0123456789"))
    batch = producer.send_batch("t", make_column())
    other = producer.send_batch("t", make_column())
    metrics = producer.metrics()
    assert (metrics.pinned_messages, metrics.pinned_bytes) == (1 + 2 * messages, 10 + 2 * size)
    producer.flush(20)
    batch.wait(20)
    other.wait(20)
    metrics = producer.metrics()
    assert (metrics.pinned_messages, metrics.pinned_bytes) == (0, 0)


def test_a_copied_batch_pins_nothing(make_producer):
    producer = make_producer({"linger.ms": 60_000})
    producer.send_batch("t", [b"one", bytearray(b"two")], option=SendOption.TO_COPY_RECORD_VALUE)
    assert (producer.metrics().pinned_messages, producer.metrics().pinned_bytes) == (0, 0)


def test_a_batch_that_is_refused_pins_nothing_in_the_end(make_producer):
    producer = make_producer({"linger.ms": 60_000, "queue.buffering.max.messages": 2})
    batch = producer.send_batch("t", [b"x"] * 5, action=ActionWhileQueueIsFull.NO_BLOCK)
    assert (producer.metrics().pinned_messages, producer.metrics().pinned_bytes) == (
        2,
        2,
    )  # those that found no room are not on their way
    producer.purge()
    batch.wait(20)
    assert (producer.metrics().pinned_messages, producer.metrics().pinned_bytes) == (0, 0)


def test_the_chunks_of_a_table_are_counted(make_producer):
    pyarrow = pytest.importorskip("pyarrow")
    producer = make_producer({"linger.ms": 60_000})
    table = pyarrow.table({"v": pyarrow.chunked_array([["one", None], ["three"]])})
    batch = producer.send_table(table, topic="t", value="v")
    assert (producer.metrics().pinned_messages, producer.metrics().pinned_bytes) == (2, 8)
    producer.flush(20)
    batch.wait(20)
    assert (producer.metrics().pinned_messages, producer.metrics().pinned_bytes) == (0, 0)
