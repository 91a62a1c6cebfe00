"""What the caller's memory and arguments can do, and allocations that fail."""

import array
import gc
import mmap
import multiprocessing.shared_memory
import sys
import tempfile

import pytest
from faultlib import Outcomes, is_pinned, run_program

from kafka_ext import ErrorCode, InvalidRecordError, KafkaException, ProducerRecord, SendOption
from kafka_ext.testing import EmbeddedBroker

LINGER = {"linger.ms": 5000}  # in flight until flushed


def test_fault_24_bytearray_resized_in_flight(make_producer, reports):
    producer = make_producer(LINGER)
    value = bytearray(b"a value")
    resized_in_callback = []

    def on_delivery(metadata, error):
        reports(metadata, error)
        resized_in_callback.append(not is_pinned(value))

    producer.send(ProducerRecord("t", value), on_delivery)
    for resize in (value.clear, lambda: value.extend(b"x"), lambda: value.__delitem__(0)):
        with pytest.raises(BufferError):
            resize()
    assert value == b"a value"
    producer.flush(10)
    assert reports.errors == [None]
    assert resized_in_callback == [False]  # released once the callback has returned
    value.extend(b", longer")


def test_fault_24_copied_bytearray_is_free_at_once(make_producer, reports):
    producer = make_producer(LINGER)
    value = bytearray(b"a value")
    producer.send(ProducerRecord("t", value), reports, option=SendOption.TO_COPY_RECORD_VALUE)
    value.clear()
    producer.flush(10)
    assert reports[0][0].value_size == 7


def test_fault_25_buffer_changed_in_flight(make_producer):
    """The caller's race, as documented: the value is read when the request is made. A copy is what
    it was.
    """
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = make_producer({"test.mock.num.brokers": ...} | broker.config() | LINGER)
        pinned, copied = bytearray(b"before"), bytearray(b"before")
        producer.send(ProducerRecord("orders", pinned))
        producer.send(ProducerRecord("orders", copied), option=SendOption.TO_COPY_RECORD_VALUE)
        pinned[:] = copied[:] = b"after!"
        producer.flush(10)
        assert [message.value for message in broker.messages("orders", 2)] == [b"after!", b"before"]


@pytest.mark.skipif(
    sys.platform != "linux", reason="what a truncated file's pages do is the system's own"
)
@pytest.mark.parametrize(
    ("option", "survives"), [("NO_COPY_RECORD_VALUE", False), ("TO_COPY_RECORD_VALUE", True)]
)
def test_fault_26_mmap_of_a_file_that_is_truncated(option, survives):
    """SIGBUS, which no library can turn into anything else; documented: copy what is in such
    memory.
    """
    done = run_program(
        """
        import faulthandler, mmap, resource, tempfile
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        file = tempfile.TemporaryFile()
        file.truncate(1 << 16)
        memory = mmap.mmap(file.fileno(), 1 << 16)
        producer = KafkaProducer(QUICK, **{"linger.ms": 5000})
        producer.send(ProducerRecord("t", memory), option=SendOption[sys.argv[1]])
        file.truncate(0)
        producer.close()
        """,
        arguments=[option],
        check=False,
    )
    assert (done.returncode == 0) is survives, done.stderr
    if not survives:
        assert done.returncode == -7  # SIGBUS


def test_fault_27_mmap_closed_while_held(make_producer, reports):
    producer = make_producer(LINGER)
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 100)
        file.flush()
        memory = mmap.mmap(file.fileno(), 100, access=mmap.ACCESS_READ)
        producer.send(ProducerRecord("t", memory), reports)
        with pytest.raises(BufferError):
            memory.close()
        producer.flush(10)
        assert reports[0][0].value_size == 100
        memory.close()


def test_fault_27_shared_memory_closed_while_held(make_producer, reports):
    producer = make_producer(LINGER)
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=100)
    try:
        producer.send(ProducerRecord("t", memory.buf), reports)
        with pytest.raises(BufferError):
            memory.close()
        producer.flush(10)
        assert reports.errors == [None]
    finally:
        memory.close()
        memory.unlink()


def test_fault_27_array_and_memoryview_while_held(make_producer):
    producer = make_producer(LINGER)
    numbers, view = array.array("q", range(10)), memoryview(bytearray(100))
    producer.send(ProducerRecord("t", numbers))
    producer.send(ProducerRecord("t", view))
    with pytest.raises(BufferError):
        numbers.append(1)
    with pytest.raises(BufferError):
        view.release()
    producer.flush(10)
    numbers.append(1)
    view.release()


