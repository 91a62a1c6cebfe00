"""Logging to Kafka, as JSON, with a handler that never blocks.

    python examples/logging_to_kafka.py [bootstrap servers]

Without an argument it starts a broker of its own.
"""

from __future__ import annotations

import json
import logging
import logging.config
import sys
from typing import Any

from kafka_ext.logging import JsonFormatter, KafkaHandler
from kafka_ext.testing import EmbeddedBroker


def configuration(bootstrap_servers: str) -> dict[str, Any]:
    # "[configuration]"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {"()": "kafka_ext.logging.JsonFormatter", "static": {"service": "shop"}}
        },
        "handlers": {
            "kafka": {
                "class": "kafka_ext.logging.KafkaHandler",
                "topic": "logs",
                "properties": {"bootstrap.servers": bootstrap_servers},
                "formatter": "json",
                "level": "INFO",
                "key": "name",
                "headers": ["levelname"],
            },
            "console": {"class": "logging.StreamHandler"},
        },
        "loggers": {"kafka_ext": {"handlers": ["console"]}},
        "root": {"handlers": ["kafka"], "level": "INFO"},
    }
    # "[end]"


def main(bootstrap_servers: str) -> None:
    handler = KafkaHandler(
        "logs", {"bootstrap.servers": bootstrap_servers}, key="name", headers=["levelname"]
    )
    handler.setFormatter(JsonFormatter(static={"service": "shop"}))
    logger = logging.getLogger("shop")
    logger.addHandler(handler)
    logger.warning("out of %s", "paper", extra={"order": 17})
    logger.removeHandler(handler)
    handler.close()  # delivers what is on its way
    print(f"{handler.dropped} dropped, {handler.failed} failed")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with EmbeddedBroker(topics={"logs": 1}) as broker:
            main(broker.bootstrap_servers)
            logging.config.dictConfig(configuration(broker.bootstrap_servers))
            logging.getLogger("shop").info("and so does a dictionary")
            logging.shutdown()
            for message in broker.messages("logs", count=2):
                print(json.loads(message.value or b"")["message"])
