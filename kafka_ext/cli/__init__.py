"""The command line `kafka-ext`: one module a subcommand, each with `add_to(subparsers)` and
`run(arguments)`.

Exit statuses: 0 all went well; 1 a record was not delivered, or something failed on the way; 2 the
command or a property is wrong, and nothing was sent; 130 and 143 ended by Ctrl-C and by SIGTERM.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Sequence

from .. import __version__, _rdkafka
from .._rdkafka import InvalidConfigError, InvalidRecordError, KafkaException
from . import _broker as broker
from . import _info as info
from . import _perf as perf
from . import _produce as produce
from ._display import Display, discard
from ._settings import UsageError

_EPILOG = """\
examples:
  kafka-ext produce orders -b localhost:9092 < orders.txt
  kafka-ext broker --topic orders:4
  kafka-ext perf --num-records 1000000 --record-size 100
  kafka-ext COMMAND --help

produce --embedded, and perf without --bootstrap-servers, start a broker of their own inside the process, so that both can be tried with
nothing prepared.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kafka-ext",
        description="Write to Kafka from the command line, and try things out without one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    version = f"kafka-ext {__version__} (librdkafka {_rdkafka.build_info()['librdkafka']})"
    parser.add_argument("--version", action="version", version=version)
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )
    for module in (produce, broker, perf, info):
        module.add_to(subparsers)
    return parser


def _complain(command: str, problem: object) -> None:
    Display(f"kafka-ext {command}").note(f"error: {problem}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        # argparse takes positional arguments from one place only: `produce TOPIC -b … FILE` leaves
        # the files over.
        if "files" not in arguments or any(text.startswith("-") and text != "-" for text in rest):
            parser.error(
                f"{arguments.command}: unrecognized arguments: {' '.join(map(_name_of, rest))}"
            )
        arguments.files += rest
    return arguments


def _name_of(argument: str) -> str:
    """An argument as it may be repeated: what stands behind = may be a secret."""
    name, equals, _ = argument.partition("=")
    return f"{name}=…" if equals else name


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` without the program's name, those of the process by default. Returns
    the exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # ASCII, say, where a topic, a file or the help has more
    try:
        return _run(_parse(argv))
    except BrokenPipeError:
        discard(
            sys.stdout
            # raised by argparse, which prints help and versions by itself; Python 3.11.7 and 3.12.1
            # catch it there
        )
        return 0
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            discard(sys.stdout)
        except AttributeError:
            pass  # started with stdout closed


def _run(arguments: argparse.Namespace) -> int:
    try:
        status: int = arguments.run(arguments)
    except UsageError as exc:
        _complain(arguments.command, exc)
        return 2
    except (InvalidConfigError, InvalidRecordError) as exc:
        _complain(arguments.command, exc.error.message)
        return 2
    except (KafkaException, OSError) as exc:
        _complain(arguments.command, exc)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return status
