"""KafkaHandler: log records go to Kafka, and the program that logs does not notice."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.config
import os
import sys
import threading

import pytest
from faultlib import run_program, wait_until, within

from kafka_ext import ErrorCode, InvalidConfigError, KafkaException, KafkaProducer, ProducerRecord
from kafka_ext.logging import JsonFormatter, KafkaHandler
from kafka_ext.testing import EmbeddedBroker

UNREACHABLE = {
    "bootstrap.servers": "127.0.0.1:1",
    "log_level": 0,
    "error_cb": lambda error: None,
    "enable.idempotence": False,
}


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"logs": 1}) as broker:
        yield broker


@pytest.fixture
def logger(request):
    logger = logging.getLogger(f"test.{request.node.name}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture
def attach(broker, logger):
    def make(properties=None, **arguments):
        if "producer" not in arguments:
            properties = broker.config(enable_idempotence=False, linger_ms=0) | (properties or {})
        handler = KafkaHandler("logs", properties, **arguments)
        logger.addHandler(handler)
        return handler

    return make


def test_a_record_with_key_headers_and_time(broker, logger, attach):
    handler = attach(
        key="name",
        headers={"level": "levelname", "line": lambda record: record.lineno, "none": "absent"},
    )
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.warning("out of %s", "paper")
    handler.flush()
    (message,) = broker.messages("logs")
    assert (message.key, message.value) == (logger.name.encode(), b"WARNING out of paper")
    headers = dict(message.headers)
    assert headers["level"] == b"WARNING"
    assert headers["line"].isdigit()
    assert "none" not in headers
    assert (
        abs(message.timestamp / 1000 - logging.LogRecord("", 0, "", 0, "", (), None).created) < 60
    )
    assert (handler.dropped, handler.failed) == (0, 0)


def test_json(broker, logger, attach):
    handler = attach(headers=["levelname"])
    handler.setFormatter(JsonFormatter(["process"], {"service": "shop"}))
    try:
        raise LookupError("no such order")
    except LookupError:
        logger.exception("order %d", 5, extra={"order": 5, "strange": object})
    handler.flush()
    (message,) = broker.messages("logs")
    document = json.loads(message.value)
    assert document["message"] == "order 5"
    assert document["level"] == "ERROR"
    assert document["logger"] == logger.name
    assert document["service"] == "shop"
    assert document["process"] == os.getpid()
    assert document["order"] == 5
    assert document["strange"] == "<class 'object'>"
    assert document["exception"].endswith("LookupError: no such order")
    assert document["time"].endswith("Z")
    assert set(document) == {
        "time",
        "level",
        "logger",
        "message",
        "service",
        "process",
        "order",
        "strange",
        "exception",
    }


def test_dict_config(broker):
    name = "test.configured"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {"()": "kafka_ext.logging.JsonFormatter", "static": {"service": "shop"}}
            },
            "handlers": {
                "kafka": {
                    "class": "kafka_ext.logging.KafkaHandler",
                    "level": "INFO",
                    "formatter": "json",
                    "topic": "logs",
                    "properties": {
                        "bootstrap.servers": broker.bootstrap_servers,
                        "enable.idempotence": False,
                    },
                    "key": "name",
                    "headers": ["levelname"],
                }
            },
            "loggers": {name: {"level": "DEBUG", "handlers": ["kafka"], "propagate": False}},
        }
    )
    logger = logging.getLogger(name)
    logger.debug("not this")
    logger.info("this")
    (handler,) = logger.handlers
    logger.removeHandler(handler)
    handler.close()
    (message,) = broker.messages("logs")
    assert (json.loads(message.value)["message"], message.key, message.headers) == (
        "this",
        name.encode(),
        [("levelname", b"INFO")],
    )


# ---------------------------------------------------------------------- it never blocks


def test_a_full_queue_drops_and_counts(logger, attach, caplog):
    handler = attach(UNREACHABLE | {"queue.buffering.max.messages": 10}, flush_timeout=0.2)
    with within(0):
        for number in range(100):
            logger.info("record %d", number)
    assert handler.dropped == 90
    logger.removeHandler(handler)
    with within(0.2):
        handler.close()
    assert (handler.dropped, handler.failed) == (90, 10)
    assert "90 were dropped and 10 not delivered" in caplog.text
    with within(0):
        handler.handle(logging.makeLogRecord({"msg": "too late"}))
    assert handler.dropped == 91
    handler.close()


def test_a_partitioner_of_ones_own_that_has_no_partitions_yet_does_not_block(logger, attach):
    handler = attach(UNREACHABLE | {"partitioner": lambda topic, key, count: 0}, flush_timeout=0)
    with within(0):
        logger.info("a")
    assert handler.dropped == 1


def test_flush_has_an_end(logger, attach):
    handler = attach(UNREACHABLE, flush_timeout=0.2)
    logger.info("a")
    with within(0.2):
        handler.flush()
    with within(0.2):
        handler.close()


def test_threads_do_not_wait_for_one_another(logger, attach):
    """The handler's lock is not taken: one thread that is slow to format does not stop
    the others.
    """
    handler = attach()
    inside, go_on = threading.Event(), threading.Event()

    class Slow(logging.Formatter):
        def format(self, record):
            if record.msg == "slow":
                inside.set()
                assert go_on.wait(10)
            return super().format(record)

    handler.setFormatter(Slow())
    thread = threading.Thread(target=logger.info, args=("slow",))
    thread.start()
    assert inside.wait(10)
    with within(0):
        logger.info("quick")
    go_on.set()
    thread.join()
    assert handler.dropped == 0


# ---------------------------------------------------------------------- it never recurses


@pytest.fixture
def on_root(broker):
    """Where it is most dangerous: everything that anybody logs comes to it."""
    handler = KafkaHandler(
        "logs", broker.config(enable_idempotence=False, linger_ms=0, debug="all")
    )
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("kafka_ext").setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)
    logging.getLogger("kafka_ext").setLevel(logging.NOTSET)
    handler.close()


def test_what_producers_log_is_passed_over(broker, on_root):
    """librdkafka's debugging log says several things of each message sent: with a loop here it
    would never end.
    """
    logging.getLogger("app").info("one")
    logging.getLogger("kafka_ext.logging").error("two")
    logging.getLogger("kafka_extra").info("three")
    on_root.flush()
    assert (
        {b"one", b"three"}
        <= {message.value for message in broker.messages("logs")}
        <= {b"one", b"three", b""}
    )
    assert on_root.dropped == 0


def test_a_signal_handler_that_logs_while_a_forked_child_makes_its_producer():
    run_program(
        """
        import logging
        from kafka_ext.logging import KafkaHandler

        handler = KafkaHandler("logs", UNREACHABLE, flush_timeout=0)
        logger = logging.getLogger("test")
        logger.addHandler(handler)
        logger.propagate = False
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, lambda *_: logger.warning("from the signal handler"))

            class Loud(dict):
                def __iter__(self):  # read by the producer that is being made
                    signal.raise_signal(signal.SIGALRM)
                    return super().__iter__()

                def items(self):
                    signal.raise_signal(signal.SIGALRM)
                    return super().items()

            handler._own._make = lambda: KafkaProducer(Loud(UNREACHABLE))
            logger.warning("the first of the child")
            assert handler.dropped == 1, handler.dropped
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        timeout=20,
    )


