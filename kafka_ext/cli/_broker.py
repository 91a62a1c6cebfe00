"""`kafka-ext broker`: an embedded broker in the foreground, for development."""

from __future__ import annotations

import argparse
import signal
from typing import Any

from .._rdkafka import InvalidRecordError
from . import _settings as settings
from ._display import Display, out
from ._settings import UsageError

_EPILOG = """\
examples:
  one broker; topics are made when somebody asks for them:
      kafka-ext broker
  three brokers, two topics with 12 partitions and one:
      kafka-ext broker --brokers 3 --topic orders:12 --topic users
  in a script:
      kafka-ext broker --topic orders:4 > servers & broker=$!
      until [ -s servers ]; do sleep 0.1; done
      kafka-ext produce orders -b "$(cat servers)" < orders.txt
      kill $broker

It is librdkafka's mock cluster, for development and tests: any Kafka client can produce to it and consume from it, over loopback, without
TLS, passwords or replication. It keeps everything in memory, and of each partition only the newest 5 MiB or 100,000 batches: what is older
is dropped silently. Nothing is left when it ends. The addresses are the only thing printed on stdout.
"""


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "broker",
        help="an embedded broker in the foreground, for development",
        description=(
            "Run a Kafka broker, or a cluster of them, for development, until Ctrl-C or SIGTERM."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-n",
        "--brokers",
        metavar="N",
        type=settings.count(1),
        default=1,
        help="how many brokers (default: 1)",
    )
    parser.add_argument(
        "-t",
        "--topic",
        metavar="NAME[:PARTITIONS]",
        action="append",
        default=[],
        help="make a topic (one partition unless said otherwise); repeat it for more",
    )
    parser.set_defaults(run=run)


def _topic(text: str) -> tuple[str, int]:
    name, colon, partitions = text.partition(":")
    try:
        return name, settings.count(1)(partitions) if colon else 1
    except argparse.ArgumentTypeError as exc:
        raise UsageError(f"--topic {text}: {exc}") from None


def run(arguments: argparse.Namespace) -> int:
    from ..testing import EmbeddedBroker

    topics = dict(_topic(text) for text in arguments.topic)
    # Blocked before the broker starts its thread, so that no other thread is handed them, and
    # waited for below: none can be missed.
    ending = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        broker = EmbeddedBroker(arguments.brokers, topics)
    except InvalidRecordError:
        raise
    except ValueError as exc:
        raise UsageError(str(exc)) from None
    say = Display("kafka-ext broker").note
    with broker:
        brokers = (
            f"{arguments.brokers} embedded brokers"
            if arguments.brokers > 1
            else "an embedded broker"
        )
        made = ", ".join(
            f"{name} ({partitions} partition{'s' if partitions > 1 else ''})"
            for name, partitions in topics.items()
        )
        say(
            f"{brokers} for development, in memory only, on loopback only; Ctrl-C ends"
            f" {'them' if arguments.brokers > 1 else 'it'}"
        )
        say(
            "a partition keeps its newest 5 MiB or 100,000 batches; older records are dropped"
            " silently"
        )
        say(f"topics: {made or 'none yet'}; others are made on first use")
        out(broker.bootstrap_servers)
        signum = signal.sigwait(ending)
    say(f"ended by {signal.Signals(signum).name}")
    return 0
