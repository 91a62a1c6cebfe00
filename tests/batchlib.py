"""What the tests of batches share: columns of every kind out of one list of values, and what
arrived of them.
"""

import itertools

import pytest

pa = pytest.importorskip("pyarrow")

_numbers = itertools.count()

# Every Arrow type that can carry bytes, but for fixed-size ones.
BYTES = {
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "binary_view": pa.binary_view(),
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "dictionary of int8": pa.dictionary(pa.int8(), pa.binary()),
    "dictionary of uint16": pa.dictionary(pa.uint16(), pa.string()),
    "dictionary of int64": pa.dictionary(pa.int64(), pa.large_binary()),
}
FIXED = pa.binary(5)
EVERY_TYPE = [*BYTES, "fixed_size_binary"]


def fresh_topic(broker, partitions=1):
    """A topic nobody has used."""
    name = f"topic-{next(_numbers)}"
    broker.create_topic(name, partitions=partitions)
    return name


def arrow(kind, values):
    """`values` (bytes of ASCII, or None) as an Arrow array of the type named `kind`."""
    if kind == "fixed_size_binary":
        return pa.array(values, FIXED)
    kind = BYTES[kind]
    if pa.types.is_dictionary(kind):
        seen = list(dict.fromkeys(value for value in values if value is not None))
        indices = pa.array(
            [None if value is None else seen.index(value) for value in values], kind.index_type
        )
        return pa.DictionaryArray.from_arrays(
            indices, pa.array(seen, pa.binary()).cast(kind.value_type)
        )
    # Not cast from binary: up to pyarrow 24 that leaves views of short values an absent buffer, and
    # their export ends the process (Arrow's GH-49740).
    return pa.array(values, kind)


class Rows(list):
    """The messages of a topic, each partition in the order of its offsets."""

    def __init__(self, broker, topic, count):
        super().__init__(broker.messages(topic, count=count) if count else broker.messages(topic))
        assert len(self) == count

    @property
    def values(self):
        return [row.value for row in self]

    @property
    def keys(self):
        return [row.key for row in self]


def delivered(batch, timeout=20):
    """`batch`, once it is through, having lost nothing."""
    batch.wait(timeout)
    assert batch.done()
    assert (batch.pending, batch.failed, batch.errors()) == (0, 0, [])
    return batch
