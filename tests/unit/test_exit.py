"""What the interpreter's exit does with producers nobody closed, asked of the exit handler itself;
subprocesses ask the rest elsewhere.
"""

import time

from kafka_ext import KafkaProducer, ProducerRecord, _lifecycle


def test_exit_waits_once_for_all_producers_together(monkeypatch):
    monkeypatch.setattr(_lifecycle, "EXIT_TIMEOUT", 1.0)
    codes = []
    # Nobody listens there, so none of them can deliver.
    producers = [
        KafkaProducer(
            bootstrap_servers="127.0.0.1:1", log_cb=lambda *line: None, error_cb=lambda error: None
        )
        for _ in range(8)
    ]
    for producer in producers:
        producer.send(
            ProducerRecord("topic", b"value"), lambda metadata, error: codes.append(error.name)
        )
    started = time.monotonic()
    _lifecycle._close_all()
    assert time.monotonic() - started < 5.0  # eight times EXIT_TIMEOUT before
    assert codes == ["PURGE_QUEUE"] * 8
