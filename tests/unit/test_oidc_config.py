"""A configuration with OAUTHBEARER by OIDC, whose background thread begins before librdkafka looks
at the rest.
"""

import subprocess
import sys

import pytest

from kafka_ext._rdkafka import build_info

pytestmark = [
    pytest.mark.found(23),
    pytest.mark.skipif(
        "new-background" not in build_info()["patches"],
        reason="this librdkafka has not been mended",
    ),
]

TRY = """
from kafka_ext import InvalidConfigError, KafkaProducer

for _ in range(3):
    try:
        KafkaProducer({
            "bootstrap.servers": "127.0.0.1:1", "security.protocol": "sasl_ssl", "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.client.id": "me", "sasl.oauthbearer.client.secret": "mine",
            "sasl.oauthbearer.token.endpoint.url": "http://127.0.0.1:1/token", NAME: "/there/is/no/such/file",
        })
    except InvalidConfigError as exc:
        assert exc.property == NAME, exc.property
        print("refused", end=" ")
"""


@pytest.mark.parametrize("name", ["ssl.ca.location", "ssl.key.location", "ssl.cipher.suites"])
def test_a_configuration_that_is_refused_does_not_end_the_process(name):
    done = subprocess.run(
        [sys.executable, "-c", f"NAME = {name!r}\n{TRY}"],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"refused " * 3), done.stderr
