"""Every public call from inside every hook, on each kind of producer, with a full queue and no
broker: each ends within its timeout.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import inspect
import os
import signal
import threading
import time

import pyarrow as pa
import pytest
from faultlib import PATIENCE, Throttling, closed_port

from kafka_ext import KafkaProducer, OAuthBearerToken, ProducerRecord
from kafka_ext.aio import AsyncKafkaProducer
from kafka_ext.recoverable import RecoverableProducer
from kafka_ext.testing import EmbeddedBroker

pytestmark = [pytest.mark.found(13), pytest.mark.timeout(60)]

TIMEOUT = 0.02
# What the promise allows beyond a timeout, and what a loaded machine gets on top.
LATE = 0.25 + PATIENCE

RECORD = ProducerRecord("t", b"v")
TABLE = pa.table({"v": [b"a"]})  # made here: the first one imports pandas

CALLS = {
    "send": lambda p: p.send(RECORD, timeout=TIMEOUT),
    "try_send": lambda p: p.try_send(RECORD),
    "sync_send": lambda p: p.sync_send(RECORD, timeout=TIMEOUT),
    "send_future": lambda p: p.send_future(RECORD, timeout=TIMEOUT).result(TIMEOUT),
    "send_batch": lambda p: p.send_batch("t", [b"a", b"b"], timeout=TIMEOUT).wait(TIMEOUT),
    "send_table": lambda p: p.send_table(TABLE, topic="t", value="v", timeout=TIMEOUT),
    "flush": lambda p: p.flush(TIMEOUT),
    "poll_events": lambda p: p.poll_events(TIMEOUT),
    "fetch_broker_metadata": lambda p: p.fetch_broker_metadata("t", timeout=TIMEOUT),
    "init_transactions": lambda p: p.init_transactions(TIMEOUT),
    "begin_transaction": lambda p: p.begin_transaction(),
    "commit_transaction": lambda p: p.commit_transaction(TIMEOUT),
    "abort_transaction": lambda p: p.abort_transaction(TIMEOUT),
    "send_offsets": lambda p: p.send_offsets_to_transaction({("t", 0): 1}, "g", TIMEOUT),
    "metrics": lambda p: p.metrics(),
    "get_property": lambda p: p.get_property("acks"),
    "fatal_error": lambda p: p.fatal_error(),
    "repr": repr,
    "purge": lambda p: p.purge(),
    "close": lambda p: p.close(TIMEOUT),
}

# asyncio's producer has these instead. Sends are cancelled when their time is up.
ASYNC_CALLS = CALLS | {
    "send": lambda p: p.send(RECORD),
    "try_send": lambda p: p.send_and_wait(RECORD),
    "sync_send": lambda p: p.send_and_wait(RECORD),
    "send_future": lambda p: p.send(RECORD),
    "send_batch": lambda p: p.send_batch("t", [b"a", b"b"]),
    "send_table": lambda p: p.send_table(TABLE, topic="t", value="v"),
}


class Hook:
    """Makes all the calls, once, wherever it is called; what took too long, and which it made."""

    def __init__(self, in_signal_handler):
        self.in_signal_handler = in_signal_handler
        self.producer = None
        self.ready = threading.Event()  # there is a producer to call
        self.made = []
        self.late = []
        self.begun = False
        self.last = threading.Event()  # only close() is left, which waits for the events thread
        self.over = threading.Event()

    def arm(self, producer):
        self.producer = producer
        self.ready.set()

    def __call__(self, *ignored):
        in_main = threading.current_thread() is threading.main_thread()
        if not in_main:
            self.ready.wait(10)
        if self.producer is None or self.begun:
            return
        self.begun = True
        if not self.in_signal_handler:
            self.run()
            return
        os.kill(os.getpid(), signal.SIGUSR1)
        if in_main:
            time.sleep(0.001)
        else:
            self.last.wait(10)

    def run(self):
        for name, call in CALLS.items():
            if name == "close":
                self.last.set()
            started = time.monotonic()
            try:
                call(self.producer)
            except Exception:  # noqa: BLE001 - works or raises; how long it takes is the question
                pass
            self.judge(name, started)
            self.made.append(name)
        self.over.set()

    def judge(self, name, started):
        took = time.monotonic() - started
        if took > TIMEOUT + LATE:
            self.late.append((name, took))


class AsyncHook(Hook):
    """The same where a loop runs: the first step of each call in the hook itself, then all of them
    in a task.
    """

    def run(self):
        for name, call in ASYNC_CALLS.items():
            if name != "close":
                started = time.monotonic()
                try:
                    first_step(call(self.producer))
                except Exception:  # noqa: BLE001
                    pass
                self.judge(f"first step of {name}", started)
        self.loop.call_soon_threadsafe(self.go_on)

    def go_on(self):
        self.task = self.loop.create_task(self.call_all())

    async def call_all(self):
        for name, call in ASYNC_CALLS.items():
            started = time.monotonic()
            try:
                result = call(self.producer)
                if inspect.isawaitable(result):
                    await (result if name == "close" else asyncio.wait_for(result, TIMEOUT))
            except Exception:  # noqa: BLE001
                pass
            self.judge(name, started)
            self.made.append(name)
        self.over.set()


def first_step(call):
    if inspect.isawaitable(call):
        steps = call.__await__()
        try:
            next(steps)
        except StopIteration:
            pass
        finally:
            steps.close()


# ------------------------------------------------------------------ what calls the hook


class Interceptor:
    def __init__(self, on_send=None, on_acknowledgement=None):
        self.sends, self.acknowledges = on_send, on_acknowledgement

    def on_send(self, record):
        if self.sends:
            self.sends()
        return record

    def on_acknowledgement(self, metadata, error):
        if self.acknowledges:
            self.acknowledges()


class Finalized(bytearray):
    hook = None

    def __del__(self):
        if self.hook:
            self.hook()


class Number:
    def __init__(self, hook):
        self.hook = hook

    def __index__(self):
        self.hook()
        return 0


class Arrow:
    """A column whose Arrow capsules are made when they are asked for."""

    def __init__(self, hook):
        self.hook = hook

    def __arrow_c_array__(self, requested_schema=None):
        self.hook()
        return pa.array([b"v"]).__arrow_c_array__(requested_schema)


def headers(hook):
    hook()
    yield "name", b"value"


def stream(hook):
    def chunks():
        hook()
        yield pa.record_batch({"v": [b"v"]})

    return pa.RecordBatchReader.from_batches(pa.schema({"v": pa.binary()}), chunks())


def collected(hook):
    """A cycle with a finalizer, which a collection in the middle of a send finds."""

    class Cycle:
        def __init__(self):
            self.itself = self

        def __del__(self):
            hook()

    Cycle()
    gc.collect()
    yield "name", b"value"


def returning(hook, result):
    def call(*arguments):
        hook()
        return arguments[-1] if result is None else result

    return call


class Slot(ctypes.Structure):
    _fields_ = (("slot", ctypes.c_int), ("function", ctypes.c_void_p))


class Spec(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("basicsize", ctypes.c_int),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(Slot)),
    )


CONTENT = ctypes.create_string_buffer(b"v", 1)
# id of an exporter -> what is called when its buffer is taken, and when it is given back
BUFFER_HOOKS = {}


@ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
def take_buffer(exporter, view, flags):
    BUFFER_HOOKS[exporter][0]()
    fill = ctypes.pythonapi.PyBuffer_FillInfo
    return fill(
        *map(ctypes.c_void_p, (view, exporter, ctypes.addressof(CONTENT))),
        ctypes.c_ssize_t(1),
        1,
        flags,
    )


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
def give_buffer_back(exporter, view):
    BUFFER_HOOKS[exporter][1]()


def exporter_type():
    """A type whose buffer hooks call Python, in versions before 3.12, which brought `__buffer__`,
    as well.
    """
    make = ctypes.pythonapi.PyType_FromSpec
    make.restype, make.argtypes = ctypes.py_object, [ctypes.POINTER(Spec)]
    slots = (Slot * 3)(
        Slot(1, ctypes.cast(take_buffer, ctypes.c_void_p).value),  # Py_bf_getbuffer
        Slot(2, ctypes.cast(give_buffer_back, ctypes.c_void_p).value),  # Py_bf_releasebuffer
        Slot(0, None),
    )
    return make(
        Spec(b"matrix.Exporter", object.__basicsize__, 0, 1 << 18, slots)
    )  # Py_TPFLAGS_DEFAULT


Exporter = exporter_type()


def exporter(taken=lambda: None, given_back=lambda: None):
    made = Exporter()
    BUFFER_HOOKS[id(made)] = taken, given_back
    return made


# ------------------------------------------------------------------ the hooks


class Target:
    """A producer of any kind, with a `timeout` where it takes one."""

    def __init__(self, producer):
        self.producer = producer
        self.options = {} if isinstance(producer, AsyncKafkaProducer) else {"timeout": TIMEOUT}

    def send(self, value=b"v", **fields):
        return self.producer.send(ProducerRecord("t", value, **fields), **self.options)

    def send_batch(self, values=(b"v",), **columns):
        return self.producer.send_batch(
            "t", list(values) if isinstance(values, tuple) else values, **columns, **self.options
        )

    def send_stream(self, table):
        return self.producer.send_table(table, topic="t", value="v", **self.options)

    def purge(self):
        self.producer.purge()

    def send_and_purge(self, value):
        """A value that the producer alone holds, let go by whoever serves the events."""
        self.producer.purge()
        sending = self.producer.send(
            ProducerRecord("t", value), **(self.options and {"timeout": 5})
        )
        del value
        return self.purge_after(sending)

    def send_batch_and_purge(self, **arguments):
        self.producer.purge()
        return self.purge_after(
            self.producer.send_batch("t", [b"v"], **arguments, **(self.options and {"timeout": 5}))
        )

    def purge_after(self, sending):
        if not self.options:
            return self.await_and_purge([sending])
        self.producer.purge()
        return None

    async def await_and_purge(self, sending):
        await sending.pop()
        self.producer.purge()


def finalized(hook):
    value = Finalized(b"v")
    value.hook = hook
    return value


def plain(hook):
    return {}


def nothing(target, hook):
    """It is called by itself."""


# name: (the producer's settings, what makes the hook be called)
HOOKS = {
    "partitioner": (lambda hook: {"partitioner": returning(hook, 0)}, lambda to, hook: to.send()),
    "serializer": (
        lambda hook: {"value_serializer": returning(hook, None)},
        lambda to, hook: to.send(),
    ),
    "on_send": (
        lambda hook: {"interceptors": [Interceptor(on_send=hook)]},
        lambda to, hook: to.send(),
    ),
    "on_acknowledgement": (
        lambda hook: {"interceptors": [Interceptor(on_acknowledgement=hook)]},
        lambda to, hook: to.purge(),
    ),
    "headers": (plain, lambda to, hook: to.send(headers=headers(hook))),
    "batch headers": (plain, lambda to, hook: to.send_batch(headers=headers(hook))),
    "stream": (plain, lambda to, hook: to.send_stream(stream(hook))),
    "arrow": (plain, lambda to, hook: to.send_batch(Arrow(hook))),
    "batch partitions": (plain, lambda to, hook: to.send_batch(partitions=[Number(hook)])),
    "buffer": (plain, lambda to, hook: to.send(exporter(hook))),
    "key buffer": (plain, lambda to, hook: to.send(key=exporter(hook))),
    "header buffer": (plain, lambda to, hook: to.send(headers=[("name", exporter(hook))])),
    "batch buffer": (plain, lambda to, hook: to.send_batch((exporter(hook),))),
    "buffer given back": (plain, lambda to, hook: to.send_and_purge(exporter(given_back=hook))),
    "finalizer": (plain, lambda to, hook: to.send_and_purge(finalized(hook))),
    "collection": (plain, lambda to, hook: to.send(headers=collected(hook))),
    "on_delivery": (plain, lambda to, hook: to.purge()),
    "batch on_delivery": (plain, lambda to, hook: to.send_batch_and_purge(on_delivery=hook)),
    "error_cb": (lambda hook: {"error_cb": hook}, nothing),
    "stats_cb": (lambda hook: {"stats_cb": hook, "statistics.interval.ms": 50}, nothing),
    "log_cb": (lambda hook: {"log_cb": hook, "debug": "broker", "log_level": 7}, nothing),
    "throttle_cb": (lambda hook: {"throttle_cb": hook}, nothing),
    "token refresh": (
        lambda hook: {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanisms": "OAUTHBEARER",
            "oauthbearer_token_refresh_cb": returning(
                hook, OAuthBearerToken("token", int(time.time() + 3600) * 1000)
            ),
        },
        nothing,
    ),
}

# Recoverable producers that resend keep no batches, and may serialize and intercept a record more
# than once.
REPORTING = {
    "batch headers",
    "stream",
    "arrow",
    "batch partitions",
    "batch buffer",
    "batch on_delivery",
    "serializer",
    "on_send",
    "on_acknowledgement",
}
IN_A_SIGNAL_HANDLER = pytest.mark.parametrize(
    "in_signal_handler", [False, True], ids=["itself", "signal"]
)


@pytest.fixture
def signals():
    """The hook that a signal handler calls."""
    hooks = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: hooks[0].run())
    yield hooks
    signal.signal(signal.SIGUSR1, before)
    BUFFER_HOOKS.clear()


def settings_for(name, hook, address):
    return {
        "bootstrap.servers": address,
        "log_level": 0,
        "error_cb": lambda error: None,
        "enable.idempotence": False,
        "queue.buffering.max.messages": 1,
        "linger.ms": 0,
    } | HOOKS[name][0](hook)


class Cluster:
    """What the hook's producer connects to: nobody, or for the hooks that need one a broker that is
    gone before the calls begin.
    """

    def __init__(self, name, needed=False):
        self.address = closed_port()
        self.broker = self.proxy = None
        if needed or name in ("partitioner", "throttle_cb"):
            self.broker = EmbeddedBroker(topics={"t": 1})
            self.address = self.broker.bootstrap_servers
        if name == "throttle_cb":
            self.proxy = Throttling(int(self.address.rpartition(":")[2]), 50)
            self.address = f"127.0.0.1:{self.proxy.port}"

    def close(self):
        if self.proxy:
            self.proxy.close()
        if self.broker:
            self.broker.close()


KINDS = [
    (kind, in_handler)
    for kind in ("threaded", "manual", "recoverable")
    for in_handler in (False, True)
] + [("transactional", False)]


@pytest.mark.parametrize(("kind", "in_signal_handler"), KINDS)
@pytest.mark.parametrize("name", HOOKS)
def test_every_call_in_every_hook(name, kind, in_signal_handler, signals, recwarn):
    hook = Hook(in_signal_handler)
    signals.append(hook)
    in_transaction = (
        kind == "transactional" and name != "token refresh"
    )  # EmbeddedBroker has no SASL
    cluster = Cluster(name, in_transaction)
    given = settings_for(name, hook, cluster.address)
    if kind == "manual":
        given["enable.manual.events.poll"] = True
    if kind == "transactional":
        given |= {"enable.idempotence": True, "transactional.id": "one"}
    if kind == "recoverable":
        producer = RecoverableProducer(given, on_fatal="report" if name in REPORTING else "resend")
    else:
        producer = KafkaProducer(given)
    if in_transaction:
        producer.init_transactions(20)
        producer.begin_transaction()
    if name == "partitioner":
        producer.sync_send(RECORD, timeout=10)
    if name != "throttle_cb":
        cluster.close()
    if kind != "transactional" or in_transaction:
        producer.send(RECORD, hook if name == "on_delivery" else None)
    hook.arm(producer)
    try:
        HOOKS[name][1](Target(producer), hook)
    except Exception:  # noqa: BLE001 - as a rule it is closed by now
        pass
    deadline = time.monotonic() + 20
    while not hook.over.wait(0.01) and time.monotonic() < deadline:
        if kind == "manual" and not hook.begun:
            producer.poll_events(0.05)
    cluster.close()
    assert hook.made == list(CALLS)
    assert not hook.late
    started = time.monotonic()
    producer.close(TIMEOUT)
    assert time.monotonic() - started < TIMEOUT + LATE


@IN_A_SIGNAL_HANDLER
@pytest.mark.parametrize("name", HOOKS)
def test_every_call_of_asyncio_in_every_hook(name, in_signal_handler, signals, recwarn):
    hook = AsyncHook(in_signal_handler)
    signals.append(hook)
    cluster = Cluster(name)

    async def main():
        hook.loop = asyncio.get_running_loop()
        producer = AsyncKafkaProducer(settings_for(name, hook, cluster.address))
        if name == "partitioner":
            await producer.send_and_wait(RECORD)
            cluster.close()
        future = await producer.send(RECORD)
        if name == "on_delivery":
            future.add_done_callback(hook)
        hook.arm(producer)
        try:
            triggered = HOOKS[name][1](Target(producer), hook)
            if inspect.isawaitable(triggered):
                await asyncio.wait_for(triggered, 5)
        except Exception:  # noqa: BLE001 - as a rule it is closed by now
            pass
        deadline = time.monotonic() + 20
        while not hook.over.is_set() and time.monotonic() < deadline:  # noqa: ASYNC110 - set by a signal handler
            await asyncio.sleep(0.01)
        started = time.monotonic()
        await producer.aclose(TIMEOUT)
        assert time.monotonic() - started < TIMEOUT + LATE
        if not future.cancelled():
            future.exception()

    asyncio.run(main())
    cluster.close()
    assert hook.made == list(ASYNC_CALLS)
    assert not hook.late
