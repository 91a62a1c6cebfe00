"""What transactions need beside records: which offsets were consumed, and by which group."""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import Any, NamedTuple, TypeAlias

from ._rdkafka import KafkaException, check_group


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True)
class ConsumerGroupMetadata:
    """The consumer whose offsets a transaction commits (rd_kafka_consumer_group_metadata_new_with_genid).

    With the group id alone the broker cannot fence an old member of the group; give the generation and member ids where they are known.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an empty group id, or a generation without the member it was given to: such a member the group does not know.
    """

    group_id: str
    generation_id: int = -1
    member_id: str = ""
    group_instance_id: str | None = None

    def __post_init__(self) -> None:
        for name, kinds in (("group_id", str), ("generation_id", int), ("member_id", str), ("group_instance_id", (str, type(None)))):
            value = getattr(self, name)
            if not isinstance(value, kinds):
                raise TypeError(f"{name} must be {'an int' if kinds is int else 'a str'}, not {type(value).__name__}")
        if not self.group_id:
            raise ValueError("group_id must not be empty")
        if self.generation_id >= 0 and not self.member_id:
            raise ValueError(f"generation_id {self.generation_id} needs the member_id that the group gave with it; without, leave both out")


Group: TypeAlias = tuple[str, int, str, str | None] | bytes


def group_of(group: Any) -> Group:
    """What _rdkafka takes, of a ConsumerGroupMetadata, a group id, an object with its attributes, or confluent-kafka's group metadata.

    That one is the bytes that rd_kafka_consumer_group_metadata_write() makes of its consumer.
    """
    if isinstance(group, bytes):
        try:
            check_group(group)
        except KafkaException as exc:
            message = f"group_metadata: these bytes are not what confluent-kafka's consumer_group_metadata() gives: {exc.error.message}"
            raise ValueError(message) from None
        return group
    if isinstance(group, str):
        group = ConsumerGroupMetadata(group)
    elif not isinstance(group, ConsumerGroupMetadata):
        group_id = getattr(group, "group_id", None)
        if not isinstance(group_id, str):
            raise TypeError(f"group_metadata must be a ConsumerGroupMetadata or a group id, not {type(group).__name__}")
        group = ConsumerGroupMetadata(
            group_id,
            getattr(group, "generation_id", -1),
            getattr(group, "member_id", ""),
            getattr(group, "group_instance_id", None),
        )
    return group.group_id, group.generation_id, group.member_id, group.group_instance_id


def _name(topic: object) -> str:
    if not isinstance(topic, str):
        raise TypeError(f"offsets: a topic must be a str, not {type(topic).__name__}")
    return str.__str__(topic)


def _number(name: str, value: Any) -> int:
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"offsets: {name} must be an int, not {type(value).__name__}") from None


# Places that are no offsets (RD_KAFKA_OFFSET_BEGINNING, END, STORED, INVALID; from TAIL_BASE down, so many from the end): as a consumer's
# position has where it has read nothing. librdkafka passes over them.
_NO_OFFSETS = (-1, -2, -1000, -1001)
_TAIL_BASE = -2000


def offset_rows(offsets: Any) -> list[tuple[str, int, int, int]]:
    """Offsets as `(topic, partition, offset, leader_epoch)`, without those that are none.

    Takes a mapping of (topic, partition) to the next offset to read, or objects with `topic`, `partition` and `offset`.
    """
    rows: list[tuple[str, int, int, int]] = []
    if hasattr(offsets, "items"):
        for (topic, partition), offset in offsets.items():
            offset = getattr(offset, "offset", offset)
            rows.append((_name(topic), _number("partition", partition), _number("offset", offset), -1))
    else:
        for item in offsets:
            epoch = getattr(item, "leader_epoch", None)
            epoch = -1 if epoch is None else _number("leader_epoch", epoch)
            rows.append((_name(item.topic), _number("partition", item.partition), _number("offset", item.offset), epoch))
    for topic, partition, offset, _ in rows:
        if not 0 <= partition < 1 << 31 or offset >= 1 << 63 or (_TAIL_BASE < offset < 0 and offset not in _NO_OFFSETS):
            raise ValueError(f"offsets: {(topic, partition, offset)} is not a topic, a partition and an offset of 0 or more")
    return [row for row in rows if row[2] >= 0]
