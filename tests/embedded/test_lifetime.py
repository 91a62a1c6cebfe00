"""close, drop, exit, fork, threads. test_faults_lifetime.py has the faults among these."""

import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from kafka_ext import (
    ErrorCode,
    KafkaException,
    KafkaProducer,
    ProducerClosedError,
    ProducerRecord,
    QueueFullError,
    _lifecycle,
    _rdkafka,
)

STUCK = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": ...}
BOTH_MODES = pytest.mark.parametrize("manual", [False, True], ids=["thread", "manual"])


def mode(manual):
    return {"enable.manual.events.poll": manual}


def run(code, timeout=60):
    """Run `code` in an interpreter of its own; its standard output, as lines."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


class TestClose:
    @BOTH_MODES
    def test_waits_for_every_report(self, make_producer, reports, manual):
        producer = make_producer(mode(manual) | {"linger.ms": 60_000})
        for _ in range(100):
            producer.send(ProducerRecord("t", b"v"), reports)
        producer.close()
        assert reports.errors == [None] * 100

    @BOTH_MODES
    def test_past_its_timeout_it_purges(self, make_producer, reports, manual):
        producer = make_producer(STUCK | mode(manual))
        for _ in range(100):
            producer.send(ProducerRecord("t", b"v"), reports)
        started = time.monotonic()
        producer.close(0.3)
        assert 0.29 <= time.monotonic() - started < 10
        assert reports.errors == [ErrorCode.PURGE_QUEUE] * 100

    @pytest.mark.slow(10)
    def test_past_its_timeout_what_is_in_flight_is_purged_too(self, make_producer, reports):
        producer = make_producer({"test.mock.broker.rtt": 1500})
        producer.fetch_broker_metadata("t")
        producer.send(ProducerRecord("t", b"v"), reports)
        time.sleep(1.0)  # the request is out by now
        producer.close(0)
        assert reports.errors in ([ErrorCode.PURGE_INFLIGHT], [ErrorCode.PURGE_QUEUE])
        assert len(reports) == 1

    @BOTH_MODES
    def test_is_idempotent(self, make_producer, manual):
        producer = make_producer(mode(manual))
        producer.close()
        producer.close(5)
        producer.close(0)

    def test_from_many_threads_at_once(self, make_producer, reports):
        producer = make_producer({"linger.ms": 60_000})
        for _ in range(100):
            producer.send(ProducerRecord("t", b"v"), reports)
        threads = [threading.Thread(target=producer.close) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert reports.errors == [None] * 100

    @BOTH_MODES
    def test_everything_after_it_raises_and_holds_nothing(self, make_producer, manual):
        producer = make_producer(mode(manual))
        producer.close()
        value = bytearray(b"v")
        record = ProducerRecord("t", value)
        for call in (
            lambda: producer.send(record),
            lambda: producer.sync_send(record),
            lambda: producer.send_future(record),
            lambda: producer.flush(),
            lambda: producer.purge(),
            lambda: producer.poll_events(),
            lambda: producer.fetch_broker_metadata(),
            lambda: producer.init_transactions(),
            lambda: producer.begin_transaction(),
            lambda: producer.commit_transaction(),
            lambda: producer.abort_transaction(),
            lambda: producer.send_offsets_to_transaction({("t", 0): 1}, "group"),
            lambda: producer.get_property("linger.ms"),
            lambda: producer.get_property("enable.manual.events.poll"),
            lambda: producer.__enter__(),
        ):
            with pytest.raises(ProducerClosedError) as caught:
                call()
            assert caught.value.error == ErrorCode.STATE
        assert producer.try_send(record) == ErrorCode.STATE
        value.append(1)

    def test_what_it_knew_is_still_there(self, make_producer):
        producer = make_producer()
        producer.sync_send(ProducerRecord("t", b"12345"), timeout=10)
        producer.close()
        metrics = producer.metrics()
        assert (metrics.sent, metrics.sent_bytes, metrics.delivered, metrics.outstanding) == (
            1,
            5,
            1,
            0,
        )
        assert producer.properties["linger.ms"] == "0"

    def test_leaves_no_thread_behind(self, make_producer):
        before = threading.active_count()
        make_producer().close()
        assert threading.active_count() == before

    def test_frees_everything(self, make_producer, reports):
        producer = make_producer()
        producer.send(
            ProducerRecord("t", bytearray(b"v"), id=object(), headers=[("a", b"b")]), reports
        )
        producer.close()
        assert not any(_rdkafka.live_objects().values())


class TestWith:
    def test_closes(self, make_producer, reports):
        with make_producer({"linger.ms": 60_000}) as producer:
            producer.send(ProducerRecord("t", b"v"), reports)
        assert reports.errors == [None]
        with pytest.raises(ProducerClosedError):
            producer.flush()

    def test_delivers_what_was_sent_when_the_block_raises(self, make_producer, reports):
        with (  # noqa: PT012
            pytest.raises(ZeroDivisionError),
            make_producer({"linger.ms": 60_000}) as producer,
        ):
            producer.send(ProducerRecord("t", b"v"), reports)
            raise ZeroDivisionError
        assert reports.errors == [None]

    def test_may_be_closed_inside(self, make_producer):
        with make_producer() as producer:
            producer.close()


class TestDropped:
    @BOTH_MODES
    def test_loses_nothing_and_warns(self, reports, manual):
        producer = KafkaProducer(
            {"test.mock.num.brokers": 1, "enable.idempotence": False, "linger.ms": 200}
            | mode(manual)
        )
        for number in range(100):
            producer.send(ProducerRecord("t", bytearray(b"v"), id=number), reports)
        started = time.monotonic()
        with pytest.warns(ResourceWarning, match="not closed"):  # noqa: PT031 - dropped, then collected
            del producer
            gc.collect()
        assert time.monotonic() - started < 5
        reports.wait(100)
        assert sorted(reports.ids) == list(range(100))
        assert reports.errors == [None] * 100

    def test_closed_it_does_not_warn(self, make_producer, recwarn):
        producer = KafkaProducer({"test.mock.num.brokers": 1})
        producer.close()
        del producer
        gc.collect()
        assert not [warning for warning in recwarn if warning.category is ResourceWarning]

    def test_a_constructor_that_failed_does_not_warn(self, recwarn):
        with pytest.raises(ValueError):
            KafkaProducer({"linger.ms": "x"})
        gc.collect()
        assert not list(recwarn)
        assert repr(KafkaProducer.__new__(KafkaProducer)) == "<KafkaProducer '' unusable>"

    def test_a_future_is_done_although_its_producer_is_gone(self):
        producer = KafkaProducer({"test.mock.num.brokers": 1, "enable.idempotence": False})
        future = producer.send_future(ProducerRecord("t", b"v"))
        with pytest.warns(ResourceWarning):
            del producer
        assert future.result(10).offset == 0

    @BOTH_MODES
    def test_at_exit(self, manual):
        lines = run(f"""
            from kafka_ext import KafkaProducer, ProducerRecord
            producer = KafkaProducer({{"test.mock.num.brokers": 1, "linger.ms": 300, "enable.manual.events.poll": {manual}}})
            for number in range(100):
                producer.send(ProducerRecord("t", b"v"), lambda metadata, error: print(metadata.offset is not None, error))
        """)
        assert lines == ["True None"] * 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
class TestFork:
    @BOTH_MODES
    def test_every_call_of_the_child_raises_and_both_exit(self, manual):
        lines = run(f"""
            import os, sys
            from kafka_ext import KafkaProducer, ProducerForkedError, ProducerRecord
            producer = KafkaProducer({{"test.mock.num.brokers": 1, "enable.idempotence": False, "enable.manual.events.poll": {manual}}})
            producer.sync_send(ProducerRecord("t", b"before", partition=0), timeout=10)
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                for call in (
                    lambda: producer.send(ProducerRecord("t", b"v")), lambda: producer.try_send(ProducerRecord("t", b"v")),
                    lambda: producer.sync_send(ProducerRecord("t", b"v")), lambda: producer.send_future(ProducerRecord("t", b"v")),
                    lambda: producer.flush(), lambda: producer.purge(), lambda: producer.close(), lambda: producer.poll_events(),
                    lambda: producer.fetch_broker_metadata(), lambda: producer.init_transactions(), lambda: producer.begin_transaction(),
                    lambda: producer.commit_transaction(), lambda: producer.abort_transaction(), lambda: producer.get_property("acks"),
                    lambda: producer.get_property("enable.manual.events.poll"), lambda: producer.properties, lambda: producer.metrics(),
                    lambda: producer.fatal_error(), lambda: producer.send_batch("t", [b"v"]), lambda: producer.transaction().__enter__(),
                    lambda: producer.send_offsets_to_transaction({{("t", 0): 1}}, "group"),
                    lambda: producer.__enter__(),
                ):
                    try:
                        call()
                        print("did not raise")
                    except ProducerForkedError:
                        pass
                print("child", repr(producer))
            else:
                print("waited", os.waitpid(child, 0)[1])
                print("parent", producer.sync_send(ProducerRecord("t", b"after", partition=0), timeout=10).offset)
                producer.close()
        """)
        assert lines == ["child <KafkaProducer '' forked>", "waited 0", "parent 1"]

    def test_a_producer_of_the_childs_own_works(self):
        lines = run("""
            import os
            from kafka_ext import KafkaProducer, ProducerRecord
            settings = {"test.mock.num.brokers": 1, "enable.idempotence": False}
            producer = KafkaProducer(settings)
            child = os.fork()
            if child == 0:
                with KafkaProducer(settings) as own:
                    print("child", own.sync_send(ProducerRecord("t", b"v", partition=0), timeout=10).offset)
            else:
                print("waited", os.waitpid(child, 0)[1])
                producer.close()
        """)
        assert lines == ["child 0", "waited 0"]

    @pytest.mark.skipif(
        _rdkafka.build_info()["linkage"] != "bundled static",
        reason="mended in the bundled librdkafka",
    )
    def test_a_producer_of_a_child_forked_while_names_are_resolved(self):
        """glibc's getaddrinfo() leaves a lock behind in the child, where every other one with
        AI_ADDRCONFIG waits for it.
        """
        lines = run(
            """
            import os, signal, socket, threading
            from kafka_ext import KafkaProducer, ProducerRecord
            from kafka_ext.testing import EmbeddedBroker
            ended = False
            def resolve():
                while not ended:
                    socket.getaddrinfo("127.0.0.1", 80, flags=socket.AI_ADDRCONFIG)
            with EmbeddedBroker(isolation="process") as broker:
                threads = [threading.Thread(target=resolve) for _ in range(2)]
                for thread in threads:
                    thread.start()
                for n in range(10):
                    child = os.fork()
                    if child == 0:
                        signal.alarm(20)            # ends a child that hangs
                        with KafkaProducer(broker.config()) as own:
                            own.sync_send(ProducerRecord("t", b"v"))
                        os._exit(0)
                    print(os.waitpid(child, 0)[1])
                ended = True
                for thread in threads:
                    thread.join()
        """,
            timeout=250,
        )
        assert lines == ["0"] * 10

    @pytest.mark.skipif(
        _rdkafka.build_info()["linkage"] != "bundled static",
        reason="mended in the bundled librdkafka",
    )
    def test_random_numbers_without_openssl(self):
        """A forked child inherits the locks of OpenSSL's random numbers as they are just then.

        Here OpenSSL never gives any, as in a child that has come at the wrong moment.
        """
        lines = run("""
            import ctypes, re
            from kafka_ext import KafkaProducer, ProducerRecord
            path = re.search("/.*libcrypto.*", open("/proc/self/maps").read()).group()
            class Method(ctypes.Structure):     # RAND_METHOD
                _fields_ = [(name, ctypes.c_void_p) for name in ("seed", "bytes", "cleanup", "add", "pseudorand", "status")]
            forever = ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p).value
            method = Method(bytes=forever, pseudorand=forever)
            ctypes.CDLL(path).RAND_set_rand_method(ctypes.byref(method))
            with KafkaProducer({"test.mock.num.brokers": 1}) as producer:
                print(producer.sync_send(ProducerRecord("t", b"v", partition=0), timeout=20).offset)
        """)
        assert lines == ["0"]


class TestMetrics:
    def test_counts(self, make_producer):
        producer = make_producer({"linger.ms": 60_000})
        producer.send(ProducerRecord("t", bytearray(10)))
        producer.send(ProducerRecord("t", b"12345"))
        producer.send(ProducerRecord("t", None))
        metrics = producer.metrics()
        assert (metrics.sent, metrics.sent_bytes, metrics.outstanding) == (3, 15, 3)
        assert (metrics.pinned_messages, metrics.pinned_bytes) == (2, 15)
        producer.flush(10)
        metrics = producer.metrics()
        assert (metrics.delivered, metrics.failed, metrics.outstanding) == (3, 0, 0)
        assert (metrics.pinned_messages, metrics.pinned_bytes) == (0, 0)

    def test_failures_and_time_spent_blocked(self, make_producer):
        producer = make_producer(STUCK | {"queue.buffering.max.messages": 1})
        producer.send(ProducerRecord("t", b"v"))
        assert producer.metrics().blocked_seconds == 0
        with pytest.raises(TimeoutError):
            producer.send(ProducerRecord("t", b"v"), timeout=0.2)
        assert 0.1 < producer.metrics().blocked_seconds < 5
        producer.purge()
        producer.flush(10)
        assert producer.metrics().failed == 1

    def test_refused_sends_are_not_counted(self, make_producer):
        producer = make_producer(STUCK | {"queue.buffering.max.messages": 1} | mode(True))
        producer.send(ProducerRecord("t", b"v"))
        with pytest.raises(QueueFullError):
            producer.send(ProducerRecord("t", b"v"))
        assert producer.metrics().sent == 1


class TestFlush:
    @BOTH_MODES
    def test_runs_out_of_time_and_keeps_the_records(self, make_producer, reports, manual):
        producer = make_producer(STUCK | mode(manual))
        producer.send(ProducerRecord("t", b"v"), reports)
        started = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            producer.flush(0.2)
        assert 0.19 <= time.monotonic() - started < 5
        assert isinstance(caught.value, KafkaException)
        assert caught.value.error == ErrorCode.TIMED_OUT
        assert reports == []
        assert producer.metrics().outstanding == 1

    @BOTH_MODES
    def test_does_not_wait_for_linger(self, make_producer, reports, manual):
        producer = make_producer(mode(manual) | {"linger.ms": 60_000})
        producer.send(ProducerRecord("t", b"v"), reports)
        producer.flush(20)
        assert reports.errors == [None]

    @BOTH_MODES
    def test_with_nothing_to_do_it_returns(self, make_producer, manual):
        assert make_producer(mode(manual)).flush(0) is None


class TestPurge:
    def test_only_what_waits(self, make_producer, reports):
        producer = make_producer(STUCK)
        producer.send(ProducerRecord("t", b"v"), reports)
        producer.purge(in_queue=False)
        producer.purge(in_queue=False, in_flight=False)
        time.sleep(0.1)
        assert reports == []
        producer.purge(in_flight=False)
        producer.flush(10)
        assert reports.errors == [ErrorCode.PURGE_QUEUE]


class TestSubclass:
    def test_may_add_and_override(self, make_producer, reports):
        class Tagging(KafkaProducer):
            def __init__(self, properties):
                super().__init__(properties)
                self.tag = b"tag"

            def send(self, record, on_delivery=None, **options):
                record.headers = [("tag", self.tag)]
                super().send(record, on_delivery, **options)

        producer = make_producer(cls=Tagging)
        assert producer.sync_send(ProducerRecord("t", b"v"), timeout=10).headers == [
            ("tag", b"tag")
        ]
        assert producer.send_future(ProducerRecord("t", b"v")).result(10).headers == [
            ("tag", b"tag")
        ]

    def test_one_that_forgets_the_constructor_is_not_usable(self):
        class Forgetful(KafkaProducer):
            def __init__(self):
                pass

        producer = Forgetful()
        for call in (
            lambda: producer.send(ProducerRecord("t", b"v")),
            producer.flush,
            producer.purge,
            lambda: producer.metrics(),
        ):
            with pytest.raises(ProducerClosedError):
                call()
        producer.close()


def test_it_cannot_be_pickled(producer):
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(producer)


def test_a_producer_whose_thread_cannot_be_started_leaves_nothing(monkeypatch):
    """The constructor raises what the system said; no handle is left behind, nor anything that the
    interpreter's exit would trip over.
    """

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            KafkaProducer({"test.mock.num.brokers": 1})
    gc.collect()
    assert _rdkafka.live_objects()["handles"] == 0
    _lifecycle._close_all()