def test_what_is_logged_by_its_own_formatter_is_dropped(broker, logger, attach):
    class Chatty(logging.Formatter):
        def format(self, record):
            logger.info("formatting")
            return super().format(record)

    handler = attach()
    handler.setFormatter(Chatty())
    logger.info("a")
    handler.flush()
    assert [message.value for message in broker.messages("logs")] == [b"a"]
    assert handler.dropped == 1


def test_errors_inside_go_to_handle_error_and_no_further(broker, logger, attach, capsys):
    handler = attach(key=lambda record: record.nonsense)
    logger.info("a")
    assert handler.dropped == 1
    assert "AttributeError" in capsys.readouterr().err
    handler = attach()
    handler.handle(
        logging.makeLogRecord(
            {"name": "shop", "levelname": "INFO", "msg": "%d", "args": ("not a number",)}
        )
    )
    handler.flush()
    assert [message.value for message in broker.messages("logs")] == [
        b"INFO shop: %d <its arguments cannot be formatted: TypeError>"
    ]
    assert handler.dropped == 0
    assert "TypeError" in capsys.readouterr().err


def test_what_cannot_be_sent_is_dropped(logger, attach):
    handler = attach()
    logger.info("x" * 2_000_000)  # larger than message.max.bytes
    assert handler.dropped == 1


