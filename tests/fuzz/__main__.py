"""python -m tests.fuzz [--minutes 10] [--seed N] [--examples 40] [--shrink] [--kafka]"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import sys
import time
import traceback

from . import configurations, machine

# Seconds that a seed may take, with its shrinking, before it counts as hung: then the stacks of all
# threads are printed.
HUNG = 300.0
HUNG_SHRINKING = (
    900.0  # hypothesis shrinks for 300 s at most, and one call may wait for as long as PATIENCE
)


def main(arguments: list[str] | None = None) -> int:
    """Run seed after seed until the time is over; a finding ends the run with status 1 and the
    command that repeats it.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=sys.modules["tests.fuzz"].__doc__
    )
    parser.add_argument(
        "--minutes", type=float, default=None, help="how long (10; with --seed, that seed alone)"
    )
    parser.add_argument("--seed", type=int, default=None, help="the first seed (random)")
    parser.add_argument("--examples", type=int, default=40, help="sequences of calls a seed (40)")
    parser.add_argument(
        "--shrink",
        action="store_true",
        help="look for the shortest sequence that fails, for some minutes",
    )
    parser.add_argument(
        "--kafka",
        action="store_true",
        help="on a broker of Apache Kafka, which knows what was committed; without faults",
    )
    chosen = parser.parse_args(arguments)
    machine.cluster.real = chosen.kafka
    number = int.from_bytes(os.urandom(3), "big") if chosen.seed is None else chosen.seed
    minutes = (10.0 if chosen.seed is None else 0.0) if chosen.minutes is None else chosen.minutes
    logging.getLogger("kafka_ext").addHandler(logging.NullHandler())  # what was refused is known
    began = time.monotonic()
    sequences = producers = seeds = 0
    while seeds == 0 or time.monotonic() < began + minutes * 60:
        again = (
            f"Again: python -m tests.fuzz --seed {number} --examples"
            f" {chosen.examples}{' --kafka' * chosen.kafka}"
        )
        faulthandler.dump_traceback_later(HUNG_SHRINKING if chosen.shrink else HUNG, exit=True)
        try:
            producers += configurations.run(number, chosen.examples, chosen.shrink)
            sequences += machine.run(number, chosen.examples, chosen.shrink)
        except Exception:  # noqa: BLE001 - whatever it found
            traceback.print_exc()
            machine.cluster.close()
            print(
                f"\n{again}{'' if chosen.shrink else '  (and --shrink for a short one)'}",
                flush=True,
            )
            return 1
        seeds, number = seeds + 1, number + 1
        # Each seed's line ends before the next one: after a hang the last line names the seed that
        # hung.
        done = (
            f"{sequences:,} sequences of calls and {producers:,} configurations in"
            f" {time.monotonic() - began:.0f} s"
        )
        print(f"{done}; next: --seed {number}", flush=True)
    faulthandler.cancel_dump_traceback_later()
    machine.cluster.close()
    print(f"{done}, nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
