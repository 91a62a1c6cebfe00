"""`kafka-ext produce`: lines, JSON documents, Arrow and Parquet tables of the standard input, or of
files, to a topic.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from .. import _rdkafka
from ..producer import KafkaProducer
from . import _display as displays
from . import _settings as settings
from ._display import Display
from ._inputs import Input
from ._interrupts import Interrupts
from ._records import Delimited, Documents
from ._session import finish, names_a_cluster, open_producer
from ._settings import UsageError
from ._tables import Tables
from ._tally import Tally

Records = Delimited | Tables

_TABLES = ("arrow", "parquet")
_FORMATS = ("lines", "ndjson", *_TABLES)
_SUFFIXES = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".arrow": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
    ".parquet": "parquet",
}
# The formats that each option is for; what is not here is for all.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "--key-separator": ("lines",),
    "--null-marker": ("lines",),
    "--delimiter": ("lines",),
    "--header": ("lines", "ndjson"),
    "--partition": ("lines", "ndjson"),
    "--key-field": ("ndjson",),
    "--validate": ("ndjson",),
    **dict.fromkeys(
        ("--value", "--key", "--partition-column", "--timestamp-column", "--header-column"), _TABLES
    ),
}
_INSTEAD = {
    "--key-separator": "--key",
    "--header": "--header-column",
    "--partition": "--partition-column",
    "--key-field": "--key",
}

_EPILOG = r"""
examples:
  each line a record:
      kafka-ext produce logs -b localhost:9092 < app.log
  keys before a tab, empty fields sent as null, a header on every record:
      kafka-ext produce users -b localhost:9092 --key-separator '\t' --null-marker '' --header source=import users.tsv
  records between NUL bytes, compressed, to partition 3:
      find . -name '*.json' -print0 | kafka-ext produce files -b localhost:9092 --delimiter '\0' -z zstd --partition 3
  a cluster with TLS and a password, its properties in a file:
      kafka-ext produce orders --config cluster.properties -X linger.ms=50 orders.txt
  JSON documents, with the customer's number in each as its key:
      kafka-ext produce orders -b localhost:9092 --key-field customer.id orders.ndjson
  columns of a Parquet file, without a Python object for any of its rows (needs pip install 'kafka-ext[arrow]'):
      kafka-ext produce orders -b localhost:9092 --value document --key customer --timestamp-column created orders.parquet
  try it without a cluster:
      seq 1000000 | kafka-ext produce numbers --embedded

