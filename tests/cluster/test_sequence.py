"""Sequence numbers of records that are gone, and ends of transactions that come late
(wheels/patches).

An idempotent producer numbers its records, and the broker takes no number but the next. A record
that is gone before the broker has it (purged, timed out, refused) leaves a hole, and what comes
behind must not wait for it. confluent-kafka, with librdkafka as upstream makes it, is the control
where it does otherwise. Where such a control fails, upstream has mended it: the patch can go.
"""

import threading
import time
import uuid

import confluent_kafka
import pytest
from faultlib import Outcomes, wait_until
from proxy import ADD_PARTITIONS_TO_TXN, END_TXN, Proxy

from kafka_ext import ErrorCode, KafkaException, PersistedStatus, ProducerRecord, _rdkafka
from kafka_ext.testing import KafkaCluster

if "txn-abort-nothing" not in _rdkafka.build_info()["patches"]:
    pytest.skip("this librdkafka is not mended (wheels/patches)", allow_module_level=True)

# A record behind a hole used to wait for as long as this; a test waits for less.
MESSAGE_TIMEOUT = 60_000
SOON = 20


@pytest.fixture(scope="module")
def proxied():
    """A broker that clients reach by a proxy only."""
    with Proxy() as proxy, KafkaCluster(advertised={1: proxy.address}) as cluster:
        proxy.target = cluster.address(1)
        yield cluster, proxy


@pytest.fixture
def idempotent(proxied, connect):
    def make(**settings):
        return connect(
            proxied[0].config(
                **{"message_timeout_ms": MESSAGE_TIMEOUT, "retry_backoff_ms": 50} | settings
            )
        )

    return make


@pytest.fixture
def transactional(idempotent):
    def make(**settings):
        producer = idempotent(transactional_id=f"id-{uuid.uuid4()}", **settings)
        producer.init_transactions(30)
        return producer

    return make


@pytest.fixture
def upstream(proxied):
    """Makes producers of confluent-kafka's."""

    def make(**settings):
        config = {
            "enable.idempotence": True,
            "linger.ms": 0,
            "log_level": 0,
            "message.timeout.ms": MESSAGE_TIMEOUT,
            "retry.backoff.ms": 50,
        }
        config |= {key.replace("_", "."): value for key, value in settings.items()}
        return confluent_kafka.Producer(dict(proxied[0].config()) | config)

    return make


def values(cluster, topic, isolation_level="read_committed"):
    return [message.value for message in cluster.messages(topic, isolation_level=isolation_level)]


def in_partition(cluster, topic, partition):
    return [message.value for message in cluster.messages(topic) if message.partition == partition]


def send_while_held(proxy, producer, topic, sent, fates=()):
    """Each of `sent` in a request of its own, none of which goes on before all are made; their
    outcomes.
    """
    outcomes = Outcomes()
    proxy.hold()
    try:
        for name, value in sent:
            producer.send(
                ProducerRecord(topic, value, partition=0, key=b"k"), outcomes.expect(name)
            )
            time.sleep(0.2)
    finally:
        proxy.release(*fates)
    return outcomes


# ---------------------------------------------------------------------- purged


@pytest.mark.found(1)
@pytest.mark.parametrize(
    "what", [{}, {"in_flight": False}, {"in_queue": False}], ids=["both", "queue", "in flight"]
)
def test_what_is_sent_after_a_purge_is_delivered(proxied, idempotent, new_topic, what):
    cluster, _ = proxied
    topic = new_topic(cluster)
    producer = idempotent()
    producer.sync_send(ProducerRecord(topic, b"0", partition=0), timeout=SOON)
    outcomes = Outcomes()
    producer.send(ProducerRecord(topic, b"1", partition=0), outcomes.expect("purged, perhaps"))
    producer.purge(**what)
    producer.sync_send(ProducerRecord(topic, b"2", partition=0), timeout=SOON)
    outcomes.wait(1)
    assert values(cluster, topic) in ([b"0", b"2"], [b"0", b"1", b"2"])


