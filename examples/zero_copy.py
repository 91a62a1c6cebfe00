"""Values that are never copied: rows of a NumPy array and slices of a memory-mapped file.

    python examples/zero_copy.py [bootstrap servers]

Without an argument it starts a broker of its own. Needs NumPy.
"""

from __future__ import annotations

import mmap
import sys
import tempfile

import numpy as np

from kafka_ext import InvalidRecordError, KafkaProducer, ProducerRecord, SendOption
from kafka_ext.testing import EmbeddedBroker


def send_array(producer: KafkaProducer) -> None:
    samples = np.arange(8 * 1024, dtype=np.float64).reshape(8, 1024)
    # each row is contiguous memory inside `samples`; nothing is copied to send it
    for row in samples:
        producer.send(ProducerRecord("samples", row))
    producer.flush(timeout=30)
    samples[:] = 0  # only now: until a row's report, librdkafka reads this very memory

    try:
        producer.send(ProducerRecord("samples", samples[:, 0]))
    except InvalidRecordError as exc:
        print("a column is strided memory:", "refused" if "contiguous" in str(exc) else exc)
    producer.send(ProducerRecord("samples", np.ascontiguousarray(samples[:, 0])))


def send_file(producer: KafkaProducer) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(b"record %03d\n" % n for n in range(1000)))
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = memoryview(mapped)
        for start in range(0, len(mapped), 110):  # ten records a message
            producer.send(ProducerRecord("files", view[start : start + 110]))
        try:
            mapped.close()
        except BufferError:
            print("the mapping cannot be closed while it is being sent")
        producer.flush(timeout=30)
        view.release()
        mapped.close()


def send_reused_buffer(producer: KafkaProducer) -> None:
    # A buffer that is filled again and again must be copied: then it is the caller's
    # again as soon as send() returns.
    buffer = bytearray(16)
    for n in range(10):
        buffer[:] = b"measurement %04d" % n
        producer.send(ProducerRecord("reused", buffer), option=SendOption.TO_COPY_RECORD_VALUE)


def main(bootstrap_servers: str) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        send_array(producer)
        send_file(producer)
        send_reused_buffer(producer)
        producer.flush(timeout=30)
        metrics = producer.metrics()
        print(
            f"{metrics.delivered} delivered, {metrics.failed} failed, {metrics.pinned_bytes} bytes"
            " still pinned"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker() as broker:
            main(broker.bootstrap_servers)
