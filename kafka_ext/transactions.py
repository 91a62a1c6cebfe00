"""What transactions need beside records: which offsets were consumed, and by which group."""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import Any, NamedTuple, TypeAlias

from ._rdkafka import KafkaException, check_group, check_topic_name


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True)
class ConsumerGroupMetadata:
    """The consumer whose offsets a transaction commits
    (rd_kafka_consumer_group_metadata_new_with_genid).

    With the group id alone the broker cannot fence an old member of the group; give the generation
    and member ids where they are known.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an empty group id, text that would be cut at a NUL, a generation out of range,
            or one without the member it was given to: such a member the group does not know.
    """

    group_id: str
    generation_id: int = -1
    member_id: str = ""
    group_instance_id: str | None = None

    def __post_init__(self) -> None:
        for name, kinds in (
            ("group_id", str),
            ("generation_id", int),
            ("member_id", str),
            ("group_instance_id", (str, type(None))),
        ):
            value = getattr(self, name)
            if not isinstance(value, kinds):
                raise TypeError(
                    f"{name} must be {'an int' if kinds is int else 'a str'}, not"
                    f" {type(value).__name__}"
                )
            if isinstance(value, str) and (str.__contains__(value, "\0") or not _is_utf8(value)):
                raise ValueError(f"{name} {value!r} holds a NUL character or a lone surrogate")
        if not self.group_id:
            raise ValueError("group_id must not be empty")
        if not -1 <= self.generation_id <= _MOST_32:
            raise ValueError(
                f"generation_id must be from 0 to {_MOST_32}, or -1 where it is not known, not"
                f" {self.generation_id}"
            )
        if self.generation_id >= 0 and not self.member_id:
            raise ValueError(
                f"generation_id {self.generation_id} needs the member_id that the group gave with"
                " it; without, leave both out"
            )


Group: TypeAlias = tuple[str, int, str, str | None] | bytes


def group_of(group: Any) -> Group:
    """What _rdkafka takes, of a ConsumerGroupMetadata, a group id, an object with its attributes,
    or confluent-kafka's group metadata.

    That one is the bytes that rd_kafka_consumer_group_metadata_write() makes of its consumer.
    """
    if isinstance(group, bytes):
        try:
            check_group(group)
        except KafkaException as exc:
            message = (
                "group_metadata: these bytes are not what confluent-kafka's"
                f" consumer_group_metadata() gives: {exc.error.message}"
            )
            raise ValueError(message) from None
        return group
    if isinstance(group, str):
        group = ConsumerGroupMetadata(group)
    elif not isinstance(group, ConsumerGroupMetadata):
        group_id = getattr(group, "group_id", None)
        if not isinstance(group_id, str):
            raise TypeError(
                "group_metadata must be a ConsumerGroupMetadata or a group id, not"
                f" {type(group).__name__}"
            )
        group = ConsumerGroupMetadata(
            group_id,
            getattr(group, "generation_id", -1),
            getattr(group, "member_id", ""),
            getattr(group, "group_instance_id", None),
        )
    return group.group_id, group.generation_id, group.member_id, group.group_instance_id


def _number(name: str, value: Any) -> int:
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"offsets: {name} must be an int, not {type(value).__name__}") from None


# Places that are no offsets (RD_KAFKA_OFFSET_BEGINNING, END, STORED, INVALID; from TAIL_BASE down,
# so many from the end): as a consumer's position has where it has read nothing. librdkafka passes
# over them.
_NO_OFFSETS = (-1, -2, -1000, -1001)
_TAIL_BASE = -2000
_MOST_32 = 2**31 - 1
_MOST_64 = 2**63 - 1
_LEAST_64 = -(2**63)


def offset_rows(offsets: Any) -> list[tuple[str, int, int, int]]:
    """Offsets as `(topic, partition, offset, leader_epoch)`, without those that are none.

    Takes a mapping of (topic, partition) to the next offset to read, or objects with `topic`,
    `partition` and `offset`.

    Raises:
        TypeError: it is nothing of the kind, or one of them is not.
        ValueError: a number that is out of range, or no topic's name.
    """
    try:
        pairs = list(
            offsets.items() if hasattr(offsets, "items") else ((item, item) for item in offsets)
        )
    except TypeError:
        raise TypeError(f"offsets must be {_OFFSETS}, not {type(offsets).__name__}") from None
    rows = [_row(place, offset) for place, offset in pairs]
    return [row for row in rows if row[2] >= 0]


_OFFSETS = (
    "a mapping of (topic, partition) to the next offset, or objects with topic, partition and"
    " offset"
)


def _row(place: Any, offset: Any) -> tuple[str, int, int, int]:
    try:
        topic, partition = (place.topic, place.partition) if place is offset else place
        offset = offset.offset if place is offset else getattr(offset, "offset", offset)
    except (AttributeError, TypeError, ValueError):
        one = repr(place) if place is offset else f"{place!r}: {offset!r}"
        raise TypeError(f"offsets must be {_OFFSETS}; one of them is {one}") from None
    if not isinstance(topic, str):
        raise TypeError(f"offsets: a topic must be a str, not {type(topic).__name__}")
    name = check_topic_name(topic)
    partition, number = _number("partition", partition), _number("offset", offset)
    epoch = getattr(place, "leader_epoch", None)
    epoch = -1 if epoch is None else _number("leader_epoch", epoch)
    in_range = 0 <= partition <= _MOST_32 and _LEAST_64 <= number <= _MOST_64 and epoch <= _MOST_32
    if not in_range or (_TAIL_BASE < number < 0 and number not in _NO_OFFSETS):
        raise ValueError(
            f"offsets: {(name, partition, number)} is not a topic, a partition and an offset of 0"
            " or more"
        )
    return name, partition, number, epoch


def _is_utf8(text: str) -> bool:
    """Of its characters, whatever a subclass of str makes of them."""
    try:
        str.encode(text)
    except UnicodeEncodeError:
        return False
    return True
