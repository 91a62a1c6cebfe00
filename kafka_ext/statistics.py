"""librdkafka's statistics as typed objects.

    statistics = producer.metrics().statistics      # the newest, once `statistics.interval.ms` is
    set and over

    def stats_cb(event):                            # or each, as it comes
        statistics = Statistics.parse(event)
        for broker in statistics.brokers.values():
            print(broker.name, broker.state, broker.rtt.p99 / 1000, "ms")

The fields have librdkafka's own names, and are those of its STATISTICS.md that concern a producer.
What is not among them, because it is for consumers or newer than this package, is in `raw`, the
JSON object that each was made from. A field that the linked librdkafka does not send is 0, "" or
False. "Now" marks what can go down again; all other numbers are counted since the producer was
made, but where an age or a window says otherwise. librdkafka does not collect them at one moment,
so a total may differ from the sum of its parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from ._annotations import Self
from .transactions import TopicPartition

__all__ = [
    "BrokerStatistics",
    "FatalStatistics",
    "IdempotenceStatistics",
    "PartitionStatistics",
    "Statistics",
    "TopicStatistics",
    "WindowStatistics",
]


@dataclass(frozen=True)
class _Statistics:
    """A JSON object of librdkafka's; the classes below say what is in it."""

    raw: Mapping[str, Any] = field(repr=False, hash=False)

    @classmethod
    def _of(cls, raw: Mapping[str, Any]) -> Self:
        return cls(
            raw,
            **{
                name: raw[name]
                for name in cls.__dataclass_fields__
                if name in raw and name != "raw"
            },
        )

    def __getitem__(self, name: str) -> Any:
        """A field as librdkafka sent it, by its name; also one that has no attribute here."""
        return self.raw[name]

    def _part(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.raw.get(name) or {}
        return found


@dataclass(frozen=True)
class WindowStatistics(_Statistics):
    """Values of the last `statistics.interval.ms`, from a histogram. All are 0 where there were
    none; then `cnt` is 0 as well.

    The unit is that of the field it is: microseconds for `int_latency`, `outbuf_latency` and `rtt`,
    milliseconds for `throttle`, bytes for `batchsize`, messages for `batchcnt`.

    Attributes:
        min (int): the smallest.
        max (int): the largest.
        avg (int): the average.
        sum (int): all together.
        stddev (int): the standard deviation.
        p50 (int): half of them are at most this; and so on.
        p75 (int): the 75th percentile.
        p90 (int): the 90th.
        p95 (int): the 95th.
        p99 (int): the 99th.
        p99_99 (int): the 99.99th.
        outofrange (int): how many were beyond what the histogram can hold, and left out.
        hdrsize (int): bytes of memory that the histogram takes.
        cnt (int): how many values there were.
    """

    min: int = 0
    max: int = 0
    avg: int = 0
    sum: int = 0
    stddev: int = 0
    p50: int = 0
    p75: int = 0
    p90: int = 0
    p95: int = 0
    p99: int = 0
    p99_99: int = 0
    outofrange: int = 0
    hdrsize: int = 0
    cnt: int = 0


@dataclass(frozen=True)
class BrokerStatistics(_Statistics):
    """A broker, or an address that librdkafka begins with until it knows the brokers (`nodeid` -1).

    Attributes:
        name (str): host, port and id: "example.com:9092/13".
        nodeid (int): its id; -1 while it is not known.
        nodename (str): host and port.
        source (str): how it was found: "configured", "learned", "internal" or "logical".
        state (str): of the connection: "INIT", "DOWN", "CONNECT", "AUTH_HANDSHAKE", "UP", …
        stateage (int): microseconds since that changed.
        outbuf_cnt (int): requests waiting to be written to the socket now.
        outbuf_msg_cnt (int): messages in them.
        waitresp_cnt (int): requests that wait for their answer now.
        waitresp_msg_cnt (int): messages in them: in flight now.
        tx (int): requests sent.
        txbytes (int): bytes sent.
        txerrs (int): errors while sending.
        txretries (int): requests sent again.
        txidle (int): microseconds since the last write; -1: none on this connection.
        req_timeouts (int): requests that were not answered in time.
        rx (int): responses received.
        rxbytes (int): bytes received.
        rxerrs (int): errors while receiving.
        rxcorriderrs (int): responses to requests that had been given up.
        rxidle (int): microseconds since the last read; -1: none on this connection.
        buf_grow (int): not used by librdkafka any more.
        zbuf_grow (int): how often a buffer for decompression had to grow.
        wakeups (int): turns of the broker thread's loop.
        connects (int): attempts to connect, those that failed among them.
        disconnects (int): connections that ended.
    """

    name: str = ""
    nodeid: int = -1
    nodename: str = ""
    source: str = ""
    state: str = ""
    stateage: int = 0
    outbuf_cnt: int = 0
    outbuf_msg_cnt: int = 0
    waitresp_cnt: int = 0
    waitresp_msg_cnt: int = 0
    tx: int = 0
    txbytes: int = 0
    txerrs: int = 0
    txretries: int = 0
    txidle: int = -1
    req_timeouts: int = 0
    rx: int = 0
    rxbytes: int = 0
    rxerrs: int = 0
    rxcorriderrs: int = 0
    rxidle: int = -1
    buf_grow: int = 0
    zbuf_grow: int = 0
    wakeups: int = 0
    connects: int = 0
    disconnects: int = 0

    @cached_property
    def int_latency(self) -> WindowStatistics:
        """Microseconds that messages waited here, from the enqueue until they were put into a
        request; `linger.ms` and more.
        """
        return WindowStatistics._of(self._part("int_latency"))

    @cached_property
    def outbuf_latency(self) -> WindowStatistics:
        """Microseconds that requests waited to be written to the socket."""
        return WindowStatistics._of(self._part("outbuf_latency"))

    @cached_property
    def rtt(self) -> WindowStatistics:
        """Microseconds from a request's writing to its answer."""
        return WindowStatistics._of(self._part("rtt"))

    @cached_property
    def throttle(self) -> WindowStatistics:
        """Milliseconds that the broker asked to hold back for, because of a quota."""
        return WindowStatistics._of(self._part("throttle"))

    @property
    def req(self) -> Mapping[str, int]:
        """Requests sent, by their kind ("Produce", "Metadata", …)."""
        return MappingProxyType(dict(self._part("req")))

    @cached_property
    def toppars(self) -> Mapping[str, TopicPartition]:
        """The partitions that this broker leads, as far as they are in use here, by
        "topic-partition".
        """
        return MappingProxyType(
            {
                name: TopicPartition(raw["topic"], raw["partition"])
                for name, raw in self._part("toppars").items()
            }
        )


@dataclass(frozen=True)
class PartitionStatistics(_Statistics):
    """A partition. Number -1 is where messages wait whose partition has not been chosen yet.

    Attributes:
        partition (int): its number.
        broker (int): the id of the broker that its messages go to.
        leader (int): the id of its leader; -1: none.
        desired (bool): it is kept because it was asked for by number, whether it exists or not.
        unknown (bool): the cluster does not know it.
        msgq_cnt (int): messages that wait in its queue now.
        msgq_bytes (int): their bytes.
        xmit_msgq_cnt (int): messages that are ready to be put into a request now.
        xmit_msgq_bytes (int): their bytes.
        leader_epoch (int): the leader's epoch; -1: not known.
        txmsgs (int): messages sent, each as often as it was.
        txbytes (int): their bytes.
        msgs (int): messages enqueued; those that have waited in partition -1 first are counted
            there as well.
        msgs_inflight (int): messages in flight now.
        next_ack_seq (int): the sequence number that the next acknowledgement is expected for
            (idempotence).
        next_err_seq (int): the same for the next error.
        acked_msgid (int): librdkafka's number of the last acknowledged message.
    """

    partition: int = -1
    broker: int = -1
    leader: int = -1
    desired: bool = False
    unknown: bool = False
    msgq_cnt: int = 0
    msgq_bytes: int = 0
    xmit_msgq_cnt: int = 0
    xmit_msgq_bytes: int = 0
    leader_epoch: int = -1
    txmsgs: int = 0
    txbytes: int = 0
    msgs: int = 0
    msgs_inflight: int = 0
    next_ack_seq: int = 0
    next_err_seq: int = 0
    acked_msgid: int = 0


@dataclass(frozen=True)
class TopicStatistics(_Statistics):
    """A topic that was sent to.

    Attributes:
        topic (str): its name.
        age (int): milliseconds since it was used first.
        metadata_age (int): milliseconds since a broker told of its partitions; 0: none has.
    """

    topic: str = ""
    age: int = 0
    metadata_age: int = 0

    @cached_property
    def batchsize(self) -> WindowStatistics:
        """Bytes in a request's batch for one partition."""
        return WindowStatistics._of(self._part("batchsize"))

    @cached_property
    def batchcnt(self) -> WindowStatistics:
        """Messages in a request's batch for one partition."""
        return WindowStatistics._of(self._part("batchcnt"))

    @cached_property
    def partitions(self) -> Mapping[int, PartitionStatistics]:
        """Its partitions, by number."""
        return MappingProxyType(
            {
                int(number): PartitionStatistics._of(raw)
                for number, raw in self._part("partitions").items()
            }
        )


@dataclass(frozen=True)
class IdempotenceStatistics(_Statistics):
    """The idempotent, or transactional, producer.

    Attributes:
        idemp_state (str): "Init", "RequestPID", "WaitPID", "Assigned", "FatalError", …
        idemp_stateage (int): milliseconds since that changed.
        txn_state (str): "Init", "Ready", "InTransaction", "AbortableError", …
        txn_stateage (int): milliseconds since that changed.
        txn_may_enq (bool): the transaction's state allows sending.
        producer_id (int): the id that the broker gave; -1: none yet.
        producer_epoch (int): the epoch that goes with it; -1: none yet.
        epoch_cnt (int): how many ids and epochs there were.
    """

    idemp_state: str = ""
    idemp_stateage: int = 0
    txn_state: str = ""
    txn_stateage: int = 0
    txn_may_enq: bool = False
    producer_id: int = -1
    producer_epoch: int = -1
    epoch_cnt: int = 0


@dataclass(frozen=True)
class FatalStatistics(_Statistics):
    """The fatal error that ended the producer's work.

    Attributes:
        error (str): librdkafka's words for its code.
        reason (str): what happened.
        cnt (int): how many there were.
    """

    error: str = ""
    reason: str = ""
    cnt: int = 0


@dataclass(frozen=True)
class Statistics(_Statistics):
    """One statistics event of librdkafka's, made by `parse`. Its parts are made when first looked
    at.

    Attributes:
        name (str): the producer's: "rdkafka#producer-1".
        client_id (str): `client.id`.
        type (str): "producer".
        ts (int): microseconds of librdkafka's monotonic clock.
        time (int): seconds since the epoch.
        age (int): microseconds since the producer was made.
        replyq (int): what waits for the application in librdkafka's reply queue now; where it is
            served here, `waiting_events` of ProducerMetrics has more.
        msg_cnt (int): messages that librdkafka has now, in flight or waiting.
        msg_size (int): their bytes.
        msg_max (int): how many it may have: `queue.buffering.max.messages`.
        msg_size_max (int): how many bytes it may have: `queue.buffering.max.kbytes`.
        tx (int): requests sent.
        tx_bytes (int): bytes sent.
        rx (int): responses received.
        rx_bytes (int): bytes received.
        txmsgs (int): messages sent, each as often as it was.
        txmsg_bytes (int): their bytes, with what the protocol puts around them.
        metadata_cache_cnt (int): topics that are known now.
    """

    name: str = ""
    client_id: str = ""
    type: str = ""
    ts: int = 0
    time: int = 0
    age: int = 0
    replyq: int = 0
    msg_cnt: int = 0
    msg_size: int = 0
    msg_max: int = 0
    msg_size_max: int = 0
    tx: int = 0
    tx_bytes: int = 0
    rx: int = 0
    rx_bytes: int = 0
    txmsgs: int = 0
    txmsg_bytes: int = 0
    metadata_cache_cnt: int = 0

    @classmethod
    def parse(cls, event: str | bytes | Mapping[str, Any]) -> Self:
        """From librdkafka's JSON (`ProducerMetrics.statistics_json`), or from what `stats_cb` is
        called with, which is parsed already.

        Raises:
            ValueError: it is no JSON, or no JSON object.
            TypeError: it is nothing of the three.
        """
        raw: Any = event
        if isinstance(event, (str, bytes)):
            from json import loads

            raw = loads(event)
            if not isinstance(raw, Mapping):
                raise ValueError(f"statistics must be a JSON object, not {event[:60]!r}")
        if not isinstance(raw, Mapping):
            raise TypeError(
                f"event must be a str, bytes or a mapping, not {event.__class__.__name__}"
            )
        return cls._of(raw)

    @cached_property
    def brokers(self) -> Mapping[str, BrokerStatistics]:
        """The brokers by `name`; addresses from `bootstrap.servers` and librdkafka's own helpers
        are among them.
        """
        return MappingProxyType(
            {name: BrokerStatistics._of(raw) for name, raw in self._part("brokers").items()}
        )

    @cached_property
    def topics(self) -> Mapping[str, TopicStatistics]:
        """The topics that were sent to, by name."""
        return MappingProxyType(
            {name: TopicStatistics._of(raw) for name, raw in self._part("topics").items()}
        )

    @cached_property
    def eos(self) -> IdempotenceStatistics | None:
        """Of an idempotent or transactional producer; None for another."""
        raw = self.raw.get("eos")
        return None if raw is None else IdempotenceStatistics._of(raw)

    @cached_property
    def fatal(self) -> FatalStatistics | None:
        """The fatal error that ended the producer's work, or None."""
        raw = self.raw.get("fatal")
        return None if raw is None else FatalStatistics._of(raw)

    @property
    def in_flight_messages(self) -> int:
        """Messages that brokers have been sent and have not answered, now; the sum of their
        `waitresp_msg_cnt`.
        """
        return sum(broker.waitresp_msg_cnt for broker in self.brokers.values())

    @property
    def retries(self) -> int:
        """Requests that were sent again as they were; the sum of the brokers' `txretries`.

        Records go back to their partition's queue instead, after an error that may pass, and go out
        with another request. `txmsgs` counts them each time: what it is more than what was
        delivered was sent again, or is in flight.
        """
        return sum(broker.txretries for broker in self.brokers.values())
