"""KafkaCluster itself: brokers' lives, topics, leaders, reading back, and what is left when it
ends.
"""

import os
import signal
import socket
import subprocess
import sys

import pytest
from faultlib import wait_until

from kafka_ext import ErrorCode, KafkaException, KafkaProducer, ProducerRecord
from kafka_ext.testing import BrokerStateError, KafkaCluster


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_life_of_a_cluster_and_what_is_left_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)  # a relative directory: brokers and tools run elsewhere
    with KafkaCluster(topics={"orders": 2}, directory=tmp_path.name) as cluster:
        assert repr(cluster) == f"<KafkaCluster {cluster.bootstrap_servers} 1:running>"
        pid = cluster.pid(1)
        with KafkaProducer(cluster.config(linger_ms=0)) as producer:
            producer.sync_send(ProducerRecord("orders", b"v", partition=1), timeout=10)
        cluster.pause()
        assert cluster.state(1) == "paused"
        cluster.resume()
        cluster.kill()
        assert cluster.state(1) == "stopped"
        assert not alive(pid)
        with pytest.raises(BrokerStateError, match="does not run"):
            cluster.pid(1)
        with pytest.raises(BrokerStateError, match="no broker of the cluster runs"):
            cluster.leader("orders")
        cluster.start()
        cluster.assert_delivered(
            "orders", [b"v"], exactly_once=True
        )  # SIGKILL takes the process, not what it has written
        with pytest.raises(BrokerStateError, match="runs already"):
            cluster.start(1)
        cluster.restart()
        cluster.assert_delivered("orders", [b"v"], exactly_once=True)
        pid = cluster.pid(1)
    assert cluster.closed
    assert not alive(pid)
    assert list(tmp_path.iterdir()) == []
    cluster.close()
    for call in (
        cluster.start,
        lambda: cluster.messages("orders"),
        lambda: cluster.create_topic("more"),
    ):
        with pytest.raises(BrokerStateError, match="closed"):
            call()


def test_logs_are_kept_when_the_block_raises(tmp_path):
    def fail():
        with KafkaCluster(directory=tmp_path):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        fail()
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in (folder / "broker-1").iterdir()) == [
        "broker.log",
        "node.properties",
    ]
    assert str(folder) in "".join(getattr(raised.value, "__notes__", [str(folder)]))


def test_a_broker_that_does_not_start_says_why(tmp_path):
    with pytest.raises(KafkaException) as raised:
        KafkaCluster(settings={"log.retention.ms": "nonsense"}, directory=tmp_path)
    assert "log.retention.ms" in str(raised.value)


def test_brokers_end_with_the_process_that_started_them(tmp_path):
    program = (
        "import os, signal, sys, time\n"
        "from kafka_ext.testing import KafkaCluster\n"
        f"cluster = KafkaCluster(directory={str(tmp_path)!r})\n"
        "print(cluster.pid(1), flush=True)\n"
        "if os.fork() == 0:\n"  # it holds all that can be inherited
        "    os.closerange(0, 3)\n"
        "    time.sleep(20)\n"
        "    os._exit(0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=120
    )
    assert process.returncode == -signal.SIGKILL
    pid = int(process.stdout)
    wait_until(lambda: not alive(pid))


def test_ports_are_below_those_of_outgoing_connections(single):
    for name in ("PLAIN", "TLS", "SASL"):
        host, port = single.address(1, name)
        assert host == "127.0.0.1"
        assert 12_000 <= port < 32_000
        socket.create_connection((host, port), 5).close()


def test_topics_are_made_configured_and_deleted(trio, new_topic):
    topic = new_topic(trio, 3, retention_ms=1000)
    assert {len(state.replicas) for state in trio.partitions(topic).values()} == {3}
    assert list(trio.partitions(topic)) == [0, 1, 2]
    with pytest.raises(KafkaException) as raised:
        trio.create_topic(topic)
    assert raised.value.error == ErrorCode["TOPIC_ALREADY_EXISTS"]
    with pytest.raises(KafkaException) as raised:
        trio.create_topic(topic + "x", config={"no.such.setting": "1"})
    assert raised.value.error == ErrorCode["INVALID_CONFIG"]
    trio.set_topic_config(topic, {"max.message.bytes": "1000", "retention.ms": None})
    with pytest.raises(KafkaException) as raised:
        trio.set_topic_config(topic, {"max.message.bytes": "many"})
    assert raised.value.error == ErrorCode["INVALID_CONFIG"]
    trio.delete_topic(topic)
    with pytest.raises(KafkaException) as raised:
        trio.delete_topic(topic)
    assert raised.value.error == ErrorCode["UNKNOWN_TOPIC_OR_PART"]
    with pytest.raises(KafkaException) as raised:
        trio.messages("never-made")
    assert raised.value.error == ErrorCode["UNKNOWN_TOPIC_OR_PART"]
    trio.create_topics([f"{topic}-{n}" for n in range(2)], 2)
    assert trio.leader(f"{topic}-1", 1) in (1, 2, 3)
    with pytest.raises(KafkaException) as raised:
        trio.leader(f"{topic}-1", 2)
    assert raised.value.error == ErrorCode["UNKNOWN_PARTITION"]


def test_leaders_are_moved_and_elected(trio, new_topic):
    topic, elsewhere = (
        new_topic(trio, replicas={0: [1, 2, 3]}),
        new_topic(trio, replicas={0: [2, 3]}),
    )
    assert trio.leader(topic) == 1
    trio.move_leader(topic, 0, 3)
    state = trio.partitions(topic)[0]
    assert (state.leader, sorted(state.replicas), sorted(state.in_sync)) == (
        3,
        [1, 2, 3],
        [1, 2, 3],
    )
    with pytest.raises(ValueError, match="is on the brokers 2, 3, not on 1"):
        trio.move_leader(elsewhere, 0, 1)
    with pytest.raises(ValueError, match="there are the brokers 1 to 3, and no 4"):
        trio.move_leader(topic, 0, 4)
    trio.stop(3)  # in order: it hands over before it ends
    assert trio.leader(topic) in (1, 2)
    assert trio.controller() in (1, 2)
    trio.start(3)
    trio.wait_in_sync(topic)
    assert sorted(trio.partitions(topic)[0].in_sync) == [1, 2, 3]


def test_arguments_are_checked(single):
    for call in (
        lambda: single.config(listener="NONE"),
        lambda: single.config(user="ada"),
        lambda: single.config(listener="SASL", user="nobody"),
        lambda: single.config(listener="SASL", mechanism="GSSAPI"),
        lambda: single.kill(2),
        lambda: single.allow("ada", "sing", "topic", "orders"),
        lambda: single.allow("ada", "write", "song", "orders"),
        lambda: single.messages("orders", isolation_level="serializable"),
        lambda: single.create_topic("bad name"),
    ):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(TypeError):
        single.kill("1")
    with pytest.raises(KafkaException) as raised:
        single.set_quota({"no_such_quota": 1.0})
    assert raised.value.error == ErrorCode["INVALID_REQUEST"]
