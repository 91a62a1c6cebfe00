"""Prometheus: a producer's counters and librdkafka's statistics, scraped over HTTP.

    python examples/prometheus_metrics.py [bootstrap servers]

Without an argument it starts a broker of its own. Needs prometheus-client.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from urllib.request import urlopen

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kafka_ext import KafkaProducer, ProducerMetrics, ProducerRecord
from kafka_ext.statistics import Statistics
from kafka_ext.testing import EmbeddedBroker


class ProducerCollector(Collector):
    """Reads the counts of a producer when Prometheus asks, and costs nothing until then.

    `producer` is anything with `metrics()`: a KafkaProducer, an AsyncKafkaProducer, a
    RecoverableProducer or a KafkaSink.
    """

    def __init__(self, producer: KafkaProducer) -> None:
        self.producer = producer

    def collect(self) -> Iterator[Metric]:
        metrics = self.producer.metrics()
        yield from self.of_producer(metrics)
        if metrics.statistics is not None:  # statistics.interval.ms is set, and over
            yield from self.of_brokers(metrics.statistics)
            yield from self.of_topics(metrics.statistics)

    def of_producer(self, metrics: ProducerMetrics) -> Iterator[Metric]:
        for name, text, value in (
            ("sent", "Records accepted", metrics.sent),
            ("sent_bytes", "Bytes of their values", metrics.sent_bytes),
            ("delivered", "Records delivered", metrics.delivered),
            ("callback_errors", "Exceptions raised by callbacks", metrics.callback_errors),
            ("blocked_seconds", "Seconds that sends waited for room", metrics.blocked_seconds),
        ):
            yield CounterMetricFamily(f"kafka_producer_{name}", text, value)
        for name, text, counts in (
            ("failed", "Records not delivered", metrics.failures),
            ("refused", "Records not accepted", metrics.refusals),
            ("errors", "What librdkafka told of itself", metrics.errors),
        ):
            family = CounterMetricFamily(f"kafka_producer_{name}", text, labels=["error"])
            for code, count in counts.items():
                family.add_metric([getattr(code, "name", str(code))], count)
            yield family
        for name, text, value in (
            ("outstanding", "Records without a report", metrics.outstanding),
            ("pinned_bytes", "Bytes kept in place", metrics.pinned_bytes),
            ("waiting_events", "Events that wait for callbacks", metrics.waiting_events),
        ):
            yield GaugeMetricFamily(f"kafka_producer_{name}", text, value)

    def of_brokers(self, statistics: Statistics) -> Iterator[Metric]:
        up = GaugeMetricFamily("kafka_broker_up", "Whether it is connected", labels=["broker"])
        rtt = GaugeMetricFamily(
            "kafka_broker_rtt_seconds",
            "Round trips of the last interval",
            labels=["broker", "quantile"],
        )
        for broker in statistics.brokers.values():
            if broker.nodeid < 0:
                continue  # an address to begin with, not a broker
            labels = [str(broker.nodeid)]
            up.add_metric(labels, broker.state == "UP")
            rtt.add_metric([*labels, "0.5"], broker.rtt.p50 / 1e6)
            rtt.add_metric([*labels, "0.99"], broker.rtt.p99 / 1e6)
        yield up
        yield rtt

    def of_topics(self, statistics: Statistics) -> Iterator[Metric]:
        transmitted = CounterMetricFamily(
            "kafka_partition_transmitted",
            "Messages sent, each as often",
            labels=["topic", "partition"],
        )
        for topic in statistics.topics.values():
            for number, partition in topic.partitions.items():
                if number >= 0:
                    transmitted.add_metric([topic.topic, str(number)], partition.txmsgs)
        yield transmitted


def main(bootstrap_servers: str) -> None:
    registry = CollectorRegistry()
    with KafkaProducer(bootstrap_servers=bootstrap_servers, statistics_interval_ms=200) as producer:
        registry.register(ProducerCollector(producer))
        server, thread = start_http_server(0, "127.0.0.1", registry)
        try:
            for n in range(1000):
                producer.send(ProducerRecord("measured", b"%d" % n))
            producer.send_batch("measured", [b"a value"] * 1000)
            producer.flush()
            wait_for_statistics(producer)
            with urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as response:
                print(response.read().decode())
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def wait_for_statistics(producer: KafkaProducer) -> None:
    """Until librdkafka has told of what was sent; a server would not wait."""
    while (statistics := producer.metrics().statistics) is None or statistics.txmsgs < 2000:
        time.sleep(0.05)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker(topics={"measured": 2}) as broker:
            main(broker.bootstrap_servers)
