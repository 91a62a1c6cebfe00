"""Every public call from inside every hook, on each kind of producer, with a full queue and no broker: each ends within its timeout."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import pyarrow as pa
import pytest
from faultlib import PATIENCE, closed_port

from kafka_ext import KafkaProducer, ProducerRecord
from kafka_ext.recoverable import RecoverableProducer

pytestmark = [pytest.mark.found(13), pytest.mark.timeout(60)]

TIMEOUT = 0.05
# What the promise allows beyond a timeout, and what a loaded machine gets on top.
LATE = 0.25 + PATIENCE

RECORD = ProducerRecord("t", b"v")

CALLS = {
    "send": lambda p: p.send(RECORD, timeout=TIMEOUT),
    "try_send": lambda p: p.try_send(RECORD),
    "sync_send": lambda p: p.sync_send(RECORD, timeout=TIMEOUT),
    "send_future": lambda p: p.send_future(RECORD, timeout=TIMEOUT).result(TIMEOUT),
    "send_batch": lambda p: p.send_batch("t", [b"a", b"b"], timeout=TIMEOUT).wait(TIMEOUT),
    "send_table": lambda p: p.send_table(pa.table({"v": [b"a"]}), topic="t", value="v", timeout=TIMEOUT),
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


class Hook:
    """Makes all the calls, once, wherever it is called; what took too long, and which it made."""

    def __init__(self):
        self.producer = None
        self.made = []
        self.late = []
        self.over = threading.Event()
        self.begun = False

    def __call__(self):
        if self.producer is None or self.begun:
            return
        self.begun = True
        for name, call in CALLS.items():
            started = time.monotonic()
            try:
                call(self.producer)
            except Exception:  # noqa: BLE001 - works or raises; how long it takes is the question
                pass
            took = time.monotonic() - started
            self.made.append(name)
            if took > TIMEOUT + LATE:
                self.late.append((name, took))
        self.over.set()


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


def headers(hook):
    hook()
    yield "name", b"value"


def stream(hook):
    def chunks():
        hook()
        yield pa.record_batch({"v": [b"v"]})

    return pa.RecordBatchReader.from_batches(pa.schema({"v": pa.binary()}), chunks())


def serializer(hook):
    def serialize(value):
        hook()
        return value

    return serialize


def in_a_signal_handler(hook):
    """The handler comes while the interpreter is in a header iterator of a send."""
    before = signal.signal(signal.SIGUSR1, lambda number, frame: hook())
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.001)
        yield "name", b"value"
    finally:
        signal.signal(signal.SIGUSR1, before)


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


def a_finalized_value(producer, hook):
    value = Finalized(b"v")
    value.hook = hook
    producer.purge()
    producer.send(ProducerRecord("t", value), timeout=5)
    del value
    producer.purge()


# name: (the producer's settings, what makes the hook be called)
HOOKS = {
    "headers": (lambda hook: {}, lambda p, hook: p.send(ProducerRecord("t", b"v", headers=headers(hook)), timeout=TIMEOUT)),
    "batch headers": (lambda hook: {}, lambda p, hook: p.send_batch("t", [b"v"], headers=headers(hook), timeout=TIMEOUT)),
    "stream": (lambda hook: {}, lambda p, hook: p.send_table(stream(hook), topic="t", value="v", timeout=TIMEOUT)),
    "serializer": (lambda hook: {"value_serializer": serializer(hook)}, lambda p, hook: p.send(RECORD, timeout=TIMEOUT)),
    "on_send": (lambda hook: {"interceptors": [Interceptor(on_send=hook)]}, lambda p, hook: p.send(RECORD, timeout=TIMEOUT)),
    "on_acknowledgement": (lambda hook: {"interceptors": [Interceptor(on_acknowledgement=hook)]}, lambda p, hook: p.purge()),
    "on_delivery": (lambda hook: {}, lambda p, hook: p.purge()),
    "batch on_delivery": (lambda hook: {}, lambda p, hook: p.send_batch("t", [b"v"], on_delivery=lambda batch: hook(), timeout=0)),
    "error_cb": (lambda hook: {"error_cb": lambda error: hook()}, lambda p, hook: None),
    "stats_cb": (lambda hook: {"stats_cb": lambda stats: hook(), "statistics.interval.ms": 50}, lambda p, hook: None),
    "log_cb": (lambda hook: {"log_cb": lambda *log: hook(), "debug": "broker", "log_level": 7}, lambda p, hook: None),
    "finalizer": (lambda hook: {}, a_finalized_value),
    "collection": (lambda hook: {}, lambda p, hook: p.send(ProducerRecord("t", b"v", headers=collected(hook)), timeout=TIMEOUT)),
    "signal": (lambda hook: {}, lambda p, hook: p.send(ProducerRecord("t", b"v", headers=in_a_signal_handler(hook)), timeout=TIMEOUT)),
}


@pytest.mark.parametrize("kind", ["threaded", "manual", "recoverable"])
@pytest.mark.parametrize("name", HOOKS)
def test_every_call_in_every_hook(name, kind, recwarn):
    hook = Hook()
    settings, trigger = HOOKS[name]
    given = {
        "bootstrap.servers": closed_port(),
        "log_level": 0,
        "error_cb": lambda error: None,
        "enable.idempotence": False,
        "queue.buffering.max.messages": 1,
        "linger.ms": 0,
    } | settings(hook)
    if kind == "manual":
        given["enable.manual.events.poll"] = True
    if kind == "recoverable" and name in {"batch headers", "stream", "batch on_delivery"}:
        pytest.skip("a RecoverableProducer sends no batches")
    if kind == "recoverable" and set(given) & {"value_serializer", "interceptors"}:
        pytest.skip("a RecoverableProducer's records may be serialized and intercepted more than once")
    producer = (RecoverableProducer if kind == "recoverable" else KafkaProducer)(given)
    producer.send(RECORD, (lambda metadata, error: hook()) if name == "on_delivery" else None)
    hook.producer = producer
    try:
        trigger(producer, hook)
    except Exception:  # noqa: BLE001 - as a rule it is closed by now
        pass
    deadline = time.monotonic() + 20
    while not hook.over.wait(0.05) and time.monotonic() < deadline:
        if kind == "manual" and not hook.begun:
            producer.poll_events(0.05)
    assert hook.made == list(CALLS)
    assert not hook.late
    started = time.monotonic()
    producer.close(TIMEOUT)
    assert time.monotonic() - started < TIMEOUT + LATE
