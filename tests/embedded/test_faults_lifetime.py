"""Closing, collecting, forking, signals and exit while other things are under way."""

import gc
import os
import signal
import threading
import time
import warnings

import pytest
from faultlib import Outcomes, closed_port, interrupt_after, run_program, within

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, ProducerClosedError, ProducerRecord
from kafka_ext._rdkafka import Event, Monitor


def unreachable(**settings):
    """A producer whose broker is not there: nothing is ever delivered, and every wait is as long as
    its caller allows.
    """
    return KafkaProducer(
        {
            "bootstrap.servers": closed_port(),
            "log_level": 0,
            "error_cb": lambda error: None,
            "enable.idempotence": False,
        },
        **settings,
    )


# ---------------------------------------------------------------------- calls on what is closed, or
# being closed


@pytest.mark.parametrize("manual", [False, True])
def test_fault_22_every_call_after_close_raises(make_producer, manual):
    producer = make_producer({"enable.manual.events.poll": manual})
    producer.close()
    record = ProducerRecord("t", b"x")
    for call in (
        lambda: producer.send(record),
        lambda: producer.sync_send(record),
        lambda: producer.send_future(record),
        producer.flush,
        producer.purge,
        producer.poll_events,
        producer.fetch_broker_metadata,
        producer.init_transactions,
        producer.begin_transaction,
        producer.commit_transaction,
        producer.abort_transaction,
        lambda: producer.get_property("acks"),
        producer.fatal_error,
        producer.__enter__,
    ):
        with pytest.raises(ProducerClosedError):
            call()
    assert producer.try_send(record) == ErrorCode["STATE"]
    producer.close()
    assert producer.metrics().sent == 0


def test_poll_events_in_threads_while_another_closes(manual):
    outcomes = []

    def poll():
        try:
            while True:
                manual.poll_events(30)
        except KafkaException as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=poll) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    with within(1):
        manual.close()
    for thread in threads:
        thread.join(10)
    assert outcomes == [ProducerClosedError] * 4


@pytest.mark.parametrize("manual", [False, True])
def test_sync_send_in_threads_while_another_closes(manual):
    """Each returns what became of its record, or raises: none waits for a report that somebody else
    has served.
    """
    producer = unreachable(**{"enable.manual.events.poll": manual})
    outcomes = []

    def sync_send():
        try:
            producer.sync_send(ProducerRecord("t", b"x"))
        except KafkaException as error:
            outcomes.append(error.error.code)

    threads = [threading.Thread(target=sync_send) for _ in range(4)]
    for thread in threads:
        thread.start()
    while producer.metrics().outstanding < 4:
        time.sleep(0.01)
    with within(0.2):
        producer.close(0.2)
    for thread in threads:
        thread.join(10)
    assert outcomes == [ErrorCode["PURGE_QUEUE"]] * 4


def test_close_keeps_its_own_time_while_another_thread_closes_without_limit():
    producer = unreachable()
    outcomes = Outcomes()
    producer.send(ProducerRecord("t", b"x"), outcomes.expect(0))
    patient = threading.Thread(target=producer.close)
    patient.start()
    time.sleep(0.2)
    with within(0.3):
        producer.close(0.3)
    patient.join(10)
    assert not patient.is_alive()
    outcomes.check([0])
    assert outcomes.errors == [ErrorCode["PURGE_QUEUE"]]


