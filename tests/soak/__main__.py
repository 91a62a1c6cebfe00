"""python -m tests.soak [--minutes 30] [--rate 1] [--seed 1] [--output build/soak]"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kafka_ext import KafkaProducer, _rdkafka
from kafka_ext.testing import EmbeddedBroker
from tests.chaos.watch import Watch, cpu_seconds, descriptors, resident, threads

from . import loads, memory, report, verdict
from .faults import Faults

SOUND, FAILING, CUT = 1, 2, 3  # the brokers
# Its answers take so long, so that there are some on their way when a connection is cut.
CUT_ROUND_TRIP = 0.02
LEADERS: dict[type[loads.Load], int] = {loads.Failing: FAILING, loads.Cut: CUT}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=sys.modules["tests.soak"].__doc__
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=30.0,
        help="how long to hold the load (default: %(default)s)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="times the usual rates, of 55,000 messages a second (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the faults (default: %(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("build/soak"),
        help="where the report goes (default: %(default)s)",
    )
    return parser.parse_args(given)


def open_loads(
    broker: EmbeddedBroker, stack: ExitStack, scale: float
) -> tuple[list[loads.Load], dict[str, KafkaProducer]]:
    logging.getLogger("kafka_ext").setLevel(
        logging.ERROR
    )  # what fails without a callback is on purpose here
    for kind in loads.ALL:
        topic = f"soak-{kind.name}"
        broker.create_topic(topic, kind.partitions)
        for partition in range(kind.partitions):
            broker.move_leader(topic, partition, LEADERS.get(kind, SOUND))
    broker.round_trip_time(CUT_ROUND_TRIP, CUT)
    # All but one are idempotent, and none may lose anything; its queue holds what comes in the
    # seconds of a pause.
    producers = {
        "sound": KafkaProducer(broker.config(linger_ms=20)),
        "failing": KafkaProducer(broker.config(linger_ms=10, enable_idempotence=False)),
        "cut": KafkaProducer(broker.config(linger_ms=5)),
        "full": KafkaProducer(broker.config(linger_ms=50, queue_buffering_max_messages=100)),
    }
    for producer in producers.values():
        stack.callback(producer.close)
    producers["sound"].fetch_broker_metadata(
        "soak-refused"
    )  # without it the client cannot know that there is no partition 999
    made: list[loads.Load] = [kind(producers["sound"], scale) for kind in loads.SHARED]
    cut = loads.Cut(producers["cut"], scale)
    cut.read_by(stack.enter_context(broker.reader(cut.topic)))
    made += [loads.Failing(producers["failing"], scale), cut, loads.Full(producers["full"], scale)]
    made += [kind(broker.config(), scale) for kind in loads.OWN]
    return made, producers


def check_topics(broker: EmbeddedBroker, made: Sequence[loads.Load]) -> list[str]:
    """The topics hold what was reported as delivered, and nothing else."""
    wrong = []
    with _rdkafka.ClusterClient(broker.bootstrap_servers) as client:
        for load in made:
            there = sum(
                client.end_offsets(
                    [(load.topic, partition) for partition in range(load.partitions)]
                ).values()
            )
            delivered = load.account.delivered
            if isinstance(load, loads.Cut):
                delivered += load.doubled  # this one has been read
            # Only a producer that is closed in a hurry gives up what it has sent, which may arrive
            # yet.
            if there < delivered or (there > delivered and not isinstance(load, loads.Lives)):
                wrong.append(
                    f"{load.name}: {delivered:,} were reported as delivered, and {there:,} are in"
                    " the topic"
                )
    return wrong


def hold(
    options: argparse.Namespace, made: Sequence[loads.Load], watch: Watch, faults: Faults
) -> float:
    """Send, watched and faulted, until the time is over or something is wrong; for how many seconds
    it was.
    """
    with watch, faults:
        for load in made:
            load.start()
        end = time.monotonic() + options.minutes * 60
        while (
            time.monotonic() < end
            and not any(load.account.wrong for load in made)
            and not faults.wrong
        ):
            time.sleep(0.2)
        held = watch.now()
        for load in made:
            load.stop()
    return held


def settle(made: Sequence[loads.Load], producers: dict[str, KafkaProducer]) -> list[str]:
    """Until all is reported; what is off then."""
    wrong = []
    for producer in producers.values():
        producer.flush(loads.SETTLING)
    for load in made:
        load.settle()
        wrong += load.account.check()
    for name, producer in producers.items():
        m = producer.metrics()
        if (
            m.sent != m.delivered + m.failed
            or m.outstanding
            or m.pinned_messages
            or m.pinned_bytes
            or m.callback_errors
        ):
            wrong.append(f"the metrics of the producer {name!r} are off at the end: {m}")
        if name in ("sound", "cut") and m.failed:
            wrong.append(f"{m.failed:,} messages of the producer {name!r} have failed")
    return wrong


def left_behind(idle: dict[str, int]) -> list[str]:
    """What is still there when all is closed and was not before; threads of producers that were
    dropped have a moment to end.
    """
    gc.collect()
    end = time.monotonic() + 10
    while (
        threads() > idle["threads"] or descriptors() > idle["descriptors"]
    ) and time.monotonic() < end:
        time.sleep(0.05)
    left = {name: count for name, count in _rdkafka.live_objects().items() if count}
    left |= {
        name: now - idle[name]
        for name, now in (("threads", threads()), ("descriptors", descriptors()))
        if now > idle[name]
    }
    return [f"left behind when all was closed: {left}"] if left else []


def soak(options: argparse.Namespace) -> dict[str, Any]:
    options.output.mkdir(parents=True, exist_ok=True)
    idle = {"threads": threads(), "descriptors": descriptors()}
    with EmbeddedBroker(brokers=3, topics={}, isolation="process") as broker, ExitStack() as stack:
        made, producers = open_loads(broker, stack, options.scale)

        def more() -> dict[str, Any]:
            metrics = [producer.metrics() for producer in producers.values()]
            return {
                **_rdkafka.live_objects(),
                "pinned_messages": sum(m.pinned_messages for m in metrics),
                "pinned_bytes": sum(m.pinned_bytes for m in metrics),
                "outstanding": sum(m.outstanding for m in metrics),
                "callback_errors": sum(m.callback_errors for m in metrics),
                "broker_rss": resident(broker.pid),
                "broker_cpu": cpu_seconds(broker.pid),
                "loads": {load.name: load.account.counts() for load in made},
                **memory.sample(),
            }

        watch = Watch(
            max(0.5, min(5.0, options.minutes * 60 / 300)), options.output / "samples.jsonl", more
        )
        faults = Faults(broker, SOUND, FAILING, CUT, options.seed, watch.now)
        held = hold(options, made, watch, faults)
        wrong = settle(made, producers) + faults.wrong + check_topics(broker, made)
    samples = watch.samples
    wrong += left_behind(idle) + verdict.judge(samples)
    return {
        "options": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(options).items()
        },
        "seconds": held,
        "faults": faults.seen,
        "loads": {
            load.name: load.account.counts() | {"doubled": getattr(load, "doubled", 0)}
            for load in made
        },
        "samples": samples,
        "wrong": wrong,
        "versions": _rdkafka.build_info(),
    }


def main() -> int:
    options = arguments()
    result = soak(options)
    (options.output / "soak.json").write_text(json.dumps(result, default=str))
    for line in result["wrong"]:
        print("wrong:", line, file=sys.stderr)
    print(report.write(result, options.output))
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
