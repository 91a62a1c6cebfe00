"""A mock cluster in a process of its own: what `EmbeddedBroker(isolation="process")` has a Python
of its own run.

It reads commands, one JSON object a line, from its standard input, answers each on its standard
output, and ends when its standard input does or when its parent is gone.
"""

from __future__ import annotations

import json
import os
import select
import signal
import traceback
from typing import Any, NoReturn

from kafka_ext._rdkafka import KafkaException

from ._cluster import Cluster


def _described(error: Exception) -> dict[str, Any]:
    if isinstance(error, KafkaException):
        return {
            "kind": "KafkaException",
            "code": int(error.error.code),
            "message": error.error.message,
        }
    if isinstance(error, OSError):
        return {
            "kind": "OSError",
            "code": error.errno or 0,
            "message": str(error.strerror or error),
        }
    if isinstance(error, ValueError):
        return {"kind": "ValueError", "code": 0, "message": str(error)}
    return {
        "kind": "RuntimeError",
        "code": 0,
        "message": "".join(traceback.format_exception(error)),
    }


def _answer(descriptor: int, answer: dict[str, Any]) -> None:
    rest = json.dumps(answer).encode() + b"\n"
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _lines(descriptor: int, parent: int) -> Any:
    """What comes in, line by line, until the other end closes or its process is gone (someone else
    may hold the pipe open).
    """
    waiter = select.poll()
    waiter.register(descriptor, select.POLLIN)
    buffered = b""
    while os.getppid() == parent:
        if not waiter.poll(1000):
            continue
        read = os.read(descriptor, 65536)
        if not read:
            return
        *lines, buffered = (buffered + read).split(b"\n")
        yield from lines


def main(argument: str) -> int:
    settings = json.loads(argument)
    # A group of its own: Ctrl-C in a terminal is for the tests, not for their broker. And the
    # kernel continues a stopped group whose last relative dies, so that a paused broker notices its
    # parent's death too. PR_SET_PDEATHSIG would not do: it fires when the thread that started us
    # ends.
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands, answers = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # whatever else prints must not come between the answers
    try:
        cluster = Cluster(settings["brokers"], settings["topics"], settings["ports"])
    except Exception as error:  # noqa: BLE001 - told to the other side, which raises it
        _answer(answers, {"id": 0, "error": _described(error)})
        return 1
    _answer(answers, {"id": 0, "result": cluster.ports})
    for line in _lines(commands, settings["parent"]):
        command = json.loads(line)
        try:
            answer = {
                "id": command["id"],
                "result": cluster.call(command["method"], *command["arguments"]),
            }
        except Exception as error:  # noqa: BLE001 - told to the other side, which raises it
            answer = {"id": command["id"], "error": _described(error)}
        _answer(answers, answer)
    return 0


def run(argument: str) -> NoReturn:
    """All that the process does. Nothing is worth tidying up in one that nobody waits for."""
    status = 1
    try:
        status = main(argument)
    except BaseException:  # noqa: BLE001 - the end of the process, and its last words
        traceback.print_exc()
    finally:
        os._exit(status)