def test_close_from_many_threads_at_once(make_producer):
    producer = make_producer()
    outcomes = Outcomes()
    for i in range(1000):
        producer.send(ProducerRecord("t", b"x"), outcomes.expect(i))
    threads = [threading.Thread(target=producer.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    outcomes.check(range(1000))
    assert not outcomes.errors


def test_close_does_not_wait_for_a_metadata_request_nobody_answers():
    """It cannot be interrupted, only be left behind; it lets go of the producer when it
    is through.
    """
    producer = unreachable()
    outcome = []

    def fetch():
        try:
            producer.fetch_broker_metadata("t", timeout=2)
        except ProducerClosedError as error:
            outcome.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    time.sleep(0.2)
    with within(0.2):
        producer.close(0.2)
    thread.join(20)
    assert len(outcome) == 1


def test_fault_20_close_flush_sync_send_and_poll_in_a_callback_raise_at_once(make_producer):
    for manual in (False, True):
        producer = make_producer({"enable.manual.events.poll": manual})
        raised = []

        def on_delivery(metadata, error, producer=producer, raised=raised):
            for call in (
                producer.close,
                producer.flush,
                lambda: producer.sync_send(ProducerRecord("t")),
                producer.commit_transaction,
            ):
                try:
                    call()
                except KafkaException as exc:  # noqa: PERF203
                    raised.append(exc.error.code)

        with within(2):
            producer.send(ProducerRecord("t", b"x"), on_delivery)
            producer.flush(10)
        assert raised == [ErrorCode["STATE"]] * 4


# ---------------------------------------------------------------------- dropped


@pytest.mark.parametrize("manual", [False, True])
def test_fault_23_dropped_in_flight_is_delivered_and_called_back(manual):
    outcomes = Outcomes()
    producer = KafkaProducer(
        {
            "test.mock.num.brokers": 1,
            "enable.idempotence": False,
            "linger.ms": 300,
            "enable.manual.events.poll": manual,
        }
    )
    values = [bytearray(b"%d" % i) for i in range(100)]
    for i, value in enumerate(values):
        producer.send(ProducerRecord("t", value), outcomes.expect(i))
    with pytest.warns(ResourceWarning, match="not closed"), within(0):  # noqa: PT031
        del producer
        gc.collect()
    outcomes.wait(100)
    outcomes.check(range(100))
    assert not outcomes.errors


@pytest.mark.parametrize("manual", [False, True])
def test_fault_23_dropped_where_warnings_are_errors(manual, unraisable):
    outcomes = Outcomes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        producer = KafkaProducer(
            {
                "test.mock.num.brokers": 1,
                "enable.idempotence": False,
                "enable.manual.events.poll": manual,
            }
        )
        producer.send(ProducerRecord("t", b"x"), outcomes.expect(0))
        del producer
        gc.collect()
    outcomes.wait(1)
    outcomes.check([0])
    assert [type(error) for error, _ in unraisable] == [ResourceWarning]


def test_fault_23_dropped_in_a_reference_cycle():
    class Owner:
        pass

    outcomes = Outcomes()
    owner = Owner()
    owner.producer = KafkaProducer(
        {"test.mock.num.brokers": 1, "enable.idempotence": False, "linger.ms": 100}
    )
    owner.itself = owner
    report = outcomes.expect(0)

    def on_delivery(
        metadata, error, owner=owner
    ):  # in the cycle for as long as the record is in flight
        report(metadata, error)

    owner.producer.send(ProducerRecord("t", bytearray(b"x")), on_delivery)
    del on_delivery
    with pytest.warns(ResourceWarning):  # noqa: PT031
        del owner
        outcomes.wait(1)
        gc.collect()
    outcomes.check([0])
    assert not outcomes.errors


def test_fault_23_a_callback_that_holds_the_only_reference(recwarn):
    """The last report drops the producer within the events thread, which must not wait
    for itself.
    """
    outcomes = Outcomes()
    producer = KafkaProducer(
        {"test.mock.num.brokers": 1, "enable.idempotence": False, "linger.ms": 100}
    )
    report = outcomes.expect(0)

    def on_delivery(metadata, error, producer=producer):
        report(metadata, error)

    producer.send(ProducerRecord("t", b"x"), on_delivery)
    del producer, on_delivery
    outcomes.wait(1)
    outcomes.check([0])


# ---------------------------------------------------------------------- signals


def interrupted(call, after=0.3, signum=signal.SIGINT):
    """Ctrl-C in the midst of `call`: KeyboardInterrupt, and soon."""
    interrupt_after(after, signum)
    with within(after), pytest.raises(KeyboardInterrupt):
        call()


def block_in_send(producer):
    record = ProducerRecord("t", b"x")
    while True:
        producer.send(record)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("send", block_in_send),
        ("flush", lambda producer: producer.flush()),
        ("sync_send", lambda producer: producer.sync_send(ProducerRecord("t", b"x"))),
        ("close", lambda producer: producer.close()),
        ("fetch_broker_metadata", lambda producer: producer.fetch_broker_metadata("t", timeout=2)),
    ],
)
def test_fault_31_ctrl_c(name, call):
    outcomes = Outcomes()
    producer = unreachable(**{"queue.buffering.max.messages": 10})
    for i in range(5):
        producer.send(ProducerRecord("t", bytearray(b"x")), outcomes.expect(i))
    interrupted(lambda: call(producer))
    if name == "close":  # has begun, and can be taken up again
        with pytest.raises(ProducerClosedError):
            producer.send(ProducerRecord("t", b"x"))
    else:
        producer.purge()
        producer.flush(5)
        producer.send(ProducerRecord("t", b"x"), outcomes.expect(5))
    with within(0.1):
        producer.close(0.1)
    outcomes.check(range(5 if name == "close" else 6))
    assert len(outcomes.errors) == len(outcomes.reports)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("poll_events", lambda producer: producer.poll_events(60)),
        ("poll_events without limit", lambda producer: producer.poll_events(None)),
        ("flush", lambda producer: producer.flush()),
        ("sync_send", lambda producer: producer.sync_send(ProducerRecord("t", b"x"))),
        ("close", lambda producer: producer.close()),
    ],
)
def test_fault_31_ctrl_c_with_manual_polling(name, call):
    outcomes = Outcomes()
    producer = KafkaProducer(
        {
            "bootstrap.servers": closed_port(),
            "log_level": 0,
            "enable.manual.events.poll": True,
            "enable.idempotence": False,
            "reconnect.backoff.ms": 10000,
            "reconnect.backoff.max.ms": 10000,
        }
    )
    for i in range(5):
        producer.send(ProducerRecord("t", bytearray(b"x")), outcomes.expect(i))
    deadline = time.monotonic() + 1  # the events of the connection that fails
    while time.monotonic() < deadline:
        producer.poll_events(0.1)

    def endless():
        while True:
            call(producer)

    interrupted(endless)
    with within(0.1):
        producer.close(0.1)
    outcomes.check(range(5))


