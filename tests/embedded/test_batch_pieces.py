"""Batches longer than a piece: a long column is answered for and let go piece by piece, and is one
batch all the same.
"""

import itertools
import threading
import time

import numpy as np
import pytest
from batchlib import arrow, delivered, fresh_topic
from faultlib import interrupt_after, is_pinned, wait_until
from hypothesis import given
from hypothesis import strategies as st

from kafka_ext import ErrorCode, KafkaException, _rdkafka

pa = pytest.importorskip("pyarrow")

PIECE = 65536  # PART in kafka_ext/core/producer/columns.pyx
COUNT = 2 * PIECE + 1000
UNREACHABLE = {
    "bootstrap.servers": "127.0.0.1:1",
    "test.mock.num.brokers": ...,
    "log_level": 0,
    "error_cb": lambda error: None,
}


def numbers(count=COUNT):
    return [b"%d" % i for i in range(count)]


def chunked(values):
    """In chunks that end nowhere near a piece's end, some of them empty."""
    borders = [0, 0, 10, 50_000, 50_000, 66_000, 131_071, len(values)]
    return pa.chunked_array([arrow("binary", values[a:b]) for a, b in itertools.pairwise(borders)])


FORMS = {
    "list": list,
    "tuple": tuple,
    "list of other things": lambda values: [
        bytearray(values[0]),
        *values[1:-1],
        values[-1].decode(),
    ],
    "one Arrow array": lambda values: arrow("binary", values),
    "Arrow chunks": chunked,
}


@pytest.mark.parametrize("form", FORMS)
def test_each_message_has_its_own_key_partition_timestamp_and_place(
    kafka_broker, make_producer, form
):
    topic = fresh_topic(kafka_broker, partitions=3)
    producer = make_producer(
        kafka_broker.config(**{"enable.idempotence": False}) | {"test.mock.num.brokers": ...}
    )
    values = numbers()
    keys = [b"k%d" % (i * 7) for i in range(COUNT)]
    partitions = [i * 31 % 3 for i in range(COUNT)]
    stamps = [1_700_000_000_000 + i for i in range(COUNT)]
    batch = producer.send_batch(
        topic,
        FORMS[form](values),
        keys=keys if form != "Arrow chunks" else chunked(keys),
        partitions=partitions,
        timestamps=stamps,
    )
    delivered(batch, 60)
    assert len(batch) == len(batch.offsets) == len(batch.partitions) == COUNT
    assert batch.partitions.tolist() == partitions
    assert (
        np.asarray(batch.offsets).ctypes.data == np.asarray(batch.offsets).ctypes.data
    )  # the batch's own memory, not a copy
    at = {
        (row.partition, row.offset): row
        for row in kafka_broker.messages(topic, count=COUNT, timeout=60)
    }
    for i, place in enumerate(zip(batch.partitions, batch.offsets, strict=True)):
        row = at[place]
        assert (row.value, row.key, row.timestamp) == (values[i], keys[i], stamps[i])


def test_each_message_has_its_own_headers(kafka_broker, make_producer):
    topic = fresh_topic(kafka_broker)
    producer = make_producer(
        kafka_broker.config(**{"enable.idempotence": False}) | {"test.mock.num.brokers": ...}
    )
    count = PIECE + 20
    batch = delivered(
        producer.send_batch(
            topic,
            numbers(count),
            headers=[[("n", b"%d" % i)] if i % 3 else None for i in range(count)],
        ),
        60,
    )
    for row in kafka_broker.messages(topic, count=count, timeout=60):
        assert list(row.headers) == ([("n", row.value)] if int(row.value) % 3 else [])
    assert len(batch) == count


@pytest.mark.parametrize("wrong", [17, object(), 1.5], ids=["int", "object", "float"])
@pytest.mark.parametrize("index", [0, PIECE - 1, PIECE, COUNT - 1])
def test_a_wrong_item_anywhere_is_told_by_its_index_and_nothing_is_sent(
    make_producer, wrong, index
):
    producer = make_producer(UNREACHABLE)
    values = numbers()
    values[3] = held = bytearray(b"held")
    values[index] = wrong
    with pytest.raises(TypeError, match=rf"item {index} of values"):
        producer.send_batch("t", values)
    assert producer.metrics().sent == 0
    assert not is_pinned(held)


