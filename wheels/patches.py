"""Defects of librdkafka that are mended in the copy that is built here: each as small as can be, and named in `build_info()["patches"]`.

A library of the system's stays as it is. Where a release no longer has the text, it is taken for mended there; in the pinned release it
must be found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from console import BuildError, warn


@dataclass(frozen=True)
class Patch:
    name: str
    file: str
    before: str  # once in the file, whatever the white space
    after: str


PATCHES = (
    # Where a request of a partition fails for the time being, the one behind it has skipped sequence numbers. Both go back into the queue
    # and are sent again as they were, in order, once nothing of the partition is in flight: all that there is to do, and all that Kafka's
    # Java client does. Beginning another epoch as well doubles what other partitions' brokers have stored and not acknowledged yet, since
    # nobody knows that again under it (docs/chaos.md). Proposed to librdkafka in its pull request 4972.
    Patch(
        name="librdkafka-4953",
        file="src/rdkafka_request.c",
        before='rd_kafka_idemp_drain_epoch_bump(rk, perr->err, "skipped sequence numbers");',
        after="",
    ),
)


def apply(source: Path, *, pinned: bool) -> list[str]:
    """Mend an unpacked librdkafka; the names of what was mended."""
    done = []
    for patch in PATCHES:
        path = source / patch.file
        text = path.read_text(encoding="utf-8")
        found = _find(text, patch.before)
        if len(found) == 1:
            start, end = found[0]
            path.write_text(text[:start] + patch.after + text[end:], encoding="utf-8")
            done.append(patch.name)
        elif pinned:
            raise BuildError(f"{patch.name} does not fit: {patch.file} has {len(found)} times {patch.before!r}; see wheels/patches.py")
        else:
            warn(f"{patch.name} is not applied: {patch.file} does not have it, or is another version's")
    return done


def _find(text: str, wanted: str) -> list[tuple[int, int]]:
    """Where `wanted` is, from and to, when white space does not count."""
    places = [place for place, letter in enumerate(text) if not letter.isspace()]
    dense, needle = "".join(text[place] for place in places), "".join(wanted.split())
    found, at = [], dense.find(needle)
    while at >= 0:
        found.append((places[at], places[at + len(needle) - 1] + 1))
        at = dense.find(needle, at + 1)
    return found