@pytest.mark.found(1)
def test_a_purged_queue_takes_nothing_with_it_that_is_sent_later(proxied, idempotent, new_topic):
    cluster, _ = proxied
    topic = new_topic(cluster)
    producer = idempotent()
    producer.sync_send(ProducerRecord(topic, b"before", partition=0), timeout=SOON)
    outcomes = Outcomes()
    for number in range(2000):
        producer.send(
            ProducerRecord(topic, b"early %d" % number, partition=0),
            outcomes.expect(("early", number)),
        )
    producer.purge(in_flight=False)
    for number in range(2000):
        producer.send(
            ProducerRecord(topic, b"late %d" % number, partition=0),
            outcomes.expect(("late", number)),
        )
    producer.flush(SOON)
    assert [
        name
        for name, (_, error) in outcomes.reports.items()
        if error is not None and name[0] == "late"
    ] == []
    found = values(cluster, topic)
    assert [value for value in found if value.startswith(b"late")] == [
        b"late %d" % number for number in range(2000)
    ]
    delivered = [
        b"early %d" % number
        for (kind, number), (_, error) in sorted(outcomes.reports.items())
        if kind == "early" and not error
    ]
    assert [value for value in found if value.startswith(b"early")] == delivered


@pytest.mark.found(1)
@pytest.mark.parametrize("fate", ["pass", "lose", "corrupt"])
def test_a_purge_while_requests_are_in_flight_holds_nothing_up(
    proxied, idempotent, new_topic, fate
):
    """In the middle of a pipeline, whatever becomes of what was in flight."""
    cluster, proxy = proxied
    topic = new_topic(cluster, 2)
    producer = idempotent()
    for partition in (0, 1):
        producer.sync_send(ProducerRecord(topic, b"before", partition=partition), timeout=SOON)
    outcomes = Outcomes()
    proxy.hold()
    try:
        for number in range(20):  # more than may be in flight: the queue has some
            producer.send(
                ProducerRecord(topic, b"purged", partition=number % 2), outcomes.expect(number)
            )
            time.sleep(0.01)
        producer.purge(in_flight=False)
        for number in range(20, 40):
            producer.send(
                ProducerRecord(topic, b"%d" % number, partition=number % 2), outcomes.expect(number)
            )
    finally:
        proxy.release(fate)
    producer.flush(SOON)
    assert [number for number in range(20, 40) if outcomes.reports[number][1] is not None] == []
    found = values(cluster, topic)
    assert sorted(value for value in found if value not in (b"before", b"purged")) == [
        b"%d" % number for number in range(20, 40)
    ]


# ---------------------------------------------------------------------- timed out, refused, out of
# retries


@pytest.mark.found(1)
def test_what_timed_out_holds_nothing_up(proxied, idempotent, new_topic):
    """In flight and in the queue: nothing gets through for longer than message.timeout.ms."""
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = idempotent(message_timeout_ms=2000, request_timeout_ms=1000, socket_timeout_ms=1000)
    producer.sync_send(ProducerRecord(topic, b"before", partition=0), timeout=SOON)
    outcomes = Outcomes()
    proxy.hold()
    try:
        for number in range(10):
            producer.send(ProducerRecord(topic, b"late", partition=0), outcomes.expect(number))
            time.sleep(0.01)
        outcomes.wait(10, 30)
    finally:
        proxy.release()
    assert {error.name for error in outcomes.errors} == {"MSG_TIMED_OUT"}
    wait_until(lambda: sent(producer, topic, b"after"), 30)
    assert b"after" in values(cluster, topic)


def sent(producer, topic, value):
    outcomes = Outcomes()
    producer.send(ProducerRecord(topic, value, partition=0), outcomes.expect("it"))
    producer.flush(SOON)
    return outcomes.errors == []


@pytest.mark.found(1)
def test_a_refused_record_amid_others_fails_alone(proxied, idempotent, new_topic):
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = idempotent(message_max_bytes=3_000_000)
    producer.sync_send(ProducerRecord(topic, b"before", partition=0), timeout=SOON)
    outcomes = send_while_held(
        proxy,
        producer,
        topic,
        [
            ("first", b"first"),
            ("large", bytes(2_000_000)),
            ("second", b"second"),
            ("third", b"third"),
        ],
    )
    producer.flush(SOON)
    outcomes.check(["first", "large", "second", "third"])
    assert [error.name for error in outcomes.errors] == ["MSG_SIZE_TOO_LARGE"]
    assert values(cluster, topic) == [b"before", b"first", b"second", b"third"]