def held_by_another_thread():
    monitor = Monitor()
    thread = threading.Thread(target=monitor.acquire, daemon=True)
    thread.start()
    thread.join()
    return monitor


@pytest.mark.found(13)
@pytest.mark.parametrize(
    "call",
    [
        lambda producer: producer.send_batch("t", [b"x"]).wait(30),
        lambda producer: producer.sync_send(ProducerRecord("t", b"x"), 30),
        lambda producer: (producer.send(ProducerRecord("t", b"x")), producer.flush(30)),
        lambda producer: producer.fetch_broker_metadata("t", timeout=30),
        lambda producer: Event().wait(30),
        lambda producer: held_by_another_thread().acquire(timeout=30),
        lambda producer: wait_for_nobody(Monitor(), 30),
    ],
    ids=["batch", "sync_send", "flush", "fetch_broker_metadata", "event", "monitor", "condition"],
)
def test_a_signal_that_interrupts_another_thread_is_seen(call):
    """The kernel gives a signal to whichever thread it likes: its handler is due in the main
    thread, which nothing wakes.
    """
    producer = unreachable()
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
    timer.start()
    try:
        with within(0.3), pytest.raises(KeyboardInterrupt):
            call(producer)
    finally:
        timer.join()
        producer.close(0)


def wait_for_nobody(monitor, timeout):
    with monitor:
        try:
            monitor.wait(timeout)
        finally:
            monitor.release()  # held again, as after every wait
            monitor.acquire()


def test_what_a_signal_handler_raises_while_a_monitor_is_taken_again_is_raised():
    monitor = Monitor()
    waits = Event()

    def keep():
        waits.wait()
        with monitor:
            monitor.notify_all()
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            time.sleep(0.5)

    thread = threading.Thread(target=keep)
    thread.start()
    with monitor:
        waits.set()
        with pytest.raises(KeyboardInterrupt):
            monitor.wait(30)
        monitor.release()
        monitor.acquire()
    thread.join()


