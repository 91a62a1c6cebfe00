"""The command line without a broker: splitting, escapes, properties, percentiles, and everything it
refuses.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kafka_ext
from kafka_ext import InvalidConfigError, KafkaError, _rdkafka, cli
from kafka_ext.cli import _display as display
from kafka_ext.cli import _lines as lines
from kafka_ext.cli import _perf as perf
from kafka_ext.cli import _settings as settings
from kafka_ext.cli._session import Failures

COMMAND = [sys.executable, "-m", "kafka_ext"]


def run(*arguments, given=b"", **keywords):
    return subprocess.run(
        [*COMMAND, *arguments],
        input=given,
        capture_output=True,
        timeout=60,
        check=False,
        **keywords,
    )


# ---------------------------------------------------------------------- delimited records


def split(content, delimiter=b"\n", limit=1 << 20, pieces=(1 << 20,)):
    """All records of `content`, read in pieces of these sizes, over and over."""
    rest = content
    turn = 0

    def read():
        nonlocal rest, turn
        piece, rest = rest[: pieces[turn % len(pieces)]], rest[pieces[turn % len(pieces)] :]
        turn += 1
        return piece

    return [record for some in lines.split(read, delimiter, limit) for record in some]


def expected(content, delimiter):
    records = content.split(delimiter)
    return records if records[-1] else records[:-1]


@pytest.mark.parametrize(
    ("content", "records"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\nb", [b"a", b"b"]),
        (b"\n\na\n\n", [b"", b"", b"a", b""]),
        (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
        (b"\0\xff\n\x80", [b"\0\xff", b"\x80"]),
    ],
)
def test_a_record_is_what_is_between_two_delimiters(content, records):
    assert split(content) == records


@given(
    st.text("ab;-", max_size=200).map(str.encode),
    st.sampled_from([b";", b"--", b"a;b", b"aa", b"-;-;"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_where_the_input_is_cut_makes_no_difference(content, delimiter, pieces):
    assert split(content, delimiter, pieces=pieces) == expected(content, delimiter)


@given(
    st.lists(st.integers(0, 60), max_size=20),
    st.booleans(),
    st.sampled_from([b"\n", b"\r\n", b"<->"]),
    st.integers(1, 40),
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
)
def test_records_over_the_limit_keep_their_place_and_size(sizes, ends, delimiter, limit, pieces):
    records = [b"x" * size for size in sizes]
    content = delimiter.join(records) + (delimiter if ends and records else b"")
    got = split(content, delimiter, limit, pieces)
    assert [
        record.size if isinstance(record, lines.TooLong) else len(record) for record in got
    ] == [len(record) for record in expected(content, delimiter)]
    for record in got:
        # One that came whole in a single read may be longer; the producer refuses it. None within
        # the limit is given up.
        assert not isinstance(record, lines.TooLong) or record.size > limit


def test_an_input_without_delimiters_is_not_kept():
    chunk = b"x" * lines.CHUNK
    left = 400  # 100 MB

    def read():
        nonlocal left
        left -= 1
        return chunk if left >= 0 else b""

    import tracemalloc

    tracemalloc.start()
    try:
        ((record,),) = lines.split(read, b"\n", 1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert record.size == 400 * lines.CHUNK
    assert peak < 8_000_000


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (r"\n", b"\n"),
        (r"\t", b"\t"),
        (r"\0", b"\0"),
        (r"\x1e\xff", b"\x1e\xff"),
        (r"\\", b"\\"),
        ("\n", b"\n"),
        ("|", b"|"),
        ("€", "€".encode()),
        (r"€\t", "€\t".encode()),
        ("\udcff", b"\xff"),
    ],
)
def test_escapes_of_a_delimiter(text, meant):
    assert lines.unescape(text) == meant


@pytest.mark.parametrize("text", ["", "\\", r"\x1", r"\u20ac"])
def test_a_delimiter_that_is_none(text):
    with pytest.raises(ValueError):
        lines.unescape(text)


# ---------------------------------------------------------------------- properties


def properties_of(*words):
    parser = argparse.ArgumentParser()
    settings.add_arguments(parser)
    return dict(settings.read_properties(parser.parse_args(words)))


def test_options_go_before_properties_and_those_before_the_file(tmp_path):
    config = tmp_path / "cluster.properties"
    config.write_text(
        "# a comment\n! another\n\nbootstrap.servers ="
        " file:1\nlinger.ms=1\nsasl.password=a=b\nacks=1\ncompression.codec=gzip\n"
    )
    found = properties_of(
        "--config",
        str(config),
        "-X",
        "linger.ms=2",
        "-X",
        "bootstrap.servers=x:2",
        "-b",
        "option:3",
        "-z",
        "lz4",
    )
    assert found == {
        "queue.buffering.max.kbytes": settings.QUEUE_KBYTES,
        "bootstrap.servers": "option:3",
        "linger.ms": "2",
        "sasl.password": "a=b",
        "acks": "1",
        "compression.type": "lz4",
    }
    assert properties_of("--config", str(config))["bootstrap.servers"] == "file:1"
    assert properties_of("-X", "queue.buffering.max.kbytes=7")["queue.buffering.max.kbytes"] == "7"


@pytest.mark.parametrize(
    "name", ["error_cb", "log_cb", "stats_cb", "interceptors", "enable.manual.events.poll"]
)
def test_what_only_programs_can_set_is_refused(name):
    with pytest.raises(settings.UsageError, match=re.escape(name)):
        properties_of("-X", f"{name}=true")


@pytest.mark.parametrize("line", ["linger.ms", "=5", " = 5"])
def test_a_config_line_that_is_none_is_named(tmp_path, line):
    config = tmp_path / "c"
    config.write_text(f"acks=1\n{line}\n")
    with pytest.raises(settings.UsageError, match="line 2"):
        properties_of("--config", str(config))


# ---------------------------------------------------------------------- figures


def test_percentiles_are_of_the_records_not_of_the_buckets():
    latencies = perf.Latencies()
    for tenths in range(1, 1001):  # 0.1 ms to 100 ms, one record each
        latencies.counts[tenths] += 1
    assert latencies.summary() == {
        "avg": 50.05,
        "p50": 50.0,
        "p95": 95.0,
        "p99": 99.0,
        "p99.9": 99.9,
        "max": 100.0,
    }


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=200))
def test_percentiles_agree_with_their_definition(tenths):
    latencies = perf.Latencies()
    for one in tenths:
        latencies.counts[one] += 1
    found = latencies.summary()
    for percent in perf.PERCENTILES:
        value = found[f"p{percent:g}"] * 10
        assert sum(one <= round(value) for one in tenths) * 100 >= percent * len(tenths)
        assert sum(one < round(value) for one in tenths) * 100 < percent * len(tenths)
    assert found["max"] == max(tenths) / 10


def test_no_latency_is_no_figure():
    assert set(perf.Latencies().summary().values()) == {None}


def test_payloads_have_their_size_and_differ():
    payloads = perf.make_payloads(100, 1_000_000)
    assert len(set(payloads)) == len(payloads) == 10_000
    assert {len(payload) for payload in payloads} == {100}
    assert len(perf.make_payloads(1_000_000, 1_000_000)) == 16
    assert perf.make_payloads(0, 5) == [b""] * 5


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (123456, "123.5 kB"),
        (999_960, "1 MB"),
        (104_857_600, "104.9 MB"),
        (1e9, "1 GB"),
        (1.5e12, "1,500 GB"),
    ],
)
def test_sizes(number, text):
    assert display.size(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0.5, "0.50 s"), (59.9, "59.90 s"), (61, "1:01"), (3723, "1:02:03")]
)
def test_seconds(number, text):
    assert display.seconds(number) == text


def test_failures_are_counted_by_error_and_name_the_first():
    failures = Failures()
    notes = []
    shown = display.Display("t")
    shown.note = notes.append
    failures.report(shown, 5)
    assert notes == []
    for number in (7, 3, 9):
        failures.add(KafkaError(_rdkafka.ErrorCode["MSG_SIZE_TOO_LARGE"], "too large"), number)
    failures.add(KafkaError(_rdkafka.ErrorCode["MSG_TIMED_OUT"], "late"), 4)
    assert failures.counts() == {"MSG_SIZE_TOO_LARGE": 3, "MSG_TIMED_OUT": 1}
    failures.report(shown, 1000)
    assert notes == [
        "4 of 1,000 records not delivered:",
        "  3 x MSG_SIZE_TOO_LARGE: too large (the first: record 3)",
        "  1 x MSG_TIMED_OUT: late (the first: record 4)",
    ]


# ---------------------------------------------------------------------- info


def test_info_in_both_forms():
    plain = run("info")
    found = run("info", "--json")
    assert (plain.returncode, plain.stderr, found.returncode, found.stderr) == (0, b"", 0, b"")
    data = json.loads(found.stdout)
    built = _rdkafka.build_info()
    assert data["kafka_ext"]["version"] == kafka_ext.__version__
    assert data["librdkafka"]["version"] == built["librdkafka"]
    assert data["librdkafka"]["features"] == built["features"]
    assert data["python"]["version"] == platform.python_version()
    text = plain.stdout.decode()
    for part in (
        kafka_ext.__version__,
        built["librdkafka"],
        built["linkage"],
        built["allocator"],
        platform.python_version(),
    ):
        assert part in text
    assert "builtin.features" in text


def test_version():
    done = run("--version")
    assert done.returncode == 0
    assert (
        done.stdout.decode()
        == f"kafka-ext {kafka_ext.__version__} (librdkafka {_rdkafka.build_info()['librdkafka']})\n"
    )


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("command", ["produce", "broker", "perf", "info"])
def test_help_has_examples(command):
    done = run(command, "--help")
    assert done.returncode == 0
    assert b"examples:" in done.stdout
    assert f"kafka-ext {command}".encode() in done.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "COMMAND"),
        (["nope"], "nope"),
        (["info", "what"], "what"),
        (["produce"], "topic"),
        (["produce", "t", "--nope"], "--nope"),
        (["produce", "bad topic"], "bad topic"),
        (["produce", "."], "neither . nor .."),
        (["produce", "t", "/nowhere/at/all"], "/nowhere/at/all: No such file"),
        (["produce", "t", "/tmp"], "/tmp: a folder"),
        (["produce", "t", "-p", "-1"], "--partition"),
        (["produce", "t", "-p", "x"], "--partition"),
        (["produce", "t", "--delimiter", ""], "--delimiter"),
        (["produce", "t", "--key-separator", "\\"], "--key-separator"),
        (["produce", "t", "-X", "linger.ms"], "linger.ms"),
        (["produce", "t", "-X", "linger.mss=5"], "did you mean 'linger.ms'"),
        (["produce", "t", "-X", "linger.ms=soon"], "linger.ms"),
        (["produce", "t", "-b", ""], "bootstrap.servers"),
        (["produce", "t", "-b", "localhost:port"], "bootstrap.servers"),
        (
            ["produce", "t", "-b", "localhost:1", "-X", "acks=1", "-X", "enable.idempotence=true"],
            "acks",
        ),
        (["produce", "t", "-X", "delivery.report.only.error=true"], "delivery.report.only.error"),
        (["produce", "t", "--config", "/nowhere/at/all"], "--config /nowhere/at/all"),
        (["produce", "t", "-z", "rar"], "rar"),
        (["perf", "-n", "0"], "--num-records"),
        (["perf", "-s", "-5"], "--record-size"),
        (["perf", "-r", "0"], "--throughput"),
        (["perf", "-t", "bad topic"], "bad topic"),
        (["perf", "-X", "linger.mss=5"], "did you mean 'linger.ms'"),
        (["broker", "-n", "0"], "--brokers"),
        (["broker", "-n", "101"], "brokers"),
        (["broker", "-t", "bad topic"], "bad topic"),
        (["broker", "-t", "t:0"], "t:0"),
        (["broker", "-t", "t:x"], "t:x"),
    ],
)
def test_a_wrong_command_is_one_clear_line_and_status_2(words, complaint):
    done = run(*words)
    message = done.stderr.decode()
    assert done.returncode == 2, message
    assert done.stdout == b""
    assert "Traceback" not in message
    last = message.rstrip("\n").splitlines()[-1]
    assert last.startswith("kafka-ext")
    assert "error: " in last
    assert complaint in last
    if not message.startswith("usage:"):  # argparse's own way; ours is the line alone
        assert message.count("\n") == 1


def test_standard_input_that_is_closed():
    done = subprocess.run(
        f"exec {sys.executable} -m kafka_ext produce t <&-",
        shell=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert b"standard input" in done.stderr


def test_a_file_that_may_not_be_read(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0)
    done = run("produce", "t", str(secret))
    assert done.returncode == 2
    assert b"not readable" in done.stderr


@pytest.mark.parametrize("buffering", ["", "1"])
@pytest.mark.parametrize(
    "words", [["info"], ["info", "--json"], ["--version"], ["produce", "--help"]]
)
def test_a_reader_that_has_gone_is_no_error_to_speak_of(words, buffering):
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONUNBUFFERED": buffering}
    done = subprocess.run(
        [*COMMAND, *words],
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
        env=environment,
    )
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == 0


def test_main_returns_the_status(capsys):
    assert cli.main(["info"]) == 0
    assert cli.main(["produce", "bad topic"]) == 2
    with pytest.raises(SystemExit) as ended:
        cli.main(["nope"])
    assert ended.value.code == 2
    capsys.readouterr()


def test_a_wrong_property_is_an_exception_for_programs_too():
    """What the command line prints is the exception's own message, so that both say the same."""
    with pytest.raises(InvalidConfigError) as raised:
        kafka_ext.KafkaProducer({"bootstrap.servers": "localhost:1", "linger.mss": "5"})
    done = run("produce", "t", "-b", "localhost:1", "-X", "linger.mss=5")
    assert done.stderr.decode() == f"kafka-ext produce: error: {raised.value.error.message}\n"