@pytest.mark.found(1)
def test_an_invalid_record_amid_others_fails_alone(proxied, idempotent, new_topic):
    """A topic that is compacted takes no record without a key."""
    cluster, proxy = proxied
    topic = new_topic(cluster, cleanup_policy="compact")
    producer = idempotent()
    producer.sync_send(ProducerRecord(topic, b"before", key=b"k", partition=0), timeout=SOON)
    outcomes = Outcomes()
    proxy.hold()
    try:
        for number in range(4):
            key = None if number == 1 else b"k"
            producer.send(
                ProducerRecord(topic, b"%d" % number, key=key, partition=0), outcomes.expect(number)
            )
            time.sleep(0.2)
    finally:
        proxy.release()
    producer.flush(SOON)
    outcomes.check(range(4))
    assert [error.name for error in outcomes.errors] == ["INVALID_RECORD"]
    assert values(cluster, topic) == [b"before", b"0", b"2", b"3"]


@pytest.mark.found(1)
def test_a_record_out_of_retries_holds_nothing_up(proxied, idempotent, new_topic):
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = idempotent(retries=1)
    producer.sync_send(ProducerRecord(topic, b"before", partition=0), timeout=SOON)
    # Refused, the one behind it out of order; then refused once more, for good.
    outcomes = send_while_held(
        proxy,
        producer,
        topic,
        [("first", b"first"), ("second", b"second")],
        ["corrupt", "pass", "corrupt"],
    )
    producer.flush(SOON)
    outcomes.check(["first", "second"])
    assert [error.name for error in outcomes.errors] == ["INVALID_MSG"]
    producer.sync_send(ProducerRecord(topic, b"third", partition=0), timeout=SOON)
    assert values(cluster, topic) == [b"before", b"second", b"third"]


# ------------------------------------------------- what may be in the log at another epoch

mended_of_doubles = pytest.mark.skipif(
    "timeout-doubles" not in _rdkafka.build_info()["patches"],
    reason="this librdkafka doubles what it sends again under another epoch",
)
# More requests than a producer sends until its records have timed out.
ENOUGH = 1000
RECONNECTING = {"reconnect_backoff_ms": 50, "reconnect_backoff_max_ms": 200}


def send_after(seconds, producer, topic, value, outcomes, partition=0):
    time.sleep(seconds)
    producer.send(ProducerRecord(topic, value, partition=partition), outcomes.expect(value))


def timed_out(outcomes, value):
    metadata, error = outcomes.reports[value]
    return (error and error.name, metadata.persisted_status) == (
        "MSG_TIMED_OUT",
        PersistedStatus.POSSIBLY,
    )


@mended_of_doubles
@pytest.mark.parametrize("partition", [0, 1], ids=["behind it", "in another partition"])
@pytest.mark.parametrize("fate", ["lose", "drop"])
def test_a_record_that_times_out_doubles_no_other(proxied, idempotent, new_topic, fate, partition):
    """All is stored and no answer comes back, or nothing gets through, until the old one has timed
    out: another epoch begins.
    """
    cluster, proxy = proxied
    topic = new_topic(cluster, 2)
    producer = idempotent(message_timeout_ms=4000, **RECONNECTING)
    for number in (0, 1):
        producer.sync_send(ProducerRecord(topic, b"before", partition=number), timeout=SOON)
    outcomes = Outcomes()
    proxy.release(*[fate] * ENOUGH)
    send_after(0, producer, topic, b"old", outcomes)
    send_after(2.5, producer, topic, b"young", outcomes, partition)
    wait_until(lambda: b"old" in outcomes.reports, SOON)
    time.sleep(0.3)
    proxy.release()
    send_after(0, producer, topic, b"after", outcomes, partition)
    producer.flush(SOON)
    outcomes.check([b"old", b"young", b"after"])
    assert timed_out(outcomes, b"old")
    assert len(outcomes.errors) == 1
    in_log = [in_partition(cluster, topic, number) for number in (0, 1)]
    expected = [[b"before"], [b"before"]]
    expected[0] += [b"old"] * (fate == "lose")
    expected[partition] += [b"young", b"after"]
    assert in_log == expected