def test_fault_28_strided_memory(make_producer):
    numpy = pytest.importorskip("numpy")
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = make_producer({"test.mock.num.brokers": ...} | broker.config())
        grid = numpy.arange(24, dtype="u1").reshape(4, 6)
        strided = [memoryview(bytes(range(10)))[::2], grid[:, 2], grid.T, memoryview(b"abc")[::-1]]
        for value in strided:
            before = sys.getrefcount(value)
            for record in (
                ProducerRecord("orders", value),
                ProducerRecord("orders", b"", key=value),
                ProducerRecord("orders", b"", headers=[("name", value)]),
            ):
                with pytest.raises(InvalidRecordError):
                    producer.send(record, pytest.fail)
                assert producer.try_send(record, pytest.fail) == ErrorCode.INVALID_ARG
            del record
            assert sys.getrefcount(value) == before
        contiguous = [
            memoryview(bytes(range(10)))[2:8],
            grid[1],
            grid,
            memoryview(grid)[1:3],
            array.array("d", [1.5]),
        ]
        for value in contiguous:
            producer.send(ProducerRecord("orders", value))
        producer.flush(10)
        assert [message.value for message in broker.messages("orders", 5)] == [
            bytes(range(2, 8)),
            grid[1].tobytes(),
            grid.tobytes(),
            grid[1:3].tobytes(),
            array.array("d", [1.5]).tobytes(),
        ]


def test_fault_33_nul_in_names(make_producer):
    producer = make_producer()
    value = bytearray(b"x")
    for record in (
        ProducerRecord("t\0t", value),
        ProducerRecord("\0", value),
        ProducerRecord("t", value, headers=[("fine", b""), ("na\0me", b"")]),
        ProducerRecord("t", value, headers={"\0": b""}),
    ):
        with pytest.raises(ValueError):
            producer.send(record, pytest.fail)
        assert producer.try_send(record, pytest.fail) is not None
    assert not is_pinned(value)
    producer.sync_send(
        ProducerRecord("t", b"x\0y", key=b"\0", headers=[("name", b"\0")]), timeout=10
    )


@pytest.mark.parametrize(
    "topic", ["", ".", "..", "a b", "a/b", "ä", "t\n", "a" * 250, "a:b", "a,b", "\U0001f600"]
)
def test_fault_34_bad_topic_names(make_producer, topic):
    producer = make_producer()
    value = bytearray(b"x")
    with pytest.raises(ValueError):
        producer.send(ProducerRecord(topic, value), pytest.fail)
    assert not is_pinned(value)


def test_fault_34_a_topic_that_cannot_be_encoded(make_producer):
    producer = make_producer()
    with pytest.raises(ValueError):
        producer.send(ProducerRecord("\ud800", b"x"), pytest.fail)
    with pytest.raises(ValueError):
        producer.send(ProducerRecord("t", "\ud800"), pytest.fail)


@pytest.mark.parametrize("topic", ["a" * 249, "...", "_", "-", "A.b_c-9"])
def test_fault_34_odd_topic_names_that_are_good(make_producer, topic):
    make_producer().sync_send(ProducerRecord(topic, b"x"), timeout=10)


def test_fault_35_huge_headers(make_producer):
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = make_producer(
            {"test.mock.num.brokers": ...} | broker.config(message_max_bytes=10_000_000)
        )
        many = [(f"header {i}", b"%d" % i) for i in range(100_000)]
        metadata = producer.sync_send(ProducerRecord("orders", b"many", headers=many), timeout=30)
        assert metadata.headers == many
        large = [("n" * 100_000, bytes(1_000_000)), ("", b""), ("none", None)]
        producer.sync_send(ProducerRecord("orders", b"large", headers=large), timeout=30)
        first, second = broker.messages("orders", 2, 30.0)
        assert first.headers == many
        assert second.headers == large


def test_fault_35_headers_too_large_are_refused_and_the_buffer_is_let_go(make_producer):
    producer = make_producer()
    value = bytearray(b"x")
    with pytest.raises(KafkaException) as caught:
        producer.send(ProducerRecord("t", value, headers=[("name", bytes(2_000_000))]), pytest.fail)
    assert caught.value.error == ErrorCode["MSG_SIZE_TOO_LARGE"]
    assert not is_pinned(value)


@pytest.mark.parametrize("partition", [-1, -2, 2**31, 2**63, -(2**31)])
def test_fault_35_bad_partitions(partition):
    with pytest.raises(ValueError):
        ProducerRecord("t", b"", partition=partition)


def test_fault_35_the_highest_partition(make_producer, reports):
    producer = make_producer()
    value = bytearray(b"x")
    try:
        producer.send(ProducerRecord("t", value, partition=2**31 - 1), reports)
    except KafkaException as error:
        assert error.error == ErrorCode["UNKNOWN_PARTITION"]  # noqa: PT017
        producer.flush(10)
        assert not reports
    else:
        producer.flush(10)
        assert reports.errors == [ErrorCode["UNKNOWN_PARTITION"]]
    assert not is_pinned(value)


