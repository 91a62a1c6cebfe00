"""An abort is never fatal, however soon after a commit it comes (a short form of
abort_rounds.py).
"""

import pytest
from abort_rounds import run

from kafka_ext import _rdkafka

if "txn-abort-nothing" not in _rdkafka.build_info()["patches"]:
    pytest.skip("this librdkafka is not mended (wheels/patches)", allow_module_level=True)


@pytest.mark.found(2)
def test_an_abort_right_after_a_commit_is_never_fatal(trio, new_topic):
    topic = new_topic(trio, 6)
    rounds = 20
    results = run(trio, topic, rounds)
    assert {delay: result.errors for (_, delay), result in results.items() if result.errors} == {}
    assert [len(result.seconds) for result in results.values()] == [rounds] * len(results)
    visible = sorted(message.value for message in trio.messages(topic))
    # Each delay commits one in each round.
    assert visible == sorted(b"committed %d" % number for number in range(rounds) for _ in results)