@mended_of_doubles
def test_a_batch_that_may_be_in_the_log_times_out_whole(proxied, idempotent, new_topic):
    """The broker knows a batch again as a whole only."""
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = idempotent(message_timeout_ms=4000, linger_ms=1500, **RECONNECTING)
    producer.sync_send(ProducerRecord(topic, b"before", partition=0), timeout=SOON)
    outcomes = Outcomes()
    proxy.release(*["lose"] * ENOUGH)
    send_after(0, producer, topic, b"old", outcomes)
    send_after(1.2, producer, topic, b"young", outcomes)
    wait_until(lambda: b"old" in outcomes.reports, SOON)
    proxy.release()
    send_after(0, producer, topic, b"after", outcomes)
    producer.flush(SOON)
    outcomes.check([b"old", b"young", b"after"])
    assert timed_out(outcomes, b"old")
    assert timed_out(outcomes, b"young")
    assert values(cluster, topic) == [b"before", b"old", b"young", b"after"]


@mended_of_doubles
def test_records_of_a_backlog_do_not_time_out_with_the_oldest(proxied, idempotent, new_topic):
    """They wait for the first acknowledgement, go out at once, are stored, and no answer comes
    back. A batch spans 0.1 s.
    """
    cluster, proxy = proxied
    topic = new_topic(cluster)
    timeout = 6.0
    producer = idempotent(message_timeout_ms=int(timeout * 1000), **RECONNECTING)
    ages = {}
    proxy.hold()
    producer.send(ProducerRecord(topic, b"first", partition=0), lambda metadata, error: None)
    time.sleep(0.2)

    def reporter(number, sent):
        return lambda metadata, error: ages.__setitem__(
            number, (time.monotonic() - sent, error and error.name)
        )

    for number in range(8):
        producer.send(
            ProducerRecord(topic, b"%d" % number, partition=0), reporter(number, time.monotonic())
        )
        time.sleep(0.4)
    proxy.release("pass", *["lose"] * ENOUGH)
    wait_until(lambda: len(ages) == 8, 2 * timeout)
    assert {error for _, error in ages.values()} == {"MSG_TIMED_OUT"}
    assert min(age for age, _ in ages.values()) > timeout - 0.2
    proxy.release()
    producer.sync_send(ProducerRecord(topic, b"after", partition=0), timeout=SOON)
    assert values(cluster, topic) == [b"first", *(b"%d" % number for number in range(8)), b"after"]


@mended_of_doubles
def test_a_refused_record_doubles_none_of_another_partition(proxied, idempotent, new_topic):
    """It is refused for good, so another epoch begins, while an answer is lost."""
    cluster, proxy = proxied
    topic = new_topic(cluster, 2)
    producer = idempotent(message_max_bytes=3_000_000)
    for number in (0, 1):
        producer.sync_send(ProducerRecord(topic, b"before", partition=number), timeout=SOON)
    outcomes = Outcomes()
    proxy.hold()
    try:
        for partition, value in ((0, bytes(2_000_000)), (1, b"stored"), (1, b"behind")):
            producer.send(
                ProducerRecord(topic, value, partition=partition),
                outcomes.expect((partition, value[:6])),
            )
            time.sleep(0.2)
    finally:
        proxy.release("pass", "lose")
    producer.flush(SOON)
    outcomes.check([(0, bytes(6)), (1, b"stored"), (1, b"behind")])
    assert [error.name for error in outcomes.errors] == ["MSG_SIZE_TOO_LARGE"]
    assert in_partition(cluster, topic, 0) == [b"before"]
    assert in_partition(cluster, topic, 1) == [b"before", b"stored", b"behind"]


# ---------------------------------------------------------------------- the first request


FIRST = [(name, name.encode()) for name in ("first", "second", "third")]


@pytest.mark.found(1)
def test_a_first_request_that_is_refused_is_not_believed_to_be_stored(
    proxied, idempotent, new_topic
):
    """Of a producer that the partition's broker knows nothing of it takes any sequence number for
    the first.
    """
    cluster, proxy = proxied
    topic = new_topic(cluster, 2)
    producer = idempotent()
    producer.sync_send(ProducerRecord(topic, b"connected", partition=1), timeout=SOON)
    outcomes = send_while_held(proxy, producer, topic, FIRST, ["corrupt"])
    producer.flush(SOON)
    outcomes.check(["first", "second", "third"])
    assert outcomes.errors == []
    assert in_partition(cluster, topic, 0) == [b"first", b"second", b"third"]