def test_fault_36_out_of_memory():
    """The nth allocation fails, for each n there is: MemoryError or success, and nothing is held
    that should not be.
    """
    pytest.importorskip("_testcapi")
    done = run_program("""
        from _testcapi import remove_mem_hooks, set_nomemory

        outcomes = {"sent": 0, "refused": 0}
        reports = []
        def attempt(producer, n, make, option):
            record = make()
            error = None
            set_nomemory(n, n + 1)
            try:
                producer.send(record, reports.append2, option=option)
            except BaseException as exc:
                error = exc
            finally:
                remove_mem_hooks()
            if error is None:
                outcomes["sent"] += 1
            else:
                assert isinstance(error, MemoryError), repr(error)
                outcomes["refused"] += 1
                try:
                    record.value.append(0) if isinstance(record.value, bytearray) else None
                except BufferError:
                    raise SystemExit("a refused send holds its buffer")
            return error is None

        class Reports(list):
            def append2(self, metadata, error):
                self.append(error)
        reports = Reports()
        kinds = [
            lambda: ProducerRecord("t", bytearray(b"value")),
            lambda: ProducerRecord(
                "t", bytearray(b"value"), key=bytearray(b"k"), headers=[("a", bytearray(b"b")), ("c", None)], timestamp=1
            ),
            lambda: ProducerRecord("t", memoryview(b"value"), headers={"a": "\\u00e4"}, id=object()),
            lambda: ProducerRecord("t", "\\u00e4" * 10),
        ]
        # By hand, so that no other Python thread meets the failing allocator.
        producer = KafkaProducer(QUICK, **{"enable.manual.events.poll": True, "linger.ms": 1000})
        producer.sync_send(ProducerRecord("t", b"x"), timeout=10)
        for make in kinds:
            for option in SendOption:
                n = in_a_row = 0
                while in_a_row < 5:         # so many n in a row that no longer fail anything
                    in_a_row = in_a_row + 1 if attempt(producer, n, make, option) else 0
                    n += 1
                    assert n < 500
        producer.flush(10)
        assert len(reports) == outcomes["sent"] and set(reports) == {None}, (len(reports), outcomes)
        assert outcomes["refused"] > 10, outcomes
        metrics = producer.metrics()
        assert (metrics.pinned_messages, metrics.pinned_bytes, metrics.outstanding) == (0, 0, 0), metrics
        producer.close()
        assert not any(_rdkafka.live_objects().values()), _rdkafka.live_objects()
        print(outcomes)
        """)
    assert "refused" in done.stdout


def test_fault_37_sub_interpreter():
    """Refused or supported, never a crash; and the main interpreter's producers go on."""
    done = run_program("""
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        with KafkaProducer(QUICK) as producer:
            interpreter = interpreters.create()
            program = "\\n".join([
                "import sys; sys.path[:] = " + repr(sys.path),
                "try:",
                "    from kafka_ext import KafkaProducer, ProducerRecord",
                "except ImportError as error:",
                "    pass",
                "else:",
                "    with KafkaProducer({'test.mock.num.brokers': 1, 'enable.idempotence': False}) as own:",
                "        own.sync_send(ProducerRecord('t', b'x'), timeout=10)",
            ])
            failed = None
            if hasattr(interpreters, "exec"):
                failed = interpreters.exec(interpreter, program)
            else:
                interpreters.run_string(interpreter, program)
            assert failed is None, failed
            interpreters.destroy(interpreter)
            producer.sync_send(ProducerRecord("t", b"x"), timeout=10)
        print("through")
        """)
    assert "through" in done.stdout


def test_pins_of_every_kind_of_buffer_are_let_go(make_producer):
    """Delivered, failed, purged, refused: the exporter's reference count is what it was."""
    with EmbeddedBroker(topics={"orders": 1}) as broker:
        producer = make_producer(
            {"test.mock.num.brokers": ...} | broker.config(queue_buffering_max_messages=5) | LINGER
        )
        makers = [
            lambda: b"x" * 100,
            lambda: bytearray(100),
            lambda: memoryview(bytearray(100)),
            lambda: array.array("b", [1] * 100),
            lambda: "".join(["ä", "x" * 100]),
            lambda: b"".join([b"y", b"z"]),
        ]
        for make in makers:
            value = make()
            before = sys.getrefcount(value)
            for ending in (producer.flush, lambda: (producer.purge(), producer.flush(10))):
                outcomes = Outcomes()
                for number in range(5):
                    producer.send(ProducerRecord("orders", value), outcomes.expect(number))
                assert (
                    producer.try_send(ProducerRecord("orders", value), pytest.fail)
                    == ErrorCode["QUEUE_FULL"]
                )
                ending()
                outcomes.check(range(5))
                outcomes.reports.clear()
                gc.collect()
                assert sys.getrefcount(value) == before