def test_pieces_are_let_go_one_by_one(make_producer):
    """The last message of the first piece is reported, and the second piece is still on its way."""
    producer = make_producer(UNREACHABLE | {"queue.buffering.max.messages": 1000})
    values = numbers()
    values[0] = first = bytearray(b"first")
    values[-1] = last = bytearray(b"last")
    sender = threading.Thread(target=lambda: batches.append(producer.send_batch("t", values)))
    batches = []
    sender.start()
    wait_until(lambda: producer.metrics().sent)  # what is to be sent is pinned by then
    deadline = time.monotonic() + 60
    while is_pinned(first) and time.monotonic() < deadline:
        producer.purge()
        time.sleep(0.001)
    assert not is_pinned(first)
    assert is_pinned(last)
    while sender.is_alive() and time.monotonic() < deadline:
        producer.purge()
        time.sleep(0.001)
    sender.join(10)
    producer.purge()
    batches[0].wait(20)
    assert not is_pinned(last)
    assert [index for index, _ in batches[0].errors()] == list(range(COUNT))


@pytest.mark.parametrize("form", ["list", "Arrow chunks"])
def test_ctrl_c_in_the_first_piece_gives_the_others_an_index_too(make_producer, form):
    producer = make_producer(UNREACHABLE | {"queue.buffering.max.messages": 1000})
    timer = interrupt_after(0.5)
    with pytest.raises(KeyboardInterrupt) as caught:
        producer.send_batch("t", FORMS[form](numbers()))
    timer.join()
    batch = caught.value.batch
    assert (len(batch), batch.failed, batch.pending) == (COUNT, COUNT - 1000, 1000)
    assert {error.code for _, error in batch.errors()} == {ErrorCode.INTR}
    producer.purge()
    batch.wait(20)
    assert [index for index, _ in batch.errors()] == list(range(COUNT))
    assert batch.offsets.tolist() == [-1] * COUNT
    with pytest.raises(
        KafkaException, match=f"{COUNT} of {COUNT} records failed; the first, at index 0"
    ):
        batch.raise_for_errors()


def test_no_room_in_time_for_later_pieces(make_producer):
    producer = make_producer(UNREACHABLE | {"queue.buffering.max.messages": 1000})
    called = []
    batch = producer.send_batch("t", numbers(), timeout=0.1, on_delivery=called.append)
    assert (len(batch), batch.failed, batch.pending) == (COUNT, COUNT - 1000, 1000)
    assert {error.code for _, error in batch.errors()} == {ErrorCode.TIMED_OUT}
    producer.purge()
    batch.wait(20)
    assert called == [batch]


def test_metrics_count_what_batches_pin(make_producer):
    producer = make_producer(UNREACHABLE | {"queue.buffering.max.messages": 1_000_000})
    values = [b"x" * 10, None, b""] * 50_000
    batch = producer.send_batch("t", values)
    pinned = producer.metrics()
    assert (pinned.pinned_messages, pinned.pinned_bytes) == (100_000, 500_000)
    producer.purge()
    batch.wait(20)
    producer.flush(10)
    pinned = producer.metrics()
    assert (pinned.pinned_messages, pinned.pinned_bytes) == (0, 0)


# ---------------------------------------------------------------------- lines, which the command
# line sends


@given(
    st.text("ab\n", max_size=60).map(str.encode),
    st.sampled_from([b"\n", b"ab", b"aa"]),
    st.booleans(),
)
def test_lines_are_what_split_gives(data, delimiter, last):
    lines = _rdkafka.Lines(data, delimiter, last)
    *whole, rest = data.split(delimiter)
    if last and rest:
        whole.append(rest)
    assert list(lines) == [lines[i] for i in range(len(lines))] == whole
    assert lines.size == sum(map(len, whole))
    assert data[lines.end :] == (b"" if last else rest)


def test_lines_refuse_nonsense():
    with pytest.raises(ValueError, match="delimiter"):
        _rdkafka.Lines(b"a", b"")
    for arguments in ((bytearray(b"a"), b"\n"), (b"a", None), ("a", "\n")):
        with pytest.raises(TypeError):
            _rdkafka.Lines(*arguments)
    lines = _rdkafka.Lines(b"a\nb\n", b"\n")
    assert lines[-1] == b"b"
    for index in (2, -3):
        with pytest.raises(IndexError, match=f"of {len(lines)}"):
            lines[index]


def test_lines_are_sent_from_where_they_are(kafka_broker, make_producer):
    topic = fresh_topic(kafka_broker)
    producer = make_producer(
        kafka_broker.config(**{"enable.idempotence": False}) | {"test.mock.num.brokers": ...}
    )
    values = numbers()
    delivered(
        producer.send_batch(
            topic, _rdkafka.Lines(b"\n".join([*values, b""]), b"\n"), keys=[b""] * COUNT
        ),
        60,
    )
    assert [row.value for row in kafka_broker.messages(topic, count=COUNT, timeout=60)] == values
    assert len(producer.send_batch(topic, _rdkafka.Lines(b"no end", b"\n"))) == 0
