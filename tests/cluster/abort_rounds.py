"""Abort transactions soon after a commit, and count what that does: `python
tests/cluster/abort_rounds.py`.

A round is: commit a transaction with a record, begin the next, send a record, wait for a while,
abort. Right after a commit the coordinator is still busy with it and refuses the next transaction's
partitions, which makes this the time when an abort is most likely to meet an unfinished request.
Any error of an abort is a defect; a fatal one ends the producer, which is made anew then.

With `--peer` the same is done by confluent-kafka, round by round in turn, so that both meet the
same brokers and the same load.
"""

from __future__ import annotations

import argparse
import statistics
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

from kafka_ext import KafkaException, KafkaProducer, ProducerRecord
from kafka_ext.testing import KafkaCluster

DELAYS = (0.0, 0.001, 0.003, 0.01, 0.05)
TIMEOUT = 30.0


class Ours:
    error = KafkaException

    def __init__(self, cluster):
        self._settings = cluster.config(linger_ms=0, log_level=0, error_cb=lambda error: None)
        self._producer = None

    def renew(self):
        self.close()
        self._producer = KafkaProducer(
            self._settings | {"transactional.id": f"rounds-{uuid.uuid4()}"}
        )
        self._producer.init_transactions(TIMEOUT)

    def close(self):
        if self._producer is not None:
            self._producer.close(5)

    def begin(self):
        self._producer.begin_transaction()

    def send(self, topic, value):
        self._producer.send(ProducerRecord(topic, value), lambda metadata, error: None)

    def commit(self):
        self._producer.commit_transaction(TIMEOUT)

    def abort(self):
        """The name of what went wrong, if anything did."""
        try:
            self._producer.abort_transaction(TIMEOUT)
        except KafkaException as error:
            return ("fatal " if error.error.is_fatal else "") + error.error.name
        return None


class Peers:
    def __init__(self, cluster):
        import confluent_kafka

        self._module = confluent_kafka
        self.error = confluent_kafka.KafkaException
        settings = {"linger.ms": 0, "log_level": 0, "error_cb": lambda error: None}
        self._settings = {**dict(cluster.config()), **settings}
        self._producer = None

    def renew(self):
        settings = self._settings | {"transactional.id": f"rounds-{uuid.uuid4()}"}
        self._producer = self._module.Producer(settings)
        self._producer.init_transactions(TIMEOUT)

    def close(self):
        self._producer = None

    def begin(self):
        self._producer.begin_transaction()

    def send(self, topic, value):
        self._producer.produce(topic, value, on_delivery=lambda error, message: None)

    def commit(self):
        self._producer.commit_transaction(TIMEOUT)

    def abort(self):
        try:
            self._producer.abort_transaction(TIMEOUT)
        except self._module.KafkaException as error:
            return ("fatal " if error.args[0].fatal() else "") + error.args[0].name()
        return None


@dataclass
class Result:
    seconds: list[float] = field(default_factory=list)
    errors: Counter = field(default_factory=Counter)

    def row(self) -> str:
        tenths = statistics.quantiles(self.seconds, n=20)
        median, late = 1000 * statistics.median(self.seconds), 1000 * tenths[-1]
        errors = ", ".join(f"{count} {name}" for name, count in self.errors.most_common())
        return (
            f"{len(self.seconds)} rounds, median {median:.1f} ms, 95 % {late:.1f} ms, errors:"
            f" {errors or 'none'}"
        )


def a_round(client, topic, number, delay, result):
    """The transaction that is committed, then the one that is aborted."""
    try:
        client.begin()
        client.send(topic, b"committed %d" % number)
        client.commit()
        client.begin()
        client.send(topic, b"aborted %d" % number)
    except client.error as error:  # it is of no use any more
        result.errors[f"before the abort: {error}"] += 1
        client.renew()
        return
    if delay:
        time.sleep(delay)
    start = time.monotonic()
    error = client.abort()
    result.seconds.append(time.monotonic() - start)
    if error is not None:
        result.errors[error] += 1
        client.renew()


def run(cluster, topic, rounds, clients=(Ours,), delays=DELAYS):
    """{(client's class, delay): Result} of `rounds` rounds at each delay."""
    results = {(kind, delay): Result() for kind in clients for delay in delays}
    made = {kind: kind(cluster) for kind in clients}
    try:
        for client in made.values():
            client.renew()
        for number in range(rounds):
            for delay in delays:
                for kind, client in made.items():
                    a_round(client, topic, number, delay, results[kind, delay])
    finally:
        for client in made.values():
            client.close()
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=400, help="at each delay (400)")
    parser.add_argument("--brokers", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="confluent-kafka beside it")
    arguments = parser.parse_args()
    clients = (Ours, Peers) if arguments.peer else (Ours,)
    with KafkaCluster(arguments.brokers) as cluster:
        cluster.create_topic("rounds", 6)
        results = run(cluster, "rounds", arguments.rounds, clients)
        committed = sum(
            b"committed" in message.value
            for message in cluster.messages("rounds", isolation_level="read_committed")
        )
        aborted = sum(
            b"aborted" in message.value
            for message in cluster.messages("rounds", isolation_level="read_committed")
        )
    for (kind, delay), result in results.items():
        print(f"{kind.__name__} {1000 * delay:g} ms: {result.row()}")
    print(f"visible: {committed} committed, {aborted} aborted")


if __name__ == "__main__":
    main()
