"""Random configurations: which are refused, by a name, and which value is in force."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from kafka_ext import KafkaProducer

from .model import Given, Refused
from .strategies import Loud, Number, as_enum

# By name: the least and the greatest, as librdkafka's CONFIGURATION.md has them. Those that depend
# on no other.
INTEGERS = {
    "batch.size": (1, 2147483647),
    "batch.num.messages": (1, 1000000),
    "queue.buffering.max.messages": (0, 2147483647),
    "queue.buffering.max.kbytes": (1, 2147483647),
    "message.max.bytes": (1000, 1000000000),
    "metadata.max.age.ms": (1, 86400000),
    "socket.send.buffer.bytes": (0, 100000000),
    "statistics.interval.ms": (0, 86400000),
    "compression.level": (-1, 12),
    "sticky.partitioning.linger.ms": (0, 900000),
}
BOOLEANS = (
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "log.connection.close",
    "allow.auto.create.topics",
    "enable.sasl.oauthbearer.unsecure.jwt",
)
WORDS = {
    "compression.type": ("none", "gzip", "snappy", "lz4", "zstd"),
    "broker.address.family": ("any", "v4", "v6"),
    "queuing.strategy": ("fifo",),
    "partitioner": (
        "random",
        "consistent",
        "consistent_random",
        "murmur2",
        "murmur2_random",
        "fnv1a",
        "fnv1a_random",
    ),
}
NO_NUMBERS: list[Any] = [
    "10s",
    "1_000",
    "16k",
    "",
    " ",
    "0x10",
    "1e3",
    "1.5",
    1.5,
    "nan",
    float("nan"),
    float("inf"),
    "²",
    "٣",
    "5 5",
    "5\0",
    "--5",
    True,
]
NO_BOOLEANS: list[Any] = ["yes please", "2", "", "truefalse", 0.5, -1]
NO_TYPES: list[Any] = [None, object(), {}, {1}, lambda: 5, [["a"]]]


@st.composite
def integers(draw: Any, name: str) -> Given:
    least, greatest = INTEGERS[name]
    kind = draw(
        st.sampled_from(
            [
                "int",
                "str",
                "spaces",
                "bytes",
                "float",
                "np",
                "Loud",
                "IntEnum",
                "bad",
                "type",
                "range",
            ]
        )
    )
    if kind == "bad":
        return Given(kind, draw(st.sampled_from(NO_NUMBERS)), Refused((name,)))
    if kind == "type":
        return Given(kind, draw(st.sampled_from(NO_TYPES)), Refused((name,)))
    if kind == "range":
        return Given(
            kind,
            draw(
                st.sampled_from(
                    [least - 1, greatest + 1, 2**31, 2**32 + greatest, 2**64 + greatest, -(2**63)]
                )
            ),
            Refused((name,)),
        )
    number = draw(st.integers(least, greatest) | st.sampled_from([least, greatest]))
    if kind == "IntEnum":
        number = max(least, 2)
        return Given(kind, Number(number) if number == 2 else number, str(number))
    forms: dict[str, Any] = {
        "int": int,
        "str": str,
        "spaces": lambda number: f" {number}\t",
        "bytes": lambda number: b"%d" % number,
        "float": float,
        "np": np.int64,
        "Loud": lambda number: Loud(number),
    }
    return Given(kind, forms[kind](number), str(number))


@st.composite
def booleans(draw: Any, name: str) -> Given:
    kind = draw(st.sampled_from(["bool", "str", "np", "number", "bad", "type"]))
    if kind == "bad":
        return Given(kind, draw(st.sampled_from(NO_BOOLEANS)), Refused((name,)))
    if kind == "type":
        return Given(kind, draw(st.sampled_from(NO_TYPES)), Refused((name,)))
    means = draw(st.booleans())
    forms: dict[str, Any] = {
        "bool": bool,
        "str": lambda means: "TRUE" if means else "False",
        "np": np.bool_,
        "number": int,
    }
    return Given(kind, forms[kind](means), "true" if means else "false")


@st.composite
def words(draw: Any, name: str) -> Given:
    kind = draw(st.sampled_from(["str", "Enum", "bytes", "bad", "type"]))
    word = draw(st.sampled_from(WORDS[name]))
    if kind == "bad":
        return Given(
            kind,
            draw(st.sampled_from(["", "nonsense", word + "x", word + "," + word, "é", "a\ud800"])),
            Refused((name,)),
        )
    if kind == "type":
        return Given(kind, draw(st.sampled_from([object(), {}, 0.5])), Refused((name,)))
    forms: dict[str, Any] = {"str": str, "Enum": as_enum, "bytes": str.encode}
    if name == "partitioner" and kind == "bytes":
        return Given(kind, word.encode(), Refused((name,)))
    return Given(kind, forms[kind](word), word)


@st.composite
def texts(draw: Any) -> Given:
    text = draw(
        st.text(
            st.characters(exclude_categories=("Cs",), exclude_characters="\0"),
            min_size=1,
            max_size=12,
        )
    )
    forms: dict[str, Any] = {"str": str, "Loud": Loud, "bytes": str.encode, "Enum": as_enum}
    form = draw(st.sampled_from([*sorted(forms), "surrogate", "NUL", "no UTF-8", "space", "Path"]))
    if form == "Path":
        return Given(form, pathlib.PurePosixPath("a/b"), "a/b")
    text = (
        text.lstrip() or "text"
    )  # librdkafka leaves white space at the beginning out, so it is refused
    bad = {
        "surrogate": text + "\ud800",
        "NUL": text + "\0",
        "no UTF-8": text.encode() + b"\xff",
        "space": " " + text,
    }
    return (
        Given(form, bad[form], Refused(("client.id",)))
        if form in bad
        else Given(form, forms[form](text), text)
    )


@st.composite
def idempotence(draw: Any) -> dict[str, Any]:
    """What an idempotent producer needs, and what contradicts it; `means` is what is in force, or
    Refused.
    """
    chosen = {
        "enable.idempotence": draw(st.sampled_from([None, True, False, "true", "false"])),
        "acks": draw(st.sampled_from([None, "all", -1, 1, 0, "1", "2", "all,1", "ALL"])),
        "max.in.flight": draw(st.sampled_from([None, 1, 5, 6, 1000000])),
        "retries": draw(st.sampled_from([None, 0, 1, 2147483647])),
        "transactional.id": draw(st.sampled_from([None, None, None, "id", ""])),
    }
    return {name: value for name, value in chosen.items() if value is not None}


def expected_of(chosen: dict[str, Any]) -> dict[str, str] | Refused:
    """The values in force with these, or that they are refused."""
    acks = str(chosen.get("acks", "all")).lower()
    named = str(chosen["enable.idempotence"]).lower() if "enable.idempotence" in chosen else None
    if acks not in ("all", "-1", "1", "0"):
        return Refused(("acks",))
    if chosen.get("transactional.id") == "":
        return Refused(("transactional.id",))
    fits = (
        acks in ("all", "-1")
        and chosen.get("max.in.flight", 1) <= 5
        and chosen.get("retries", 1) >= 1
    )
    transactional = "transactional.id" in chosen
    if (transactional or named == "true") and not fits:
        return Refused(("acks", "max.in.flight", "retries", "idempotence"))
    if transactional and named == "false":
        return Refused(("transactional.id", "idempotence"))
    idempotent = named == "true" or transactional or (named is None and fits)
    return {
        "enable.idempotence": "true" if idempotent else "false",
        "acks": "-1" if acks == "all" else acks,
    }


@st.composite
def configurations(draw: Any) -> dict[str, Given]:
    chosen = {}
    for name in draw(
        st.lists(
            st.sampled_from([*INTEGERS, *BOOLEANS, *WORDS, "client.id"]), unique=True, max_size=4
        )
    ):
        kind = (
            integers(name)
            if name in INTEGERS
            else booleans(name)
            if name in BOOLEANS
            else words(name)
            if name in WORDS
            else texts()
        )
        chosen[name] = draw(kind)
    return chosen


def check(chosen: dict[str, Given], needs: dict[str, Any], as_keywords: bool) -> None:
    """Make the producer, and compare."""
    settings = {name: part.given for name, part in chosen.items()} | needs
    refusals = [part.means for part in chosen.values() if isinstance(part.means, Refused)]
    in_force = {name: part.means for name, part in chosen.items()}
    expected = expected_of(needs)
    if isinstance(expected, Refused):
        refusals.append(expected)
    else:
        in_force |= expected
    base: dict[str, Any] = {
        "bootstrap.servers": "127.0.0.1:9",
        "log_level": 0,
        "log_cb": lambda *log: None,
        "error_cb": lambda error: None,
    }
    refusal = producer = None
    try:
        if as_keywords:
            producer = KafkaProducer(
                base, **{name.replace(".", "_"): value for name, value in settings.items()}
            )
        else:
            producer = KafkaProducer(base | settings)
    except (TypeError, ValueError) as exc:  # InvalidConfigError is a ValueError
        refusal = exc
    if producer is None:
        names = [name for refused in refusals for name in refused.names]
        assert names, f"refused, and nothing is wrong with it: {refusal!r}"
        assert any(name in str(refusal) for name in names), f"names none of {names}: {refusal!r}"
        assert not isinstance(refusal, UnicodeError), "a UnicodeError, which may hold a secret"
        return
    try:
        assert not refusals, f"taken: {refusals}"
        for name, means in in_force.items():
            assert producer.get_property(name) == means, (
                f"{name}: {producer.get_property(name)!r} is in force, not {means!r}"
            )
    finally:
        producer.close(0)


def run(number: int, examples: int, shrink: bool = False) -> int:
    """Make `examples` random producers that follow from the seed `number`; raises what it found."""
    made = 0

    @seed(number)
    @settings(
        max_examples=examples,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(configurations(), idempotence() | st.just({}), st.booleans())
    def one(chosen: dict[str, Given], needs: dict[str, Any], as_keywords: bool) -> None:
        nonlocal made
        made += 1
        check(chosen, needs, as_keywords)

    one()
    return made