def test_upstream_reports_a_refused_first_request_as_delivered(proxied, upstream, new_topic):
    """The control: reported as delivered, and in no log."""
    cluster, proxy = proxied
    topic = new_topic(cluster, 2)
    producer = upstream()
    producer.produce(topic, b"connected", partition=1)
    producer.flush(SOON)
    reports = []
    proxy.hold()
    try:
        for _, value in FIRST:
            producer.produce(
                topic,
                value,
                partition=0,
                on_delivery=lambda error, message: reports.append((error, message.value())),
            )
            time.sleep(0.2)
    finally:
        proxy.release("corrupt")
    producer.flush(SOON)
    assert sorted(reports) == [(None, b"first"), (None, b"second"), (None, b"third")]
    assert in_partition(cluster, topic, 0) == [b"second", b"third"]


# ---------------------------------------------------------------------- in transactions


def transact(producer, topic, value):
    with producer.transaction(timeout=SOON):
        producer.send(ProducerRecord(topic, value, partition=0))


@pytest.mark.found(1)
def test_the_transaction_after_a_purge_can_be_committed(proxied, transactional, new_topic):
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = transactional()
    transact(producer, topic, b"before")
    producer.begin_transaction()
    producer.send(ProducerRecord(topic, b"aborted", partition=0))
    producer.flush(SOON)
    proxy.hold()
    try:
        for _ in range(10):
            producer.send(
                ProducerRecord(topic, b"purged", partition=0), lambda metadata, error: None
            )
            time.sleep(0.01)
        producer.purge(in_flight=False)
    finally:
        proxy.release()
    with pytest.raises(KafkaException) as raised:
        producer.commit_transaction(SOON)
    assert raised.value.error.transaction_requires_abort
    producer.abort_transaction(SOON)
    transact(producer, topic, b"after")
    assert values(cluster, topic) == [b"before", b"after"]


@pytest.mark.found(1)
@pytest.mark.parametrize("refused", ["too large", "out of retries"])
def test_the_transaction_after_a_refused_record_can_be_committed(
    proxied, transactional, new_topic, refused
):
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = transactional(
        message_max_bytes=3_000_000, retries=1 if refused == "out of retries" else 100
    )
    transact(producer, topic, b"before")
    producer.begin_transaction()
    value = bytes(2_000_000) if refused == "too large" else b"corrupt"
    fates = [] if refused == "too large" else ["corrupt", "corrupt"]
    outcomes = send_while_held(proxy, producer, topic, [("refused", value)], fates)
    outcomes.wait(1)
    assert [error.name for error in outcomes.errors] == [
        "MSG_SIZE_TOO_LARGE" if refused == "too large" else "INVALID_MSG"
    ]
    producer.abort_transaction(SOON)
    transact(producer, topic, b"after")
    assert values(cluster, topic) == [b"before", b"after"]


def abort_what_is_stored_and_not_acknowledged(proxy, producer, send):
    """The broker has the record, the producer has it in its queue, to be sent again after a while:
    then it aborts.
    """
    lost = proxy.lost
    proxy.lose_responses(1)
    send()
    wait_until(lambda: proxy.lost > lost)
    time.sleep(0.5)  # the producer sees the connection close
    producer.abort_transaction(SOON)


@pytest.mark.found(2)
def test_what_an_aborted_transaction_has_stored_is_not_taken_for_the_next_ones(
    proxied, transactional, new_topic
):
    """Its sequence number would be given again, and the broker drops what it takes for
    a duplicate.
    """
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = transactional(retry_backoff_ms=5000, retry_backoff_max_ms=5000)
    transact(producer, topic, b"before")
    producer.begin_transaction()
    outcomes = Outcomes()
    abort_what_is_stored_and_not_acknowledged(
        proxy,
        producer,
        lambda: producer.send(
            ProducerRecord(topic, b"aborted", partition=0), outcomes.expect("aborted")
        ),
    )
    outcomes.check(["aborted"])
    transact(producer, topic, b"after")
    assert values(cluster, topic) == [b"before", b"after"]
    assert values(cluster, topic, "read_uncommitted") == [b"before", b"aborted", b"after"]