# ---------------------------------------------------------------------- its producer


@pytest.mark.slow(5)
def test_a_producer_of_somebody_elses_is_flushed_and_not_closed(broker, logger, attach):
    with KafkaProducer(broker.config(enable_idempotence=False, linger_ms=5000)) as producer:
        handler = attach(producer=producer)
        logger.info("a")
        logger.removeHandler(handler)
        handler.close()
        assert producer.sync_send(ProducerRecord("logs", b"b", partition=0), timeout=10).offset == 1


def test_in_a_forked_child_it_has_another(broker, logger, attach):
    handler = attach()
    logger.info("parent")
    child = os.fork()
    if not child:
        logger.info("child")
        handler.close()
        os._exit(0 if (handler.dropped, handler.failed) == (0, 0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    logger.info("parent again")
    handler.flush()
    assert sorted(message.value for message in broker.messages("logs")) == [
        b"child",
        b"parent",
        b"parent again",
    ]


def test_in_a_forked_child_a_given_one_is_of_no_use_and_does_no_harm(broker, logger, attach):
    with KafkaProducer(broker.config(enable_idempotence=False)) as producer:
        handler = attach(producer=producer)
        child = os.fork()
        if not child:
            logger.info("child")
            handler.flush()
            handler.close()
            os._exit(handler.dropped)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        logger.info("parent")
        handler.flush()
    assert [message.value for message in broker.messages("logs")] == [b"parent"]


def test_the_interpreters_end(broker):
    """What is logged last arrives, no warning is given (it would be an error), and logging's own
    end finds nothing to do.
    """
    done = run_program(
        f"""
        import logging
        from kafka_ext.logging import KafkaHandler
        logging.basicConfig(level="INFO", handlers=[KafkaHandler("logs", {broker.config(enable_idempotence=False, linger_ms=5000)!r})])
        for number in range(100):
            logging.info("%d", number)
        """,
        flags=["-W", "error"],
    )
    assert done.stderr == ""
    assert [message.value for message in broker.messages("logs", count=100)] == [
        b"INFO:root:%d" % number for number in range(100)
    ]


def test_the_interpreters_end_without_a_broker():
    with within(1):
        done = run_program(
            """
            import logging
            from kafka_ext.logging import KafkaHandler
            logging.basicConfig(level="INFO", handlers=[KafkaHandler("logs", UNREACHABLE, flush_timeout=0.3)])
            logging.info("a")
            """,
            flags=["-W", "error"],
        )
    assert done.returncode == 0


# ---------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"topic": 5}, TypeError, "topic"),
        ({"topic": "a/b"}, ValueError, "topic"),
        ({"properties": None}, TypeError, "either properties"),
        ({"properties": {"linger.ms": 5}}, InvalidConfigError, "bootstrap.servers"),
        (
            {"properties": {"bootstrap.servers": "a:1", "linger.mss": 5}},
            InvalidConfigError,
            "linger.ms",
        ),
        ({"producer": 5, "properties": None}, TypeError, "producer"),
        ({"key": 5}, TypeError, "key"),
        ({"headers": "name"}, TypeError, "headers"),
        ({"headers": {"a": 5}}, TypeError, "headers"),
    ],
)
def test_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        KafkaHandler(
            **({"topic": "logs", "properties": {"bootstrap.servers": "127.0.0.1:1"}} | arguments)
        )


def test_the_name_is_no_obstacle_to_the_standard_library():
    import kafka_ext.logging as ours

    assert ours is not sys.modules["logging"]
    assert ours.logging is sys.modules["logging"]
    with pytest.raises(TypeError, match="attributes"):
        JsonFormatter("name")


# ---------------------------------------------------------------------- what is hard to write down


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __repr__


def _circular():
    circle = {"a": [1]}
    circle["a"].append(circle)
    return circle


def _deep():
    deep = []
    for _ in range(5000):
        deep = [deep]
    return deep


