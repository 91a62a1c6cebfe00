"""The arguments that produce and perf have in common: which cluster to talk to, and with which
properties.
"""

from __future__ import annotations

import argparse
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from .. import _rdkafka
from ..properties import CALLBACKS, MANUAL_POLL, Properties
from ._display import Display

# Values that wait to be sent may take this much, in KiB. librdkafka's own default, a GiB, is more
# than a tool for a shell should take.
QUEUE_KBYTES = "65536"

_NOT_HERE = CALLBACKS | {MANUAL_POLL, "interceptors"}


class UsageError(Exception):
    """The command cannot be run as it was given; the message says what is wrong with it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "-b",
        "--bootstrap-servers",
        metavar="HOST:PORT,...",
        help="brokers to find the cluster by",
    )
    group.add_argument(
        "-X",
        "--property",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help=(
            "any property of librdkafka, such as linger.ms=20; repeat it for more (`ps` shows it:"
            " passwords belong in --config)"
        ),
    )
    group.add_argument(
        "--config",
        metavar="FILE",
        help="a file of properties, NAME=VALUE a line, # for comments; -X goes before it",
    )
    group.add_argument(
        "-z",
        "--compression",
        choices=("none", "gzip", "snappy", "lz4", "zstd"),
        help="compress batches (compression.type)",
    )


def count(minimum: int) -> Callable[[str], int]:
    """A type for argparse: a whole number of `minimum` or more, which may be written 1_000_000."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {minimum} or more")
        return number

    return parse


def name_and_value(text: str, where: str) -> tuple[str, str]:
    """`NAME=VALUE`, or a UsageError that repeats nothing of it: a secret is pasted in many forms, a
    line of PEM among them.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not _NAME.fullmatch(name):
        raise UsageError(f"{where}: not NAME=VALUE, with a property's name such as linger.ms")
    return name, value


# As librdkafka's are. Lines of base64 have capitals.
_NAME = re.compile(r"[a-z][a-z0-9._]*")


def _read_config(path: str) -> Iterator[tuple[str, str]]:
    try:
        lines = Path(path).read_bytes().decode(errors="replace").splitlines()
    except OSError as exc:
        raise UsageError(f"--config {path}: {exc.strerror}") from None
    if any("\ufffd" in line for line in lines):
        raise UsageError(f"--config {path}: not a text file in UTF-8")
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith(("#", "!")):
            yield name_and_value(line, f"--config {path}, line {number}")


def _warn_of_readers(path: str, given: Mapping[str, str]) -> None:
    """Say that anybody on this machine can read the secrets in a file."""
    secrets = sorted(name for name, value in given.items() if _rdkafka.shown(name, value) != value)
    if secrets and os.stat(path).st_mode & stat.S_IROTH:
        Display("kafka-ext").note(
            f"warning: --config {path} holds {', '.join(secrets)} and can be read by every user of"
            f" this machine: chmod o-r {path}"
        )


def read_properties(arguments: argparse.Namespace) -> Properties:
    """The properties of the command line, in the order of precedence: options of their own, -X, the
    file.
    """
    given: dict[str, str] = {"queue.buffering.max.kbytes": QUEUE_KBYTES}
    if arguments.config is not None:
        of_file = dict(_read_config(arguments.config))
        _warn_of_readers(arguments.config, of_file)
        given.update(of_file)
    given.update(name_and_value(text, "-X") for text in arguments.property)
    if arguments.bootstrap_servers is not None:
        given.pop("metadata.broker.list", None)
        given["bootstrap.servers"] = arguments.bootstrap_servers
    if arguments.compression is not None:
        for alias in ("compression.codec", "compression.type"):
            given.pop(alias, None)
        given["compression.type"] = arguments.compression
    for name in sorted(_NOT_HERE & given.keys()):
        raise UsageError(
            f"property {name!r} is for programs: it cannot be set from the command line"
        )
    return Properties(given)