def test_events_and_monitors_work_in_a_forked_child():
    """Also where threads that are not there waited at them."""
    run_program(
        """
        event, monitor, waiting = _rdkafka.Event(), _rdkafka.Monitor(), []

        def wait_at_monitor():
            with monitor:
                waiting.append(1)
                monitor.wait(30)

        threads = [threading.Thread(target=target, daemon=True) for target in (event.wait, wait_at_monitor) for _ in range(4)]
        for thread in threads:
            thread.start()
        with monitor:
            while len(waiting) < 4:         # whoever waits there has let go of it
                monitor.wait(0.01)
        for _ in range(20):
            child = os.fork()
            if child == 0:
                event.set()
                assert event.wait(5)
                with monitor:
                    monitor.notify_all()
                    assert not monitor.wait(0.01)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        event.set()
        with monitor:
            monitor.notify_all()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        """,
        flags=("-W", "ignore"),
    )


def test_fault_31_a_signal_handler_may_close_the_producer():
    """Whatever waits in the main thread then is interrupted, and raises: the handler would
    otherwise wait for it for ever.
    """
    calls = {
        "send": (block_in_send, False),
        "flush": (lambda producer: producer.flush(), False),
        "close": (lambda producer: producer.close(), False),
        "poll_events": (lambda producer: [producer.poll_events(1) for _ in range(1000)], True),
        "flush, manual polling": (lambda producer: producer.flush(), True),
    }
    for call, manual in calls.values():
        outcomes = Outcomes()
        producer = unreachable(
            **{"queue.buffering.max.messages": 10, "enable.manual.events.poll": manual}
        )
        for i in range(5):
            producer.send(ProducerRecord("t", bytearray(b"x")), outcomes.expect(i))
        previous = signal.signal(
            signal.SIGTERM, lambda number, frame, producer=producer: producer.close(0.1)
        )
        try:
            interrupt_after(0.2, signal.SIGTERM)
            with within(0.3):
                try:
                    call(producer)
                except ProducerClosedError:
                    pass
                except KafkaException as exc:
                    # The signal came while a log line or an error was being served: in there
                    # close() is refused, and says so here.
                    if not manual or exc.error.code != ErrorCode.STATE:
                        raise
                    producer.close(0.1)
        finally:
            signal.signal(signal.SIGTERM, previous)
        outcomes.check(range(5))
        producer.close()


# ---------------------------------------------------------------------- fork

