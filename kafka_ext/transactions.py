"""What transactions need beside records: which offsets were consumed, and by which group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True)
class ConsumerGroupMetadata:
    """The consumer whose offsets a transaction commits (rd_kafka_consumer_group_metadata_new_with_genid).

    With the group id alone the broker cannot fence an old member of the group; give the generation and member ids where they are known.
    """

    group_id: str
    generation_id: int = -1
    member_id: str = ""
    group_instance_id: str | None = None


def group_of(group: Any) -> ConsumerGroupMetadata:
    """`group` as a ConsumerGroupMetadata: one already, a group id, or any object with its attributes."""
    if isinstance(group, ConsumerGroupMetadata):
        return group
    if isinstance(group, str):
        return ConsumerGroupMetadata(group)
    group_id = getattr(group, "group_id", None)
    if not isinstance(group_id, str):
        raise TypeError(f"group_metadata must be a ConsumerGroupMetadata or a group id, not {type(group).__name__}")
    return ConsumerGroupMetadata(
        group_id,
        getattr(group, "generation_id", -1),
        getattr(group, "member_id", ""),
        getattr(group, "group_instance_id", None),
    )


def _name(topic: object) -> str:
    if not isinstance(topic, str):
        raise TypeError(f"offsets: a topic must be a str, not {type(topic).__name__}")
    return topic


def offset_rows(offsets: Any) -> list[tuple[str, int, int, int]]:
    """Offsets as `(topic, partition, offset, leader_epoch)`.

    Takes a mapping of (topic, partition) to the next offset to read, or objects with `topic`, `partition` and `offset`.
    """
    rows: list[tuple[str, int, int, int]] = []
    if hasattr(offsets, "items"):
        for (topic, partition), offset in offsets.items():
            rows.append((_name(topic), int(partition), int(getattr(offset, "offset", offset)), -1))
    else:
        for item in offsets:
            epoch = getattr(item, "leader_epoch", None)
            rows.append((_name(item.topic), int(item.partition), int(item.offset), -1 if epoch is None else int(epoch)))
    for topic, partition, offset, _ in rows:
        if partition < 0 or offset < 0:
            raise ValueError(f"offsets: {(topic, partition, offset)} is not a topic, a partition and an offset of 0 or more")
    return rows
