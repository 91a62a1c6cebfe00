"""Let kafka_ext read the clock once for a whole enqueue.

rd_kafka_produce() asks for the time three times: the monotonic clock for the message's age, the
wall clock for its timestamp, the monotonic clock again for its place in the partition's queue.
Where reading a clock is dear (some 40 ns each on a virtual machine) that was a quarter of a send.
No time to speak of passes in between, so the three may as well be one: in librdkafka's objects, and
nowhere else, clock_gettime and gettimeofday are changed to the two functions below, which give the
time of the last kafka_ext_clock_stop() as long as this thread has not called kafka_ext_clock_go().
Whoever never stops the clock gets the system's own answers.

The wall clock is the monotonic one plus their distance, which is read again after half a
millisecond: Kafka's timestamps are milliseconds.
"""

from __future__ import annotations

from pathlib import Path

import needs
from console import BuildError, run

REDIRECTED = {"clock_gettime": "kafka_ext_clock_gettime", "gettimeofday": "kafka_ext_gettimeofday"}

SOURCE = r"""
#include <stdint.h>
#include <sys/time.h>
#include <time.h>

#define STALE_US 500

static __thread struct {
        int stopped;
        struct timespec monotonic;
        struct timeval wall;
        int64_t distance; /* from the monotonic to the wall clock, microseconds */
        int64_t read_at;  /* when that was read, 0: never */
} clock_here;

void kafka_ext_clock_stop(void) {
        int64_t now, wall;
        if (clock_gettime(CLOCK_MONOTONIC, &clock_here.monotonic))
                return;
        now = (int64_t)clock_here.monotonic.tv_sec * 1000000 + clock_here.monotonic.tv_nsec / 1000;
        if (!clock_here.read_at || now - clock_here.read_at > STALE_US) {
                struct timeval read;
                if (gettimeofday(&read, (void *)0))
                        return;
                clock_here.distance = (int64_t)read.tv_sec * 1000000 + read.tv_usec - now;
                clock_here.read_at  = now;
        }
        wall                    = now + clock_here.distance;
        clock_here.wall.tv_sec  = wall / 1000000;
        clock_here.wall.tv_usec = wall % 1000000;
        clock_here.stopped      = 1;
}

void kafka_ext_clock_go(void) {
        clock_here.stopped = 0;
}

int kafka_ext_clock_gettime(clockid_t id, struct timespec *time) {
        if (clock_here.stopped && id == CLOCK_MONOTONIC) {
                *time = clock_here.monotonic;
                return 0;
        }
        return clock_gettime(id, time);
}

int kafka_ext_gettimeofday(struct timeval *time, void *zone) {
        if (clock_here.stopped) {
                *time = clock_here.wall;
                return 0;
        }
        return gettimeofday(time, zone);
}
"""


def merge(archive: Path, work: Path, log: Path) -> None:
    """Change the names in librdkafka's archive and add the functions to it. Before an allocator
    joins: that keeps the system's clock.
    """
    names = work / "clock-names"
    names.write_text("".join(f"{theirs} {ours}\n" for theirs, ours in REDIRECTED.items()))
    run(["objcopy", f"--redefine-syms={names}", archive], log=log)
    if "kafka_ext_clock_gettime" not in run(["nm", "--format=posix", archive]):
        raise BuildError(f"objcopy did not change clock_gettime in {archive}")
    source = work / "kafka_ext_clock.c"
    source.write_text(SOURCE)
    # Not initial-exec: see allocator.py.
    flags = ["-O3", "-fPIC", "-fvisibility=hidden", "-ftls-model=local-dynamic"]
    run([*needs.compiler(), *flags, "-c", source, "-o", work / "clock.o"], log=log)
    run(["ar", "rs", archive, work / "clock.o"], log=log)
