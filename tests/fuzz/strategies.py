"""Arguments of every kind, each with what it means."""

from __future__ import annotations

import array
import ctypes
import datetime
import enum
import types
import uuid
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st

from .model import OUT, Given, Refused

PARTITIONS = 3
MS = 1_700_000_000_000


class Loud(str):
    """A str that says something else wherever it is asked."""

    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"

    def __format__(self, spec: str) -> str:
        return "LOUD"

    def encode(self, *arguments: Any) -> bytes:
        return b"LOUD"

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return self is other


class LoudBytes(bytes):
    def __bytes__(self) -> bytes:
        return b"LOUD"

    def __len__(self) -> int:
        return 3


class Number(enum.IntEnum):
    ZERO = 0
    ONE = 1
    TWO = 2


class Structure(ctypes.Structure):
    _fields_ = (("a", ctypes.c_int32), ("b", ctypes.c_char * 4))


class WithPointer(ctypes.Structure):
    _fields_ = (("a", ctypes.c_int32), ("b", ctypes.c_char_p))


class Tensor:
    """Speaks DLPack and nothing else."""

    def __init__(self, content: np.ndarray) -> None:
        self.content = content

    def __dlpack__(self, **_: Any) -> Any:
        return self.content.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self.content.__dlpack_device__()

    def __repr__(self) -> str:
        return f"Tensor({self.content!r})"


def as_enum(text: str) -> Any:
    return enum.Enum("Text", {"MEMBER": text}, type=str).MEMBER  # type: ignore[attr-defined]


def _released(content: bytes) -> memoryview:
    view = memoryview(content)
    view.release()
    return view


made: list[bytearray] = []  # must be free again once their producer is closed


def _bytearray(content: bytes) -> bytearray:
    made.append(bytearray(content))
    return made[-1]


binary = st.binary(max_size=24)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
STRS = {"str": str, "Enum": as_enum, "Loud": Loud, "np.str_": lambda text: np.str_(text)}

