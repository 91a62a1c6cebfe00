"""Every allocation on a message's way fails, by itself and with those behind it: nothing crashes,
nothing is lost count of.

In debug builds only (`make sanitize PART=oom`), which let allocations of this package and of Python
fail (include/kafka_ext/memory.h). librdkafka's are let be: when malloc() fails it ends the process,
by design (rd_malloc() asserts).
"""

import pytest
from faultlib import run_program

from kafka_ext import _rdkafka

pytestmark = pytest.mark.skipif(
    not _rdkafka.build_info()["debug"],
    reason="allocations fail in debug builds only: make sanitize PART=oom does this",
)

HARNESS = """
import array
fail, stop = _rdkafka.fail_allocations, _rdkafka.allocations_failed
CPYTHON_SAYS = ("can't allocate lock", "can't start new thread")       # where others say MemoryError
unraisable = []
sys.unraisablehook = lambda arguments: unraisable.append(arguments.exc_type)

def only_memory_errors(exc):
    if isinstance(exc, BaseException) and hasattr(exc, "exceptions"):
        return all(map(only_memory_errors, exc.exceptions))
    return isinstance(exc, MemoryError) or str(exc) in CPYTHON_SAYS

class Attempt:
    def __init__(self, call, n, times, everywhere=False):
        self.result = self.error = None
        try:
            fail(n, times, everywhere)
            try:
                self.result = call()
            finally:
                counts = stop()
        except BaseException as exc:
            assert only_memory_errors(exc), repr(exc)
            self.error = exc
        self.failed = counts[1]

def every_allocation(attempt, at_most=3000):
    "`attempt(n, times)` for each n until there is no allocation left to fail; how many there were."
    for times in (1, 2, 10):        # CPython gives up where some dozens in a row fail, while it raises the MemoryError of the first
        for n in range(at_most):
            if not attempt(n, times):
                break
        else:
            raise AssertionError(f"{at_most} allocations are not all")
        print(n, "allocations", flush=True)

def settle(producer):
    "Without failures: everything that was accepted is reported, and nothing is held any more."
    for _ in range(1000):
        try:
            producer.flush(20)
            break
        except (MemoryError, BaseExceptionGroup if sys.version_info >= (3, 11) else MemoryError) as exc:
            assert only_memory_errors(exc), repr(exc)      # of callbacks, before
    metrics = producer.metrics()
    assert metrics.sent == metrics.delivered + metrics.failed, metrics
    assert (metrics.outstanding, metrics.pinned_messages, metrics.pinned_bytes) == (0, 0, 0), metrics
    live = _rdkafka.live_objects()
    assert (live["messages"], live["batches"]) == (0, 0), live
    assert all(kind is MemoryError for kind in unraisable), unraisable
    return metrics

def close(producer):
    for _ in range(1000):
        try:
            return producer.close(5)
        except (MemoryError, BaseExceptionGroup if sys.version_info >= (3, 11) else MemoryError) as exc:
            assert only_memory_errors(exc), repr(exc)

class Counted:
    "A callback that needs no memory to count."
    def __init__(self):
        self.calls = [0]
        self.errors = [None]
    def __call__(self, metadata, error=None):
        self.calls[0] += 1
        self.errors[0] = error

def make(manual=True, **settings):
    return KafkaProducer(QUICK | {"enable.manual.events.poll": manual, "log_level": 0} | settings)
"""


def run(*sources, timeout=300):
    done = run_program(HARNESS, *sources, timeout=timeout)
    assert sum(int(line.split()[0]) for line in done.stdout.splitlines()) > 0, (
        "nothing was allocated, so nothing was shown"
    )


RECORDS = {
    "bytes": '"t", b"value"',
    "str": '"t", "value"',
    "str beyond ASCII": '"t", "v\\u00e4lue" + str(n)',
    "bytearray": '"t", buffer',
    "memoryview": '"t", memoryview(buffer)',
    "tombstone": '"t", None, key=b"k"',
    "key, headers and id": (
        '"t", buffer, key="a key", headers=[("name", b"x"), ("other", bytearray(b"y")), ("none",'
        " None)], id=object()"
    ),
    "headers of a mapping": '"t", b"value", headers={"name": "content"}',
    "timestamp and partition": '"t", b"value", partition=0, timestamp=1700000000000',
    "new topic": 'f"topic-{n}-{times}", b"value"',
}
SENDS = {
    "no callback": "producer.send(record)",
    "callback": "producer.send(record, told)",
    "copied": "producer.send(record, told, option=SendOption.TO_COPY_RECORD_VALUE)",
    "never waits": "producer.try_send(record, told)",
}