NO_HANG = """
def wait(pid, timeout=20):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def run_forking(source, **settings):
    return run_program(NO_HANG, source, **settings)


@pytest.mark.parametrize("manual", [False, True])
def test_fault_29_fork_in_the_middle_of_traffic(manual):
    run_forking(
        f"""
        reports = []
        events = []
        producer = KafkaProducer(QUICK, **{{"enable.manual.events.poll": {manual}, "error_cb": events.append}})
        producer.sync_send(ProducerRecord("t", b"x"))
        stop = False
        sent = 0
        def send():
            global sent
            while not stop:
                try:
                    producer.send(ProducerRecord("t", bytearray(b"x" * 100)), lambda metadata, error: reports.append(error))
                    sent += 1
                except QueueFullError:
                    producer.poll_events(0.01)
        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(0.2)
        pid = os.fork()
        if pid == 0:
            record = ProducerRecord("t", b"x")
            for call in (
                lambda: producer.send(record), lambda: producer.try_send(record), lambda: producer.sync_send(record),
                lambda: producer.send_future(record), producer.flush, producer.purge, producer.poll_events, producer.close,
                producer.fetch_broker_metadata, producer.init_transactions, producer.begin_transaction, producer.commit_transaction,
                producer.abort_transaction, lambda: producer.send_offsets_to_transaction({{}}, "g"), producer.__enter__,
                lambda: producer.get_property("acks"), producer.fatal_error, producer.metrics,
            ):
                try:
                    call()
                except ProducerForkedError:
                    continue
                print("no ProducerForkedError", call)
                os._exit(3)
            with KafkaProducer(QUICK) as own:
                assert own.sync_send(ProducerRecord("t", b"x"), timeout=10).offset == 0
            sys.exit(0)         # the whole way out: atexit, finalization, destructors
        assert wait(pid) == 0
        time.sleep(0.1)
        stop = True
        thread.join()
        producer.close()
        assert len(reports) == sent and set(reports) == {{None}}, (len(reports), sent, set(reports))
        assert not events, events
        assert not any(_rdkafka.live_objects().values()), _rdkafka.live_objects()
        """,
        flags=("-W", "error::ResourceWarning"),
    )


def test_fault_29_fork_and_drop_in_the_child():
    run_forking("""
        reports = []
        producer = KafkaProducer(QUICK, **{"linger.ms": 300})
        producer.send(ProducerRecord("t", bytearray(b"x")), lambda metadata, error: reports.append(error))
        pid = os.fork()
        if pid == 0:
            del producer
            gc.collect()
            sys.exit(len(reports))
        assert wait(pid) == 0
        producer.close()
        assert reports == [None]
        """)


@pytest.mark.parametrize("manual", [False, True])
def test_fault_29_fork_inside_a_callback(manual):
    """The child leaves the callback into a producer that is not its own: there are no more
    callbacks, and it ends.
    """
    run_forking(f"""
        pids = []
        reports = []
        def on_delivery(metadata, error):
            reports.append(error)
            if not pids:
                pids.append(os.fork())
                if pids == [0]:
                    reports.clear()
        producer = KafkaProducer(QUICK, **{{"linger.ms": 50, "enable.manual.events.poll": {manual}}})
        for i in range(100):
            producer.send(ProducerRecord("t", b"x"), on_delivery)
        try:
            producer.flush()
        except ProducerForkedError:
            assert {manual}
            sys.exit(len(reports))
        assert wait(pids[0]) == 0
        producer.close()
        assert reports == [None] * 100, len(reports)
        """)


def test_fault_29_multiprocessing_with_fork():
    run_forking("""
        import multiprocessing

        reports = []
        producer = KafkaProducer(QUICK)
        def work(queue):
            try:
                producer.send(ProducerRecord("t", b"x"))
            except ProducerForkedError as error:
                queue.put(type(error).__name__)
            with KafkaProducer(QUICK) as own:
                queue.put(own.sync_send(ProducerRecord("t", b"x"), timeout=10).offset)

        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        children = [context.Process(target=work, args=(queue,)) for _ in range(3)]
        for child in children:
            child.start()
            producer.send(ProducerRecord("t", b"x"), lambda metadata, error: reports.append(error))
        outcomes = sorted(str(queue.get(timeout=20)) for _ in range(6))
        for child in children:
            child.join(20)
            assert child.exitcode == 0, child.exitcode
        assert outcomes == ["0"] * 3 + ["ProducerForkedError"] * 3, outcomes
        producer.close()
        assert reports == [None] * 3
        """)


def test_fault_29_grandchildren():
    run_forking("""
        with KafkaProducer(QUICK) as producer:
            producer.sync_send(ProducerRecord("t", b"x"))
            pid = os.fork()
            if pid == 0:
                own = KafkaProducer(QUICK)
                grandchild = os.fork()
                if grandchild == 0:
                    for theirs in (producer, own):
                        try:
                            theirs.flush()
                        except ProducerForkedError:
                            continue
                        os._exit(3)
                    os._exit(0)
                code = wait(grandchild)
                own.sync_send(ProducerRecord("t", b"x"), timeout=10)
                own.close()
                os._exit(code)
            assert wait(pid) == 0
            producer.sync_send(ProducerRecord("t", b"x"), timeout=10)
        """)


# ---------------------------------------------------------------------- the interpreter's exit

SEND_AND_LEAVE = """
reports = []
def on_delivery(metadata, error):
    reports.append(error)
    if len(reports) == 100:
        print("reports", len(reports), reports.count(None), flush=True)
producer = KafkaProducer(QUICK, **{"linger.ms": 300, "enable.manual.events.poll": sys.argv[1] == "manual"})
for i in range(100):
    producer.send(ProducerRecord("t", bytearray(b"x" * 100)), on_delivery)