# Of some bytes, an object that is no copy of them but means them.
EXPORTERS: dict[str, Any] = {
    "bytes": bytes,
    "LoudBytes": LoudBytes,
    "bytearray": _bytearray,
    "memoryview": lambda content: memoryview(b"<" + content + b">")[1:-1],
    "memoryview of signed bytes": lambda content: memoryview(content).cast("b"),
    "array": lambda content: array.array("B", content),
    "np.uint8": lambda content: np.frombuffer(content, "u1"),
    "np of one row": lambda content: np.frombuffer(content, "u1").reshape(1, -1),
    "np.void": lambda content: np.void(content) if content else content,
    "Arrow buffer": pa.py_buffer,
    "ctypes": lambda content: (ctypes.c_uint8 * len(content)).from_buffer_copy(content),
    "ctypes of char": lambda content: (ctypes.c_char * len(content)).from_buffer_copy(content),
}
# Arrays of whole items.
NUMBERS: dict[str, Any] = {
    **{
        f"np {kind}": (lambda content, kind=kind: np.frombuffer(content, kind))
        for kind in ("<i2", ">i2", "f4", "f8", "c8", "M8[s]", "m8[D]")
    },
    "array of long": lambda content: array.array("q", content),
    "DLPack": lambda content: Tensor(np.frombuffer(bytearray(content), "i2")),
    "structured": lambda content: np.frombuffer(content, [("a", "i4"), ("b", "S4")]),
    "structure": lambda content: (Structure * (len(content) // 8)).from_buffer_copy(content),
}

# What must never be sent.
NO_BYTES: dict[str, Any] = {
    "int": lambda: 5,
    "float": lambda: 0.5,
    "bool": lambda: True,
    "list": lambda: [b"a"],
    "tuple of pairs": lambda: (("a", b"b"),),
    "object": object,
    "np.int64": lambda: np.int64(5),
    "np.float32": lambda: np.float32(5),
    "np.bool": lambda: np.bool_(True),
    "0-d": lambda: np.array(5),
    "datetime64": lambda: np.datetime64("2026-01-01"),
    "timedelta64": lambda: np.timedelta64(5, "s"),
    "0-d memoryview": lambda: memoryview(b"abcd").cast("i", shape=()),
    "c_int": lambda: ctypes.c_int(5),
    "0-d tensor": lambda: Tensor(np.array(5)),
    "objects": lambda: np.array([b"x"], object),
    "0-d object": lambda: np.array(b"x", object),
    "field of objects": lambda: np.zeros(2, [("a", "i4"), ("o", "O")]),
    "StringDType": lambda: np.array(["a"], np.dtypes.StringDType()),
    "char *": lambda: (ctypes.c_char_p * 2)(),
    "structure with char *": WithPointer,
    "pointers": lambda: (ctypes.POINTER(ctypes.c_int) * 2)(),
    "np U": lambda: np.array(["ab", "c"]),
    "c_wchar": lambda: (ctypes.c_wchar * 2)("a", "b"),
    "padded S": lambda: np.array([b"ab", b"c"]),
    "strided": lambda: memoryview(b"abcdef")[::2],
    "strided np": lambda: np.arange(8)[::2],
    "Fortran order": lambda: np.asfortranarray(np.arange(12).reshape(3, 4)),
    "released": lambda: _released(b"abc"),
    "surrogate": lambda: "a\ud800",
    "datetime": lambda: datetime.datetime(2026, 1, 1),
    "NaT": lambda: pd.NaT,
    "UUID": uuid.uuid4,
    "Decimal series": lambda: pd.Series([1, 2]),
    "Arrow column": lambda: pa.array([b"a"]),
}


@st.composite
def contents(draw: Any, refused: bool = True, names: tuple[str, ...] = ()) -> Given:
    """A value, a key or a header's value."""
    kind = draw(
        st.sampled_from(
            ["None", "str", "buffer", "buffer", "numbers"] + ["no bytes"] * (5 * refused)
        )
    )
    if kind == "None":
        return Given("None", None, None)
    if kind == "str":
        text, form = draw(texts), draw(st.sampled_from(sorted(STRS)))
        return Given(form, STRS[form](text), text.encode())
    if kind == "buffer":
        content, form = draw(binary), draw(st.sampled_from(sorted(EXPORTERS)))
        return Given(form, EXPORTERS[form](content), content)
    if kind == "numbers":
        content, form = (
            draw(st.binary(min_size=1, max_size=3)) * 8,
            draw(st.sampled_from(sorted(NUMBERS))),
        )
        return Given(form, NUMBERS[form](content), content)
    form = draw(st.sampled_from(sorted(NO_BYTES)))
    return Given(form, NO_BYTES[form](), Refused(names))


def _pairs(draw: Any, refused: bool) -> list[tuple[Any, Any, str, Any]]:
    """`(name, content, what the name means, what the content means)` of each header."""
    names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=6)
    pairs = []
    for name in draw(st.lists(names, max_size=3)):
        content = draw(contents(refused, ("header",)))
        form = draw(st.sampled_from(["str", "Enum", "Loud"]))
        pairs.append((STRS[form](name), content.given, name, content.means))
    return pairs


class Items:
    """Neither list nor iterator: gone through anew each time."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Any:
        return iter(self.items)


NO_HEADERS: dict[str, Any] = {
    "int": lambda: 5,
    "str": lambda: "ab",
    "bytes": lambda: b"ab",
    "triple": lambda: [("a", b"b", b"c")],
    "bytes as a name": lambda: [(b"a", b"b")],
    "NUL": lambda: [("a\0b", b"")],
    "surrogate": lambda: [("a\ud800", b"")],
    "strs": lambda: ["ab"],
}


@st.composite
def headers(draw: Any, refused: bool = True) -> Given:
    kind = draw(
        st.sampled_from(
            ["None", "list", "tuple", "generator", "zip", "items", "dict", "mapping", "lists"]
            + ["bad"] * (5 * refused)
        )
    )
    if kind == "None":
        return Given("None", None, [])
    if kind == "bad":
        form = draw(st.sampled_from(sorted(NO_HEADERS)))
        return Given(form, NO_HEADERS[form](), Refused(("header",)))
    pairs = _pairs(draw, refused)
    if kind in ("dict", "mapping"):
        unique = {name: (name, content, name, means) for _, content, name, means in pairs}
        pairs = list(unique.values())
    means = [(name, means) for _, _, name, means in pairs]
    bad = any(isinstance(content, Refused) for _, content in means)
    forms = {
        "list": list,
        "tuple": tuple,
        "generator": lambda items: (pair for pair in items),
        "zip": lambda items: zip(
            [name for name, _ in items], [content for _, content in items], strict=True
        ),
        "items": Items,
        "lists": lambda items: [list(pair) for pair in items],
        "dict": dict,
        "mapping": lambda items: types.MappingProxyType(dict(items)),
    }
    return Given(
        kind, forms[kind]([pair[:2] for pair in pairs]), Refused(("header",)) if bad else means
    )


AWARE = st.datetimes(
    datetime.datetime(1970, 1, 3),
    datetime.datetime(2100, 1, 1),
    timezones=st.sampled_from(
        [
            datetime.timezone.utc,
            datetime.timezone(datetime.timedelta(hours=5, minutes=30)),
            datetime.timezone(datetime.timedelta(hours=-11)),
        ]
    ),
)
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def _ms(time: datetime.datetime) -> int:
    return (time - EPOCH) // datetime.timedelta(milliseconds=1)


NO_TIMES: dict[str, Any] = {
    "0": lambda: 0,
    "-1": lambda: -1,
    "2**63": lambda: 2**63,
    "float": lambda: 1.5e12,
    "str": lambda: "2026",
    "naive": lambda: datetime.datetime(2026, 1, 1),
    "min": lambda: datetime.datetime.min,
    "max": lambda: datetime.datetime.max,
    "aware min": lambda: datetime.datetime.min.replace(
        tzinfo=datetime.timezone(datetime.timedelta(hours=1))
    ),
    "NaT": lambda: pd.NaT,
    "naive Timestamp": lambda: pd.Timestamp("2026-01-01"),
    "datetime64": lambda: np.datetime64("2026-01-01"),
    "0-d datetime64": lambda: np.array("2026-01-01", "M8[s]"),
    "date": lambda: datetime.date(2026, 1, 1),
    "bytes": lambda: b"1",
}


@st.composite
def timestamps(draw: Any, refused: bool = True, name: str = "timestamp") -> Given:
    kind = draw(
        st.sampled_from(
            ["None", "None", "int", "np", "datetime", "Timestamp"] + ["bad"] * (5 * refused)
        )
    )
    if kind == "None":
        return Given("None", None, None)
    if kind in ("int", "np"):
        number = draw(st.integers(1, 4_102_444_800_000))
        return Given(kind, number if kind == "int" else np.int64(number), number)
    if kind == "bad":
        form = draw(st.sampled_from(sorted(NO_TIMES)))
        return Given(form, NO_TIMES[form](), Refused((name,)))
    time = draw(AWARE)
    return Given(kind, time if kind == "datetime" else pd.Timestamp(time), _ms(time))


NO_PARTITIONS: dict[str, Any] = {
    "-1": lambda: -1,
    "2**31": lambda: 2**31,
    "2**70": lambda: 2**70,
    "float": lambda: 1.0,
    "str": lambda: "1",
    "bytes": lambda: b"\1",
    "np.float64": lambda: np.float64(1),
    "array": lambda: np.array([1.5]),
    "datetime64": lambda: np.datetime64(1, "s"),
}


@st.composite
def partitions(draw: Any, refused: bool = True, name: str = "partition") -> Given:
    kind = draw(
        st.sampled_from(
            ["None", "None", "int", "np", "IntEnum", "0-d"] + ["bad", "out"] * (2 * refused)
        )
    )
    if kind == "None":
        return Given("None", None, None)
    if kind == "out":
        return Given("out", draw(st.sampled_from([PARTITIONS, 999, 2**31 - 1])), OUT)
    if kind == "bad":
        form = draw(st.sampled_from(sorted(NO_PARTITIONS)))
        return Given(form, NO_PARTITIONS[form](), Refused((name,)))
    number = draw(st.integers(0, PARTITIONS - 1))
    forms = {"int": int, "np": np.int32, "IntEnum": Number, "0-d": np.array}
    return Given(kind, forms[kind](number), number)


NO_TOPICS = ["", ".", "..", "a" * 250, "a b", "a\0b", "ü", "a\n", b"bytes", 5, None, np.array("a")]


@st.composite
def topics(draw: Any, names: list[str], refused: bool = True) -> Given:
    if refused and draw(st.booleans()):
        return Given("no topic", draw(st.sampled_from(NO_TOPICS)), Refused(("topic",)))
    form = draw(st.sampled_from(sorted(STRS)))
    name = draw(st.sampled_from(names))
    return Given(form, STRS[form](name), name)


# ---------------------------------------------------------------------- columns

ARROW = {
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "string": pa.string(),
    "large_string": pa.large_string(),
    "binary_view": pa.binary_view(),
    "string_view": pa.string_view(),
}


def arrow_column(draw: Any, rows: list[Any], kind: Any, whole: bool = True) -> Any:
    """`rows` as an Arrow array: a slice of a longer one, in chunks (with `whole`), a dictionary…"""
    before, behind = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    filler = next((row for row in rows if row is not None), None)
    column = pa.array([filler] * before + rows + [filler] * behind, kind)
    column = column.slice(before, len(rows))
    if whole and draw(st.booleans()):
        cut = draw(st.integers(0, len(rows)))
        column = pa.chunked_array([column.slice(0, cut), column.slice(cut)], kind)
    return column


def _text_or_bytes(draw: Any, n: int, text: bool, nulls: bool = True) -> list[Any]:
    one = texts if text else binary
    return draw(st.lists(st.none() | one if nulls else one, min_size=n, max_size=n))


def _as_bytes(row: Any) -> Any:
    return row.encode() if isinstance(row, str) else row


NO_COLUMNS: dict[str, Any] = {
    "generator": lambda n: (b"" for _ in range(n)),
    "int": lambda n: n,
    "dict": lambda n: {b"%d" % i: i for i in range(n)},
    "np numbers": lambda n: np.zeros(n),
    "np bools": lambda n: np.zeros(n, bool),
    "np objects": lambda n: np.array([b"a"] * n, object),
    "np times": lambda n: np.zeros(n, "M8[s]"),
    "np U": lambda n: np.array(["a"] * n),
    "np U in rows": lambda n: np.array([["a", "b"]] * n),
    "padded": lambda n: np.array([b"a"] * n, "S2"),
    "StringDType": lambda n: np.array(["a"] * n, np.dtypes.StringDType()),
    "strided rows": lambda n: np.zeros((n, 4), "u1")[:, ::2],
    "three dimensions": lambda n: np.zeros((n, 2, 2), "u1"),
    "Arrow int64": lambda n: pa.array([1] * n),
    "Arrow list": lambda n: pa.array([[b"a"]] * n),
    "Arrow bool": lambda n: pa.array([True] * n),
    "Arrow timestamp": lambda n: pa.array([1] * n, pa.timestamp("ms")),
    "Polars Object": lambda n: pl.Series([uuid.uuid4() for _ in range(n)], dtype=pl.Object),
    "Polars Int64": lambda n: pl.Series([1] * n),
    "Polars Array": lambda n: pl.Series([[1, 2]] * n, dtype=pl.Array(pl.UInt8, 2)),
    "char *": lambda n: (ctypes.c_char_p * n)(),
    "datetime64": lambda n: np.datetime64("2026-01-01"),
    "np.int64": lambda n: np.int64(n),
}


@st.composite
def columns(draw: Any, n: int, name: str, refused: bool = True, key: bool = False) -> Given:
    """`n` values, or keys. `means` is a list, or with `key` one for all: a list of the same."""
    kinds = [
        "list",
        "tuple",
        "arrow",
        "arrow",
        "fixed",
        "dictionary",
        "nulls",
        "polars",
        "rows",
        "S",
        "records",
    ]
    kind = draw(
        st.sampled_from(
            kinds
            + ["bad"] * (6 * refused)
            + (["None", "one", "one-byte S"] + ["one-byte numbers"] * refused) * key
        )
    )
    if kind == "None":
        return Given("None", None, [None] * n)
    if kind == "one":
        content = draw(
            contents(False).filter(
                lambda content: isinstance(content.given, (str, bytes, bytearray))
            )
        )
        return Given(f"one {content.what}", content.given, [content.means] * n)
    if kind in ("list", "tuple"):
        items = [draw(contents(refused, (name,))) for _ in range(n)]
        bad = any(isinstance(item.means, Refused) for item in items)
        given = [item.given for item in items]
        return Given(
            kind,
            given if kind == "list" else tuple(given),
            Refused((name,)) if bad else [item.means for item in items],
        )
    if kind == "arrow":
        form = draw(st.sampled_from(sorted(ARROW)))
        rows = _text_or_bytes(draw, n, "string" in form)
        return Given(form, arrow_column(draw, rows, ARROW[form]), [_as_bytes(row) for row in rows])
    if kind == "fixed":
        rows = draw(st.lists(st.none() | st.binary(min_size=3, max_size=3), min_size=n, max_size=n))
        return Given(kind, arrow_column(draw, rows, pa.binary(3)), rows)
    if kind == "dictionary":
        rows = draw(st.lists(st.sampled_from([None, b"", b"a", b"bcd"]), min_size=n, max_size=n))
        return Given(kind, pa.array(rows, pa.binary()).dictionary_encode(), rows)
    if kind == "nulls":
        return Given(kind, pa.nulls(n), [None] * n)
    if kind == "polars":
        text = draw(st.booleans())
        rows = _text_or_bytes(draw, n, text)
        return Given(
            kind,
            pl.Series(rows, dtype=pl.String if text else pl.Binary),
            [_as_bytes(row) for row in rows],
        )
    if kind == "rows":
        rows = draw(st.lists(st.binary(min_size=2, max_size=2), min_size=n, max_size=n))
        return Given(kind, np.frombuffer(b"".join(rows), "u1").reshape(n, 2), rows)
    if kind in ("S", "one-byte S"):
        size = 1 if kind == "one-byte S" else draw(st.integers(1, 4))
        rows = draw(
            st.lists(
                st.binary(min_size=size, max_size=size).filter(lambda row: row[-1]),
                min_size=n,
                max_size=n,
            )
        )
        return Given(kind, np.array(rows, f"S{size}"), rows)
    if kind == "records":
        rows = draw(st.lists(st.binary(min_size=6, max_size=6), min_size=n, max_size=n))
        return Given(kind, np.frombuffer(b"".join(rows), [("a", "<i4"), ("b", "S2")]), rows)
    if kind == "one-byte numbers":
        numbers = np.arange(1, n + 1, dtype="u1")
        return Given(kind, numbers, [b"\1"] if n == 1 else Refused((name,)))
    form = draw(st.sampled_from(sorted(NO_COLUMNS)))
    return Given(form, NO_COLUMNS[form](n), Refused((name,)))


COLUMNS = ("values", "keys", "partitions", "timestamps", "headers")


@st.composite
def header_columns(draw: Any, n: int, refused: bool = True) -> Given:
    form = draw(st.sampled_from(["None", "same", "each"]))
    if form == "None":
        return Given("None", None, [[]] * n)
    if form == "each":
        each = [draw(headers(refused)) for _ in range(n)]
        bad = any(isinstance(one.means, Refused) for one in each)
        return Given(
            "each",
            [one.given for one in each],
            Refused(("header",)) if bad else [one.means for one in each],
        )
    # A sequence of lists is one for each message: only what cannot be taken for that.
    one = draw(
        headers(False).filter(
            lambda one: one.what in ("tuple", "generator", "dict", "mapping", "list")
        )
    )
    return Given(f"same {one.what}", one.given, [one.means] * n)


@st.composite
def partition_columns(draw: Any, n: int, refused: bool = True, arrow_only: bool = False) -> Given:
    name = "partition"
    kinds = (
        ["None", "nulls", "arrow"]
        if arrow_only
        else ["None", "one", "list", "np", "array", "arrow", "nulls"]
    )
    kind = draw(st.sampled_from(kinds + ["bad"] * (4 * refused)))
    if kind == "None":
        return Given(kind, None, [None] * n)
    if kind == "nulls":
        return Given(kind, pa.nulls(n), [None] * n)
    if kind == "one":
        one = draw(partitions(refused, name).filter(lambda one: one.given is not None))
        means = one.means if isinstance(one.means, Refused) else [one.means] * n
        return Given(f"one {one.what}", one.given, means)
    if kind == "list":
        items = [draw(partitions(refused, name)) for _ in range(n)]
        bad = any(isinstance(item.means, Refused) for item in items)
        return Given(
            kind,
            [item.given for item in items],
            Refused((name,)) if bad else [item.means for item in items],
        )
    if kind == "bad":
        given = draw(
            st.sampled_from(
                [
                    np.zeros(n),
                    np.full(n, -1),
                    "0" * n,
                    b"\0" * n,
                    pa.array([0.5] * n),
                    np.zeros(n, "M8[s]"),
                    set(),
                ]
            )
        )
        return Given("bad", given, Refused((name,)))
    whole = st.integers(0, PARTITIONS - 1)
    rows = draw(st.lists(st.none() | whole if kind == "arrow" else whole, min_size=n, max_size=n))
    if kind == "arrow":
        form = draw(st.sampled_from([pa.int8(), pa.uint16(), pa.int32(), pa.uint64(), pa.int64()]))
        return Given(f"Arrow {form}", arrow_column(draw, rows, form, not arrow_only), rows)
    if kind == "np":
        return Given(
            kind, np.array(rows, draw(st.sampled_from(["i1", "u2", "i4", "i8", "u8"]))), rows
        )
    return Given(kind, array.array("i", rows), rows)


@st.composite
def timestamp_columns(draw: Any, n: int, refused: bool = True, arrow_only: bool = False) -> Given:
    name = "timestamp"
    kinds = (
        ["None", "nulls", "arrow"]
        if arrow_only
        else ["None", "one", "list", "np", "arrow", "nulls"]
    )
    kind = draw(st.sampled_from(kinds + ["bad"] * (4 * refused)))
    if kind == "None":
        return Given(kind, None, [None] * n)
    if kind == "nulls":
        return Given(kind, pa.nulls(n), [None] * n)
    if kind == "one":
        one = draw(timestamps(refused, name).filter(lambda one: one.given is not None))
        return Given(
            f"one {one.what}",
            one.given,
            one.means if isinstance(one.means, Refused) else [one.means] * n,
        )
    if kind == "list":
        items = [draw(timestamps(refused, name)) for _ in range(n)]
        bad = any(isinstance(item.means, Refused) for item in items)
        return Given(
            kind,
            [item.given for item in items],
            Refused((name,)) if bad else [item.means for item in items],
        )
    if kind == "bad":
        given = draw(
            st.sampled_from(
                [
                    np.zeros(n),
                    np.zeros(n, "i8"),
                    np.full(n, -1),
                    np.zeros(n, "M8[s]"),
                    pa.array(["a"] * n),
                    b"1" * n,
                ]
            )
        )
        return Given("bad", given, Refused((name,)))
    seconds = st.integers(1, 4_000_000_000)
    rows = draw(
        st.lists(st.none() | seconds if kind == "arrow" else seconds, min_size=n, max_size=n)
    )
    if kind == "np":
        return Given(kind, np.array(rows, "i8"), rows)
    unit, factor = draw(
        st.sampled_from([("s", 1), ("ms", 1000), ("us", 1000_000), ("ns", 1000_000_000)])
    )
    form = pa.timestamp(unit, draw(st.sampled_from([None, "UTC", "Asia/Tokyo"])))
    numbers = [None if row is None else row * factor for row in rows]
    column = arrow_column(draw, numbers, pa.int64(), False).cast(form)
    return Given(f"Arrow {form}", column, [None if row is None else row * 1000 for row in rows])