@pytest.mark.parametrize("send", SENDS)
def test_while_sending(send):
    """A send that raises MemoryError holds nothing and is never called back; one that returned is,
    once.
    """
    records = ", ".join(
        f"{name!r}: lambda n, times, buffer: ProducerRecord({text})"
        for name, text in RECORDS.items()
    )
    run(f"""
        with make() as producer:
            producer.sync_send(ProducerRecord("t", b""))
            for name, make_record in {{ {records} }}.items():
                def attempt(n, times):
                    buffer, told = bytearray(b"value"), Counted()
                    record = make_record(n, times, buffer)
                    before = producer.metrics().sent
                    attempt = Attempt(lambda: {SENDS[send]}, n, times)
                    accepted = producer.metrics().sent - before
                    assert accepted == (attempt.error is None), (name, n, attempt.error)
                    assert attempt.result is None, attempt.result
                    settle(producer)
                    assert told.calls[0] == accepted * {int(send != "no callback")}, (name, n, told.calls)
                    assert told.errors[0] is None
                    failed, record, attempt = attempt.failed, None, None
                    buffer.append(0)            # exported to nobody
                    return failed
                every_allocation(attempt)
        assert not any(_rdkafka.live_objects().values()), _rdkafka.live_objects()
        """)


def test_while_sending_with_a_partitioner_and_interceptors():
    run("""
        class Interceptor:
            def on_send(self, record):
                return record
            def on_acknowledgement(self, metadata, error):
                pass
        for settings in ({"partitioner": lambda topic, key, count: 0}, {"interceptors": [Interceptor()]}):
            with make(**settings) as producer:
                producer.sync_send(ProducerRecord("t", b"", key=b"k"))
                def attempt(n, times):
                    buffer, told = bytearray(b"value"), Counted()
                    record = ProducerRecord("t", buffer, key=b"k")
                    before = producer.metrics().sent
                    attempt = Attempt(lambda: producer.send(record, told), n, times)
                    accepted = producer.metrics().sent - before
                    assert accepted == (attempt.error is None), (n, attempt.error)
                    settle(producer)
                    assert told.calls[0] == accepted
                    buffer.append(0)
                    return attempt.failed
                every_allocation(attempt)
        """)


def test_futures_are_done_whatever_fails():
    """While it is sent, while it is reported, and both."""
    run("""
        with make() as producer:
            producer.sync_send(ProducerRecord("t", b""))
            def sending(n, times):
                before = producer.metrics().sent
                attempt = Attempt(lambda: producer.send_future(ProducerRecord("t", b"x")), n, times)
                assert producer.metrics().sent - before == (attempt.error is None)
                settle(producer)
                assert attempt.error is not None or attempt.result.result(0).offset >= 0
                return attempt.failed
            every_allocation(sending)
            def reporting(n, times):
                future = producer.send_future(ProducerRecord("t", b"x"))
                time.sleep(0.01)
                attempt = Attempt(lambda: producer.poll_events(0.2), n, times)
                failed, attempt = attempt.failed, None      # and with the exception's frames what they keep
                gc.collect()
                settle(producer)
                assert future.done(), (n, times)
                assert future.exception() is None or isinstance(future.exception(), MemoryError)
                return failed
            every_allocation(reporting)
            def sync(n, times):
                attempt = Attempt(lambda: producer.sync_send(ProducerRecord("t", b"x"), 10), n, times)
                settle(producer)
                assert attempt.error is not None or attempt.result.offset >= 0
                return attempt.failed
            every_allocation(sync)
        """)


def test_a_full_queue_while_allocations_fail():
    run("""
        settings = UNREACHABLE | {"queue.buffering.max.messages": 1, "enable.manual.events.poll": True}
        producer = KafkaProducer(settings)
        buffer = bytearray(b"x")
        producer.send(ProducerRecord("t", b"x"))
        def attempt(n, times):
            told = Counted()
            record = ProducerRecord("t", buffer, headers=[("a", buffer)])
            def refused():
                try:
                    producer.send(record, told, action=ActionWhileQueueIsFull.NO_BLOCK)
                except QueueFullError:
                    return True
            attempt = Attempt(refused, n, times)
            assert attempt.result or attempt.error is not None
            assert _rdkafka.live_objects()["messages"] == 1
            assert told.calls[0] == 0
            buffer.append(0)
            del buffer[1:]
            return attempt.failed
        every_allocation(attempt)
        producer.purge()
        settle(producer)
        close(producer)
        """)