"""


@pytest.mark.parametrize("mode", ["events thread", "manual"])
@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "del producer"])
def test_fault_30_exit_in_flight_delivers_and_calls_back(mode, ending):
    done = run_program(SEND_AND_LEAVE, ending, arguments=[mode])
    assert done.stdout.split() == ["reports", "100", "100"]


def test_fault_30_exit_by_an_exception():
    done = run_program(
        SEND_AND_LEAVE, "raise RuntimeError('oops')", arguments=["thread"], check=False
    )
    assert done.returncode == 1
    assert done.stdout.split() == ["reports", "100", "100"]
    assert done.stderr.count("Traceback") == 1


def test_fault_30_os_exit_is_the_callers_own_loss():
    """Documented, not promised: nothing of Python runs any more, but the process ends at once and
    in peace.
    """
    done = run_program(SEND_AND_LEAVE, "os._exit(7)", arguments=["thread"], check=False)
    assert done.returncode == 7
    assert not done.stdout


def test_fault_30_exit_is_bounded_when_no_broker_is_there():
    with within(10):
        done = run_program(
            """
            from kafka_ext import _lifecycle
            _lifecycle.EXIT_TIMEOUT = 0.5
            reports = []
            def on_delivery(metadata, error):
                reports.append(error)
                if len(reports) == 4:
                    print(*[error.name for error in reports], flush=True)
            producers = [KafkaProducer(UNREACHABLE) for _ in range(4)]
            for producer in producers:
                producer.send(ProducerRecord("t", bytearray(b"x")), on_delivery)
            del producer, producers[0]      # one of them has been abandoned
            """,
            flags=("-W", "ignore::ResourceWarning"),
        )
    assert done.stdout.split() == ["PURGE_QUEUE"] * 4
    assert not done.stderr


def test_fault_30_exit_with_daemon_threads_that_send():
    done = run_program("""
        producer = KafkaProducer(QUICK, **{"queue.buffering.max.messages": 1000})
        sent, reports = [0] * 4, []
        def send(i):
            while True:
                producer.send(ProducerRecord("t", bytearray(b"x" * 100)), lambda metadata, error: reports.append(error))
                sent[i] += 1
        def send_until_closed(i):
            try:
                send(i)
            except ProducerClosedError:
                pass
        import atexit
        from kafka_ext import _lifecycle
        atexit.unregister(_lifecycle._close_all)
        atexit.register(lambda: print(sum(sent) == len(reports), set(reports), flush=True))
        atexit.register(_lifecycle._close_all)      # runs before the line above
        for i in range(4):
            threading.Thread(target=send_until_closed, args=(i,), daemon=True).start()
        time.sleep(0.3)
        """)
    assert done.stdout.strip() == "True {None}"
    assert not done.stderr


# ---------------------------------------------------------------------- batches


@pytest.mark.parametrize("manual", [False, True])
def test_fault_31_a_signal_handler_may_close_the_producer_under_a_transactions_call(manual):
    producer = unreachable(
        **{
            "transactional.id": "one",
            "enable.idempotence": True,
            "enable.manual.events.poll": manual,
        }
    )
    previous = signal.signal(signal.SIGTERM, lambda number, frame: producer.close(0.1))
    try:
        interrupt_after(0.2, signal.SIGTERM)
        with within(0.3), pytest.raises(ProducerClosedError):
            producer.init_transactions(20)
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_fault_31_a_signal_handler_may_close_the_producer_under_a_batch():
    producer = unreachable(**{"queue.buffering.max.messages": 10})
    completed = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: producer.close(0.1))
    try:
        interrupt_after(0.2, signal.SIGTERM)
        with within(0.3), pytest.raises(ProducerClosedError):
            producer.send_batch(
                "t", [bytearray(b"x") for _ in range(100)], on_delivery=completed.append
            )
    finally:
        signal.signal(signal.SIGTERM, previous)
    (batch,) = completed
    assert batch.done()
    assert batch.failed == 100
    producer.close()


# ---------------------------------------------------------------------- what callbacks raise in the
# events thread


def test_fault_18_what_a_callback_raises_goes_to_the_unraisable_hook(make_producer, unraisable):
    class Interceptor:
        def on_send(self, record):
            raise ValueError("on_send")

        def on_acknowledgement(self, metadata, error):
            raise ValueError("on_acknowledgement")

    def on_delivery(metadata, error):
        raise RuntimeError("on_delivery")

    producer = make_producer({"interceptors": [Interceptor()]})
    producer.send(ProducerRecord("t", b"x"), on_delivery)
    producer.close()
    assert [str(error) for error, _ in unraisable] == [
        "on_send",
        "on_acknowledgement",
        "on_delivery",
    ]
    assert unraisable[2][0].__traceback__ is not None
