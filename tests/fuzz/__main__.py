"""python -m tests.fuzz [--minutes 10] [--seed N] [--examples 40]"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback

from .machine import run


def main(arguments: list[str] | None = None) -> int:
    """Go from seed to seed until the time is over; a finding is printed with the command that repeats it, and ends the run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=sys.modules["tests.fuzz"].__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--seed", type=int, default=None, help="the first seed (random); then this one alone unless --minutes is given")
    parser.add_argument("--examples", type=int, default=40, help="sequences of calls a seed (40)")
    chosen = parser.parse_args(arguments)
    number = int.from_bytes(os.urandom(3), "big") if chosen.seed is None else chosen.seed
    end = time.monotonic() + chosen.minutes * 60
    rounds = 0
    while rounds == 0 or time.monotonic() < end:
        try:
            run(number, chosen.examples)
        except Exception:  # noqa: BLE001 - whatever it found
            traceback.print_exc()
            print(f"\nAgain: python -m tests.fuzz --minutes 0 --seed {number} --examples {chosen.examples}", flush=True)
            return 1
        rounds += 1
        number += 1
        if rounds % 10 == 0:
            print(f"{rounds * chosen.examples:,} sequences, {max(0.0, (end - time.monotonic()) / 60):.0f} minutes left", flush=True)
    print(f"{rounds * chosen.examples:,} sequences of calls, nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