REPORTS = {
    "delivered": ("make()", "", "Counted()"),
    "metadata kept": ("make()", "", "Keeps()"),
    "purged": (
        "KafkaProducer(UNREACHABLE | {'enable.manual.events.poll': True})",
        "producer.purge()",
        "Counted()",
    ),
    "metadata of purged ones kept": (
        "KafkaProducer(UNREACHABLE | {'enable.manual.events.poll': True})",
        "producer.purge()",
        "Keeps()",
    ),
    "purged with nobody to tell": (
        "KafkaProducer(UNREACHABLE | {'enable.manual.events.poll': True})",
        "producer.purge()",
        "None",
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_while_reports_are_served(name):
    """Each record is called back once. Where there is no memory for the call, poll_events() raises
    the MemoryError, and counts it.
    """
    producer, then, callback = REPORTS[name]
    run(f"""
        import logging
        logging.getLogger("kafka_ext").setLevel(logging.CRITICAL)
        class Keeps(Counted):
            def __init__(self):
                super().__init__()
                self.kept = [None] * 4
            def __call__(self, metadata, error=None):
                self.kept[self.calls[0]] = metadata
                super().__call__(metadata, error)
        with {producer} as producer:
            def attempt(n, times):
                told, buffers = {callback}, [bytearray(b"value") for _ in range(4)]
                before = producer.metrics()
                for buffer in buffers:
                    producer.send(ProducerRecord("t", buffer, headers=[("a", b"b")], id=buffer), told)
                {then}
                time.sleep(0.005)
                attempt = Attempt(lambda: producer.poll_events(0.2), n, times)
                after = settle(producer)
                assert after.sent - before.sent == 4
                if told is not None:
                    errors = after.callback_errors - before.callback_errors
                    assert told.calls[0] + errors == 4, (n, times, told.calls, errors)
                    assert errors == 0 or attempt.failed
                    if {"purged" in name} and told.calls[0]:
                        assert told.errors[0].code in (ErrorCode.PURGE_QUEUE, ErrorCode.PURGE_INFLIGHT), told.errors
                    for metadata in getattr(told, "kept", ()):
                        assert metadata is None or (metadata.topic == "t" and metadata.value_size == 5 and metadata.record_id in buffers)
                del told
                for buffer in buffers:
                    buffer.append(0)
                return attempt.failed
            every_allocation(attempt)
        """)


BATCHES = {
    "list of bytes": ('[b"one", None, b"", b"four"]', ""),
    "list of anything": ('["one", None, bytearray(b"three"), buffer]', ""),
    "keys, partitions, timestamps": (
        '[b"one", b"two"]',
        'keys=["k", b"l"], partitions=[0, None], timestamps=[1, 2], ids=["a", "b"]',
    ),
    "headers for all": ('[b"one", b"two"]', 'headers=[("name", b"content")]'),
    "headers for each": ('[b"one", b"two"]', 'headers=[[("name", b"content")], {"other": "text"}]'),
    "copied": ('[b"one", buffer]', "option=SendOption.TO_COPY_RECORD_VALUE"),
    "rows": ('memoryview(bytearray(6)).cast("B", (2, 3))', "keys=b'k'"),
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("phase", ["sending", "serving"])
def test_batches(name, phase):
    """A batch is called back once, and knows what became of each message, whichever allocation
    failed.
    """
    values, arguments = BATCHES[name]
    run(f"""
        import logging
        logging.getLogger("kafka_ext").setLevel(logging.CRITICAL)
        with make() as producer:
            producer.sync_send(ProducerRecord("t", b""))
            def attempt(n, times):
                buffer, told = bytearray(b"value"), Counted()
                values = {values}
                before = producer.metrics()
                send = lambda: producer.send_batch("t", values, on_delivery=told, {arguments})
                if {phase == "sending"}:
                    attempt = Attempt(send, n, times)
                    batch = attempt.result
                else:
                    batch = send()
                    time.sleep(0.005)
                    attempt = Attempt(lambda: producer.poll_events(0.2), n, times)
                if batch is None:
                    batch = getattr(attempt.error, "batch", None)
                after = settle(producer)
                if batch is not None:
                    assert batch.done() and batch.pending == 0
                    if {phase == "sending"}:
                        assert told.calls[0] == (len(batch) > 0), (n, told.calls)
                    else:
                        assert told.calls[0] + after.callback_errors - before.callback_errors == 1
                    errors = dict(batch.errors())
                    assert len(errors) == batch.failed
                    assert sorted(errors) == [i for i in range(len(batch)) if batch.offsets[i] < 0]
                    assert len(batch) - len(errors) == after.delivered - before.delivered
                else:
                    assert told.calls[0] <= 1
                del values, batch, send
                attempt.error = attempt.result = None
                gc.collect()
                buffer.append(0)
                return attempt.failed
            every_allocation(attempt)
        assert not any(_rdkafka.live_objects().values()), _rdkafka.live_objects()
        """)


def test_arrow_columns_and_tables():
    pytest.importorskip("pyarrow")
    run("""
        import pyarrow
        column = pyarrow.chunked_array([["one", None], ["three"]])
        words = column.dictionary_encode()
        table = pyarrow.table({"v": column, "k": ["a", "b", "c"], "p": [0, None, 0], "t": [1, 2, 3], "h": ["x", None, "z"]})
        sends = {
            "column": lambda told: producer.send_batch("t", column, on_delivery=told),
            "dictionary": lambda told: producer.send_batch("t", words, keys=column, on_delivery=told),
            "table": lambda told: producer.send_table(
                table, topic="t", value="v", key="k", partition="p", timestamp="t", headers=["h"], on_delivery=told),
        }
        with make() as producer:
            producer.sync_send(ProducerRecord("t", b""))
            for name, send in sends.items():
                def attempt(n, times):
                    told = Counted()
                    before = producer.metrics()
                    attempt = Attempt(lambda: send(told), n, times)
                    batch = attempt.result if attempt.error is None else getattr(attempt.error, "batch", None)
                    after = settle(producer)
                    if batch is not None:
                        assert batch.done() and batch.pending == 0
                        assert told.calls[0] == (len(batch) > 0), (name, n, told.calls)
                        errors = batch.errors()
                        assert len(errors) == batch.failed
                        assert len(batch) - len(errors) == after.delivered - before.delivered
                    return attempt.failed
                every_allocation(attempt)
        """)


def test_failures_that_there_is_no_memory_to_list_are_known_by_index():
    """200 messages are too large, and the list of failures cannot grow: none of them is
    forgotten.
    """
    run("""
        with make(**{"message.max.bytes": 1000}) as producer:
            values = [b"x", bytes(2000)] * 200
            reached = 0
            for n in range(80):
                told = Counted()
                attempt = Attempt(lambda: producer.send_batch("t", values, on_delivery=told), n, 10)
                batch = attempt.result if attempt.error is None else getattr(attempt.error, "batch", None)
                settle(producer)
                if batch is None or not len(batch):
                    continue
                assert len(batch.errors()) == batch.failed >= 200
                if attempt.error is None:
                    assert [index for index, error in batch.errors()] == list(range(1, 400, 2))
                    assert {error.code for _, error in batch.errors()} == {ErrorCode.MSG_SIZE_TOO_LARGE}
                    reached += attempt.failed
                    print(attempt.failed, "allocations")
            assert reached, "no allocation failed in a call that succeeded: the list always grew"
        """)


@pytest.mark.parametrize("manual", [False, True])
def test_flush_and_close(manual):
    run(f"""
        for flushes in (True, False):
            def attempt(n, times):
                producer = make({manual})
                told = Counted()
                buffer = bytearray(b"x")
                for _ in range(3):
                    producer.send(ProducerRecord("t", buffer), told)
                batch = producer.send_batch("t", [b"one", b"two"])
                attempt = Attempt(producer.flush if flushes else producer.close, n, times)
                close(producer)
                metrics = producer.metrics()
                assert metrics.sent == metrics.delivered + metrics.failed == 5, metrics
                assert told.calls[0] + metrics.callback_errors == 3, (n, told.calls, metrics)
                assert batch.done()
                del producer
                gc.collect()
                assert not any(_rdkafka.live_objects().values()), _rdkafka.live_objects()
                buffer.append(0)
                return attempt.failed
            every_allocation(attempt)
        """)


TRANSACTIONS = """
import logging
logging.getLogger("kafka_ext").setLevel(logging.CRITICAL)
producer = make(**{"transactional.id": "t", "enable.idempotence": True, "message.max.bytes": 1000})
producer.init_transactions(30)

def end(calls):
    "Without failures: the transaction ends by one of these, or has ended already."
    for call in calls:
        try:
            return call(30)
        except KafkaException as exc:
            assert exc.error in (ErrorCode.INCONSISTENT, ErrorCode.STATE, ErrorCode.CONFLICT), exc
"""


@pytest.mark.parametrize("send", SENDS)
def test_while_sending_again_what_a_transaction_lacks(send):
    """As test_while_sending: what is enqueued has not failed for want of memory to note
    that it is.
    """
    run(
        TRANSACTIONS,
        f"""
        with producer:
            other = ProducerRecord("t", bytes(2000))
            def attempt(n, times):
                told, record = Counted(), ProducerRecord("t", bytes(2000), key="key", headers=[("name", b"x")])
                producer.begin_transaction()
                for large in (other, record):
                    try:
                        producer.send(large)
                        raise AssertionError("not refused")
                    except KafkaException:
                        pass
                record.value = "small"
                before = producer.metrics().sent
                attempt = Attempt(lambda: {SENDS[send]}, n, times)
                accepted = producer.metrics().sent - before
                assert accepted == (attempt.error is None), (n, attempt.error)
                try:
                    producer.commit_transaction(30)
                    raise AssertionError("a record is missing, and yet it is committed")
                except KafkaException as exc:
                    assert exc.error == ErrorCode.INCONSISTENT, exc
                    assert f" {{1 + (not accepted)}} records" in exc.error.message or attempt.failed, exc
                producer.abort_transaction(30)
                settle(producer)
                assert told.calls[0] == accepted * {int(send != "no callback")}
                return attempt.failed
            every_allocation(attempt)
        """,
    )


@pytest.mark.parametrize("call", ["send_offsets", "commit", "abort"])
def test_calls_of_a_transaction(call):
    """Whichever allocation fails, the transaction can be ended and the next one begun."""
    run(
        TRANSACTIONS,
        f"""
        group = ConsumerGroupMetadata("group")
        def call():
            if {call!r} == "send_offsets":
                producer.send_offsets_to_transaction({{("t", 0): 5}}, group, 30)
            else:
                producer.{call}_transaction(30)
        with producer:
            def attempt(n, times):
                producer.begin_transaction()
                producer.send(ProducerRecord("t", b"x"))
                attempt = Attempt(call, n, times)
                end([producer.abort_transaction] if {call!r} == "abort" else [producer.commit_transaction, producer.abort_transaction])
                settle(producer)
                return attempt.failed
            every_allocation(attempt)
        """,
    )


@pytest.mark.parametrize("what", ["send", "batch"])
def test_in_every_thread_while_the_events_thread_serves(what):
    """The allocation that fails may be the events thread's, in the midst of its work:
    it goes on.
    """
    run(f"""
        class Keeps(Counted):
            def __init__(self):
                super().__init__()
                self.kept = []
            def __call__(self, metadata, error=None):
                self.calls[0] += 1
                self.kept.append((metadata, bytearray(10)))
        with make(False, **{{"linger.ms": 2}}) as producer:
            failed = 0
            for n in range(200):
                told, buffer = Keeps(), bytearray(b"x")
                before = producer.metrics()
                if {what == "send"}:
                    for _ in range(5):
                        producer.send(ProducerRecord("t", buffer, id=n), told)
                else:
                    batch = producer.send_batch("t", [buffer] * 5, on_delivery=told)
                if n % 2:
                    time.sleep(0.001)
                attempt = Attempt(lambda: producer.flush(10), n // 2 % 20, 1 if n < 100 else 5, everywhere=True)
                failed += attempt.failed
                after = settle(producer)
                assert after.sent - before.sent == 5
                errors = after.callback_errors - before.callback_errors
                calls = max(len(told.kept) + errors, told.calls[0])
                assert calls == {5 if what == "send" else 1}, (n, told.calls, calls)
                if {what == "batch"}:
                    assert batch.done()
                buffer.append(0)
            assert failed > 20, failed
            print(failed, "allocations")
        """)


def test_a_producer_that_cannot_be_made_leaves_nothing():
    """From its handle on: the checks of its properties are Python's, and CPython itself crashes in
    some of them (`dictiter_new`).
    """
    run("""
        from kafka_ext import _lifecycle, properties
        settings = properties.resolve(Properties(QUICK))
        def making():
            handle = _rdkafka.ProducerClient(settings.librdkafka, settings.callbacks, False, properties.OWN_NAMES)
            try:
                _lifecycle.start(handle)
            except BaseException:
                stop()
                _lifecycle.close(handle, 0.0)
                raise
            return handle
        def attempt(n, times):
            attempt = Attempt(making, n, times)
            if attempt.result is not None:
                _lifecycle.close(attempt.result, 0.0)
            failed, attempt = attempt.failed, None
            gc.collect()
            assert not any(_rdkafka.live_objects().values()), (n, _rdkafka.live_objects())
            return failed
        attempt(10**6, 1)           # the names of all properties are looked up once, in thousands of allocations
        every_allocation(attempt)
        """)