def test_upstream_loses_the_next_transactions_record(proxied, upstream, new_topic):
    """The control: the record is acknowledged, its transaction committed, and it is in no log."""
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = upstream(
        transactional_id=f"id-{uuid.uuid4()}", retry_backoff_ms=5000, retry_backoff_max_ms=5000
    )
    reports = []

    def transact(value):
        producer.begin_transaction()
        producer.produce(
            topic,
            value,
            partition=0,
            on_delivery=lambda error, message: reports.append((error, message.value())),
        )
        producer.commit_transaction(SOON)

    producer.init_transactions(30)
    transact(b"before")
    producer.begin_transaction()
    abort_what_is_stored_and_not_acknowledged(
        proxy, producer, lambda: producer.produce(topic, b"aborted", partition=0)
    )
    transact(b"after")
    assert reports == [(None, b"before"), (None, b"after")]
    assert values(cluster, topic) == [b"before"]


@pytest.mark.found(2)
def test_an_abort_does_not_wait_for_what_it_will_not_send_again(proxied, transactional, new_topic):
    """A request that fails for the time being while the transaction is aborted."""
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = transactional()
    transact(producer, topic, b"before")
    outcomes = Outcomes()
    producer.begin_transaction()
    proxy.hold()
    release = threading.Timer(1.0, proxy.release, ["corrupt"])  # in the middle of the abort
    release.start()
    try:
        producer.send(ProducerRecord(topic, b"aborted", partition=0), outcomes.expect("aborted"))
        time.sleep(0.3)
        producer.abort_transaction(SOON)
    finally:
        release.join()
    outcomes.check(["aborted"])
    transact(producer, topic, b"after")
    assert values(cluster, topic) == [b"before", b"after"]


@pytest.mark.found(2)
def test_an_abort_of_what_may_have_been_added_is_not_fatal(proxied, transactional, new_topic):
    """The request to add a partition gets lost, and with nothing to abort the coordinator calls
    EndTxn invalid.
    """
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = transactional()
    transact(producer, topic, b"before")
    producer.begin_transaction()
    proxy.keep(ADD_PARTITIONS_TO_TXN)
    producer.send(ProducerRecord(topic, b"aborted", partition=0), lambda metadata, error: None)
    wait_until(proxy.has_kept)
    producer.abort_transaction(SOON)
    # Should it come after all, it opens no transaction that nobody would end.
    refused = int.from_bytes(proxy.deliver_kept()[-2:], "big", signed=True)
    assert refused in (ErrorCode["INVALID_PRODUCER_EPOCH"], ErrorCode["PRODUCER_FENCED"])
    transact(producer, topic, b"after")
    assert values(cluster, topic) == [b"before", b"after"]


# ---------------------------------------------------------------------- an EndTxn that comes late


@pytest.mark.found(2)
@pytest.mark.parametrize(("first", "second"), [("commit", "abort"), ("abort", "commit")])
def test_an_end_that_comes_late_does_not_end_the_next_transaction(
    proxied, transactional, new_topic, first, second
):
    """The connection breaks, the end is sent again and answered, and the first one arrives in the
    next transaction.
    """
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = transactional()
    end = {"commit": producer.commit_transaction, "abort": producer.abort_transaction}

    def begin(value):
        producer.begin_transaction()
        producer.send(ProducerRecord(topic, value, partition=0))
        producer.flush(SOON)

    begin(b"first")
    proxy.keep(END_TXN)
    end[first](SOON)
    begin(b"second")
    refused = int.from_bytes(proxy.deliver_kept()[4:6], "big", signed=True)
    assert refused in (ErrorCode["INVALID_PRODUCER_EPOCH"], ErrorCode["PRODUCER_FENCED"])
    end[second](SOON)
    assert values(cluster, topic) == [b"first" if first == "commit" else b"second"]
    transact(producer, topic, b"third")
    assert values(cluster, topic)[1:] == [b"third"]


def test_upstream_has_the_next_transaction_ended(proxied, upstream, new_topic):
    """The control: the late commit publishes what was to be aborted."""
    cluster, proxy = proxied
    topic = new_topic(cluster)
    producer = upstream(transactional_id=f"id-{uuid.uuid4()}")
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"first", partition=0)
    producer.flush(SOON)
    proxy.keep(END_TXN)
    producer.commit_transaction(SOON)
    producer.begin_transaction()
    producer.produce(topic, b"second", partition=0)
    producer.flush(SOON)
    assert int.from_bytes(proxy.deliver_kept()[4:6], "big", signed=True) == 0
    wait_until(lambda: values(cluster, topic) == [b"first", b"second"])