Memory stays the same for an input of any size: at most queue.buffering.max.kbytes (64 MiB here, unless you set it) wait to be sent. Of an
Arrow file one record batch, as it was written, is read at a time.
A summary goes to stdout; progress and problems go to stderr. The exit status is 0 when every record was delivered, 1 when one was not or
the input could not be read to its end, 2 when the command or a property is wrong, 130 after Ctrl-C. Ctrl-C stops reading and delivers what
was sent; a second one gives up on that.
"""


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "produce",
        help="lines, JSON documents or tables, of standard input or of files, to a topic",
        description=(
            "Send each line, JSON document or row of the standard input, or of files, to a topic."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("first", metavar="TOPIC", nargs="?", help="where to send to")
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="what to read, one after the other; - or none is the standard input",
    )
    parser.add_argument(
        "-t",
        "--topic",
        metavar="TOPIC",
        help="another way to name the topic; then all that is left are files",
    )
    parser.add_argument(
        "-f",
        "--format",
        choices=_FORMATS,
        help=(
            "what is read: delimited lines, a JSON document a line, an Arrow file or stream, a"
            " Parquet file (default: by suffix, .ndjson .jsonl .arrow .ipc .feather .parquet; lines"
            " for all others)"
        ),
    )
    group = parser.add_argument_group("lines and ndjson")
    group.add_argument(
        "-H",
        "--header",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a header for every record; repeat it for more; NAME alone has a null value",
    )
    group.add_argument(
        "-p",
        "--partition",
        metavar="N",
        type=settings.count(0),
        help="the partition for every record (default: by key, or random)",
    )
    group = parser.add_argument_group("lines")
    group.add_argument(
        "-K",
        "--key-separator",
        metavar="TEXT",
        help=(
            "what is before the first TEXT is the key, what is behind it the value; a line without"
            " TEXT is a value with no key"
        ),
    )
    group.add_argument(
        "-N",
        "--null-marker",
        metavar="TEXT",
        help="a key or value that is TEXT is sent as null; a null value is a tombstone",
    )
    group.add_argument(
        "-D",
        "--delimiter",
        metavar="TEXT",
        help=r"what ends a record (default: \n); escapes as in Python: \t, \0, \r\n, \x1e",
    )
    group = parser.add_argument_group(
        "ndjson", "The line is the value, as it is. Empty lines are skipped."
    )
    group.add_argument(
        "--key-field",
        metavar="NAME",
        help=(
            "the field that is the key, or a dotted path to it: a string as it is, anything else as"
            " its JSON text, no key where it is null or missing; a line that is not JSON fails"
        ),
    )
    group.add_argument(
        "--validate",
        action="store_true",
        help="a line that is not JSON fails; unless asked for, nobody looks",
    )
    group = parser.add_argument_group(
        "arrow and parquet",
        "A row is a record. Values, keys and headers are binary or string columns; a null value is"
        " a tombstone.",
    )
    group.add_argument(
        "--value",
        metavar="COLUMN",
        help="the column with the values (default: the only binary or string column)",
    )
    group.add_argument("--key", metavar="COLUMN", help="the column with the keys")
    group.add_argument(
        "--partition-column",
        metavar="COLUMN",
        help="the column with the partitions; null: by key, or random",
    )
    group.add_argument(
        "--timestamp-column",
        metavar="COLUMN",
        help="the column with the timestamps, or with milliseconds since 1970; null: now",
    )
    group.add_argument(
        "--header-column",
        metavar="COLUMN",
        action="append",
        default=[],
        help="a column that is a header of its name; repeat it for more",
    )
    settings.add_arguments(parser)
    parser.add_argument(
        "--embedded",
        action="store_true",
        help="start a broker for this command; its records are gone when it ends",
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="no progress and no summary, only what goes wrong",
    )
    group.add_argument("--json", action="store_true", help="the summary as a JSON object")
    parser.set_defaults(run=run)


def _format(given: str | None, files: list[str]) -> tuple[str, str]:
    """The format, and how it came about for whoever wonders."""
    if given is not None:
        return given, f"--format {given}"
    guesses: dict[str, str] = {}
    for name in files or ["-"]:
        guesses.setdefault(_SUFFIXES.get(Path(name).suffix.lower(), "lines"), name)
    if len(guesses) > 1:
        seem = ", ".join(f"{name} seems to be {guess}" for guess, name in guesses.items())
        raise UsageError(
            f"files of one format at a time, please, or say which with --format: {seem}"
        )
    guess, name = next(iter(guesses.items()))
    origin = f"guessed from {name}" if guess in _SUFFIXES.values() else "the default"
    return guess, f"format {guess} ({origin}; --format NAME changes it)"


def _check_options(arguments: argparse.Namespace, why: str) -> None:
    """Each option belongs to some formats: ignoring one would send something else than
    was meant.
    """
    for option, formats in _OPTIONS.items():
        given = getattr(arguments, option.lstrip("-").replace("-", "_"))
        if (
            arguments.format not in formats
            and given is not None
            and given is not False
            and given != []
        ):
            others = (
                " and ".join((", ".join(formats[:-1]), formats[-1]))
                if len(formats) > 1
                else formats[0]
            )
            instead = (
                f"; {_INSTEAD[option]} does"
                if option in _INSTEAD and arguments.format in _TABLES
                else ""
            )
            raise UsageError(f"{option} is for {others}, it does not go with {why}{instead}")


def _as_text(summary: dict[str, Any]) -> str:
    return (
        f"{displays.records(summary['delivered'])} ({displays.size(summary['bytes'])}) delivered to"
        f" {summary['topic']} in {displays.seconds(summary['seconds'])}:"
        f" {summary['records_per_second']:,.0f} records/s,"
        f" {displays.size(summary['bytes_per_second'])}/s"
    )


def _records(arguments: argparse.Namespace, source: Input, tally: Tally) -> Records:
    if arguments.format in _TABLES:
        return Tables(arguments, source, tally)
    return (Documents if arguments.format == "ndjson" else Delimited)(arguments, source, tally)


def _work(
    records: Records, producer: KafkaProducer, interrupts: Interrupts, display: Display
) -> str | None:
    """Send and wait for every report; what kept it from reading to the end, if anything did."""
    problem = None
    with display.progress(lambda: records.tally.status(producer, records.source)):
        try:
            with interrupts.raising():
                records.send_all(producer, display.note)
        except KeyboardInterrupt:
            pass
        except OSError as exc:
            problem = f"cannot read on: {exc}"
        finish(producer, interrupts, display)
    return problem


def run(arguments: argparse.Namespace) -> int:
    topic, files = arguments.topic, list(arguments.files)
    if topic is None:
        topic = arguments.first
    elif arguments.first is not None:
        files.insert(0, arguments.first)
    if topic is None:
        raise UsageError("to which topic? kafka-ext produce TOPIC < FILE")
    _rdkafka.check_topic_name(topic)
    arguments.format, why = _format(arguments.format, files)
    _check_options(arguments, why)
    source = Input(files, text=arguments.format not in _TABLES)
    tally = Tally(topic)
    properties = settings.read_properties(arguments)
    if arguments.embedded and names_a_cluster(properties):
        raise UsageError("--embedded starts a broker of its own: leave out --bootstrap-servers")
    records = _records(arguments, source, tally)
    display = displays.make("kafka-ext produce", quiet=arguments.quiet, live=not source.typed)
    with (
        Interrupts() as interrupts,
        open_producer(properties, display, embedded=arguments.embedded) as producer,
    ):
        if source.typed and not arguments.quiet:
            display.note("reading from the terminal: a line is a record, Ctrl-D ends")
        began = time.perf_counter()
        problem = _work(records, producer, interrupts, display)
        summary = tally.summary(time.perf_counter() - began, interrupts.signum is not None)
    if problem is not None:
        display.note(problem)
    tally.failures.report(display, summary["records"])
    if arguments.json:
        displays.out(json.dumps(summary))
    elif not arguments.quiet:
        displays.out(_as_text(summary))
    return interrupts.exit_status or int(problem is not None or tally.failures.count > 0)