_EXTRAS = [
    pytest.param("\ud800 and \udfff", "\\ud800 and \\udfff", id="lone surrogates"),
    pytest.param({"a": "\\ud8 \ud800"}, {"a": "\\ud8 \\ud800"}, id="and a backslash"),
    pytest.param({(1, 2): 3}, {"(1, 2)": 3}, id="a tuple as a key"),
    pytest.param({Unprintable: 1}, {str(Unprintable): 1}, id="a class as a key"),
    pytest.param(_circular(), {"a": [1, "..."]}, id="circular"),
    pytest.param(
        [float("nan"), float("inf"), -float("inf")], ["nan", "inf", "-inf"], id="not finite"
    ),
    pytest.param(
        {"a": Unprintable()},
        {"a": "<Unprintable: its str() raised RuntimeError>"},
        id="unprintable",
    ),
    pytest.param(
        {Unprintable(): 1},
        {"<Unprintable: its str() raised RuntimeError>": 1},
        id="an unprintable key",
    ),
    pytest.param([10**5000, True, None], [hex(10**5000), True, None], id="a long int"),
]


@pytest.mark.found(12)
@pytest.mark.parametrize(("given", "written"), _EXTRAS)
def test_every_extra_becomes_json(broker, logger, attach, given, written):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    handler = attach()
    handler.setFormatter(JsonFormatter())
    logger.info("a", extra={"given": given})
    handler.flush()
    (message,) = broker.messages("logs")
    assert json.loads(message.value.decode(), parse_constant=refuse)["given"] == written
    assert handler.dropped == 0


@pytest.mark.found(12)
def test_what_is_nested_too_deep_becomes_json(broker, logger, attach):
    handler = attach()
    handler.setFormatter(JsonFormatter())
    logger.info("a", extra={"given": _deep()})
    handler.flush()
    (message,) = broker.messages("logs")
    assert b"..." in message.value
    assert handler.dropped == 0


@pytest.mark.found(12)
@pytest.mark.parametrize("formatter", [JsonFormatter, logging.Formatter])
@pytest.mark.parametrize(
    "message", ["\ud800", Unprintable(), b"\xff"], ids=["surrogate", "unprintable", "bytes"]
)
def test_every_message_is_sent(broker, logger, attach, formatter, message):
    handler = attach(key=lambda record: "\ud800", headers={"h": lambda record: Unprintable()})
    handler.setFormatter(formatter())
    for text, arguments in ((message, ()), ("%s", (message,))):
        handler.handle(logger.makeRecord("shop", logging.INFO, __file__, 1, text, arguments, None))
    handler.flush()
    sent = broker.messages("logs")
    assert (len(sent), handler.dropped) == (2, 0)
    assert all(record.value.decode() for record in sent)
    assert sent[0].key == b"\\ud800"
    assert dict(sent[0].headers) == {"h": b"<Unprintable: its str() raised RuntimeError>"}


@pytest.mark.found(12)
def test_one_whose_constructor_raised_says_nothing_at_exit():
    ended = run_program(
        """
        from kafka_ext import InvalidConfigError
        from kafka_ext.logging import KafkaHandler

        handlers = []


        class Kept(KafkaHandler):
            def __init__(self, *arguments, **keywords):
                handlers.append(self)
                super().__init__(*arguments, **keywords)


        for arguments in (("logs", {"no.such": 1}), ("logs",), (5, {}), ("no topic!", {})):
            try:
                Kept(*arguments)
            except (InvalidConfigError, TypeError, ValueError):
                pass
        assert len(handlers) == 4
        """,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


IDEMPOTENT = {"enable.idempotence": True, "error_cb": lambda error: None}


def test_after_a_fatal_error_it_has_another_producer(broker, logger, attach):
    handler = attach(IDEMPOTENT)
    logger.info("before")
    handler.flush()
    first = handler._producer
    first.handle.test_fatal_error(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, "for the test")
    logger.info("after")
    handler.flush()
    assert (handler.dropped, handler.failed) == (0, 0)
    assert handler._producer is not first
    wait_until(lambda: first.handle.closed)
    assert sorted(message.value for message in broker.messages("logs", count=2)) == [
        b"after",
        b"before",
    ]


def test_producers_that_break_at_once_are_made_at_a_pace(broker, logger, attach):
    """A cluster that grants nothing ends each of them. A program that logs much must not make
    one for each record.
    """
    handler = attach(IDEMPOTENT)
    logger.info("before")
    handler.flush()
    made = set()
    for _ in range(100):
        made.add(handler._producer)
        with contextlib.suppress(KafkaException):  # it is broken already
            handler._producer.handle.test_fatal_error(
                ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "for the test"
            )
        logger.info("more")
    assert len(made) <= 20
    assert handler.dropped >= 80
