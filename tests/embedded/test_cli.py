"""The command line as its users run it: a process of its own, a broker, pipes, signals and
terminals.
"""

import bz2
import contextlib
import gzip
import json
import lzma
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from kafka_ext.testing import EmbeddedBroker

COMMAND = [sys.executable, "-m", "kafka_ext"]
PATIENCE = 60


@pytest.fixture
def broker():
    with EmbeddedBroker(topics={"lines": 1, "wide": 4}) as broker:
        yield broker


def run(*words, given=b"", status=0, **keywords):
    done = subprocess.run(
        [*COMMAND, *map(str, words)],
        input=given,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        **keywords,
    )
    assert done.returncode == status, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done


def produce(broker, *words, topic="lines", **keywords):
    return run("produce", topic, "-b", broker.bootstrap_servers, *words, **keywords)


def read(broker, count, topic="lines"):
    """All records of the topic, which must be `count`."""
    messages = broker.messages(topic, count)
    assert len(broker.messages(topic)) == len(messages) == count
    return messages


def pairs(messages):
    return [(message.key, message.value) for message in messages]


@contextlib.contextmanager
def started(*words, **keywords):
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # or a readline() takes lines along that communicate() does not know of
        **keywords,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        close(process.stdin, process.stdout, process.stderr)


def close(*files):
    for file in files:
        if file is not None:
            with contextlib.suppress(BrokenPipeError):
                file.close()


# ---------------------------------------------------------------------- produce: what becomes a
# record


def test_each_line_is_a_record_in_its_order(broker):
    lines = [b"line %d" % number for number in range(5000)]
    done = produce(broker, given=b"\n".join(lines) + b"\n")
    assert [message.value for message in read(broker, 5000)] == lines
    assert all(message.key is None and message.headers == [] for message in read(broker, 5000))
    assert b"5,000 records" in done.stdout
    assert b"delivered to lines" in done.stdout


def test_empty_lines_are_empty_values_and_the_last_line_needs_no_newline(broker):
    produce(broker, given=b"a\n\nb")
    assert [message.value for message in read(broker, 3)] == [b"a", b"", b"b"]


def test_no_input_is_no_record(broker):
    assert b"0 records" in produce(broker, given=b"").stdout


def test_files_one_after_the_other(broker, tmp_path):
    for name, content in (("one", b"1\n2"), ("two", b"3\n")):
        (tmp_path / name).write_bytes(content)
    produce(broker, tmp_path / "one", "-", tmp_path / "two", given=b"stdin\n")
    assert [message.value for message in read(broker, 4)] == [b"1", b"2", b"stdin", b"3"]


def test_options_between_topic_and_files(broker, tmp_path):
    (tmp_path / "one").write_bytes(b"1\n")
    (tmp_path / "two").write_bytes(b"2\n")
    run(
        "produce",
        "-b",
        broker.bootstrap_servers,
        "lines",
        tmp_path / "one",
        "-z",
        "lz4",
        tmp_path / "two",
    )
    run("produce", "--topic", "lines", tmp_path / "one", "-b", broker.bootstrap_servers)
    assert [message.value for message in read(broker, 3)] == [b"1", b"2", b"1"]


def test_keys_by_separator(broker):
    produce(
        broker,
        "--key-separator",
        r"\t",
        given=b"k\tv\n\tno key but an empty one\nno separator\nk\tv\tw\n",
    )
    assert pairs(read(broker, 4)) == [
        (b"k", b"v"),
        (b"", b"no key but an empty one"),
        (None, b"no separator"),
        (b"k", b"v\tw"),
    ]


def test_a_separator_of_several_characters(broker):
    produce(broker, "-K", "::", given="ключ::значение\n".encode())
    assert pairs(read(broker, 1)) == [("ключ".encode(), "значение".encode())]


def test_the_null_marker(broker):
    produce(broker, "-K", ":", "-N", r"\N", given=b"k:\\N\n\\N:v\n\\N\nk:\n")
    assert pairs(read(broker, 4)) == [(b"k", None), (None, b"v"), (None, None), (b"k", b"")]


def test_an_empty_null_marker(broker):
    produce(broker, "-K", ":", "--null-marker", "", given=b"k:\n:v\n")
    assert pairs(read(broker, 2)) == [(b"k", None), (None, b"v")]


def test_headers_on_every_record(broker):
    produce(broker, "--header", "a=1", "-H", "a=2=3", "-H", "empty=", "-H", "null", given=b"x\ny\n")
    for message in read(broker, 2):
        assert message.headers == [("a", b"1"), ("a", b"2=3"), ("empty", b""), ("null", None)]


def test_a_partition_for_all(broker):
    produce(broker, "--partition", 3, topic="wide", given=b"x\ny\n")
    assert [(message.partition, message.value) for message in read(broker, 2, "wide")] == [
        (3, b"x"),
        (3, b"y"),
    ]


@pytest.mark.parametrize(
    ("delimiter", "given", "values"),
    [
        (r"\0", b"a\nb\0c\0", [b"a\nb", b"c"]),
        (r"\r\n", b"a\r\nb\rc\r\n", [b"a", b"b\rc"]),
        ("--", b"a--b-c--", [b"a", b"b-c"]),
    ],
)
def test_delimiters(broker, delimiter, given, values):
    produce(broker, f"--delimiter={delimiter}", given=given)
    assert [message.value for message in read(broker, len(values))] == values


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compression(broker, codec):
    value = b"compress me " * 100
    produce(broker, "--compression", codec, given=(value + b"\n") * 50)
    assert [message.value for message in read(broker, 50)] == [value] * 50


def test_properties_from_a_file_and_by_name(broker, tmp_path):
    config = tmp_path / "cluster.properties"
    config.write_text(
        f"# here\nbootstrap.servers={broker.bootstrap_servers}\nmessage.max.bytes=1000\n"
    )
    run("produce", "lines", "--config", config, given=b"x" * 2000 + b"\n", status=1)
    run(
        "produce",
        "lines",
        "--config",
        config,
        "-X",
        "message.max.bytes=5000",
        "-X",
        "linger.ms=0",
        given=b"x" * 2000 + b"\n",
    )
    assert [len(message.value) for message in read(broker, 1)] == [2000]


# ---------------------------------------------------------------------- produce: the summary and
# the status


def test_the_summary_as_json(broker):
    summary = json.loads(produce(broker, "--json", given=b"abc\ndefgh\n").stdout)
    assert summary.pop("seconds") > 0
    assert summary.pop("records_per_second") > 0
    assert summary.pop("bytes_per_second") > 0
    assert summary == {
        "topic": "lines",
        "records": 2,
        "delivered": 2,
        "failed": 0,
        "bytes": 8,
        "errors": {},
        "interrupted": False,
    }


def test_quiet_says_nothing_when_all_is_well(broker):
    done = produce(broker, "--quiet", given=b"x\n")
    assert (done.stdout, done.stderr) == (b"", b"")


def test_a_line_too_long_fails_alone(broker):
    done = produce(
        broker,
        "--json",
        given=b"a\n" + b"x" * 3_000_000 + b"\nb\n" + b"y" * 1_000_001 + b"\nc",
        status=1,
    )
    summary = json.loads(done.stdout)
    assert [message.value for message in read(broker, 3)] == [b"a", b"b", b"c"]
    assert (summary["records"], summary["delivered"], summary["failed"]) == (5, 3, 2)
    assert summary["bytes"] == 3
    assert summary["errors"] == {"MSG_SIZE_TOO_LARGE": 2}
    assert "2 of 5 records not delivered" in done.stderr.decode()
    assert "the first: record 2" in done.stderr.decode()


def test_a_partition_that_does_not_exist(broker):
    done = produce(broker, "-p", 99, "--json", given=b"a\nb\n", status=1)
    assert json.loads(done.stdout)["errors"] == {"UNKNOWN_PARTITION": 2}


def test_a_broker_that_is_not_there():
    done = run(
        "produce",
        "lines",
        "-b",
        "127.0.0.1:1",
        "-X",
        "message.timeout.ms=1000",
        "--json",
        given=b"a\n",
        status=1,
    )
    assert json.loads(done.stdout)["errors"] == {"MSG_TIMED_OUT": 1}
    lines = [line for line in done.stderr.splitlines() if b"Connection refused" in line]
    assert sum(b"TRANSPORT" in line for line in lines) == 1
    assert sum(b"MSG_TIMED_OUT" in line for line in lines) == 1


def test_errors_of_the_broker_are_reported(broker):
    from kafka_ext import ErrorCode
    from kafka_ext.testing import ApiKey

    broker.fail_requests(ApiKey.PRODUCE, [ErrorCode.TOPIC_AUTHORIZATION_FAILED])
    done = produce(broker, "-X", "enable.idempotence=false", given=b"a\n", status=1)
    assert "TOPIC_AUTHORIZATION_FAILED" in done.stderr.decode()


@pytest.mark.skipif(
    not os.path.exists("/proc/self/mem"), reason="needs a file that can be opened but not read"
)
def test_an_input_that_fails_on_the_way(broker, tmp_path):
    (tmp_path / "one").write_bytes(b"1\n2\n")
    done = produce(broker, tmp_path / "one", "/proc/self/mem", status=1)
    assert b"cannot read on" in done.stderr
    assert [message.value for message in read(broker, 2)] == [b"1", b"2"]
    assert b"2 records" in done.stdout


@pytest.mark.parametrize(
    "words", [["produce", "lines", "--embedded"], ["perf", "--num-records", "100"]]
)
def test_asked_for_or_without_a_cluster_they_start_one_and_say_so(words):
    done = run(*words, given=b"x\n")
    assert b"embedded broker" in done.stderr


def test_a_reader_of_the_summary_that_has_gone(broker):
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*COMMAND, "produce", "lines", "-b", broker.bootstrap_servers],
        input=b"x\n",
        stdout=write_end,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(read(broker, 1)) == 1


def test_nobody_reads_the_errors():
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*COMMAND, "produce", "lines", "--embedded"],
        input=b"x\n",
        stdout=subprocess.PIPE,
        stderr=write_end,
        timeout=PATIENCE,
        check=False,
    )
    os.close(write_end)
    assert done.returncode == 0
    assert b"1 record " in done.stdout


# ---------------------------------------------------------------------- produce: long inputs


def test_lines_are_sent_as_they_come(broker):
    """`tail -f` must not wait for a full chunk."""
    with started(
        "produce", "lines", "-b", broker.bootstrap_servers, stdin=subprocess.PIPE
    ) as process:
        process.stdin.write(b"the first\n")
        process.stdin.flush()
        assert [message.value for message in broker.messages("lines", 1, timeout=PATIENCE)] == [
            b"the first"
        ]
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


@pytest.mark.slow(6)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.measures
def test_memory_does_not_grow_with_the_input():
    """400 MB, and again with lines of 10 kB; the embedded broker's own 20 MiB are in the same
    process.
    """
    # Not getrusage: over fork and exec its ru_maxrss keeps the peak of the parent.
    script = (
        "import sys; from kafka_ext import cli; status = cli.main(sys.argv[1:]); "
        + "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr);"
        " sys.exit(status)"
    )
    for length, number in ((100, 2_000_000), (10_000, 40_000)):
        process = subprocess.Popen(
            [sys.executable, "-c", script, "produce", "lines", "--embedded", "--json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        block = (b"x" * (length - 1) + b"\n") * 1000

        def feed(process=process, block=block, number=number):
            for _ in range(number // 1000):
                process.stdin.write(block)
            process.stdin.close()

        feeder = threading.Thread(target=feed)
        feeder.start()
        said, complained = process.stdout.read(), process.stderr.read()
        feeder.join()
        close(process.stdout, process.stderr)
        assert process.wait() == 0, complained
        assert json.loads(said)["delivered"] == number
        assert int(complained.split()[-1]) < 250_000  # kB


@pytest.mark.slow(5)
def test_plain_progress_lines_where_there_is_no_terminal(broker):
    with started(
        "produce", "lines", "-b", broker.bootstrap_servers, stdin=subprocess.PIPE
    ) as process:
        process.stdin.write(b"x\n" * 10)
        process.stdin.flush()
        line = process.stderr.readline().decode()  # comes after some seconds
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    assert re.fullmatch(r"kafka-ext produce: 10 records delivered, .* records/s, .*\n", line)
    assert "\x1b" not in line


# ---------------------------------------------------------------------- produce: signals


def endless():
    return subprocess.Popen(["yes", "a line that never ends"], stdout=subprocess.PIPE)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_reading_and_all_that_was_sent_is_delivered(signum, status):
    with endless() as source:
        with started("produce", "lines", "--embedded", "--json", stdin=source.stdout) as process:
            assert b"embedded broker" in process.stderr.readline()
            time.sleep(0.5)
            process.send_signal(signum)
            said, complained = process.communicate(timeout=PATIENCE)
        source.kill()
        source.stdout.close()
    assert process.returncode == status, complained
    assert b"Traceback" not in complained
    summary = json.loads(said)
    assert summary["interrupted"] is True
    assert summary["failed"] == 0
    assert summary["delivered"] == summary["records"] > 0


def test_ctrl_c_while_waiting_for_input(broker):
    with started(
        "produce", "lines", "-b", broker.bootstrap_servers, "--json", stdin=subprocess.PIPE
    ) as process:
        process.stdin.write(b"one\ntwo\nhalf a line")
        process.stdin.flush()
        broker.messages("lines", 2, timeout=PATIENCE)
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        assert process.returncode == 130
        assert json.loads(process.stdout.read())["delivered"] == 2


def test_ctrl_c_twice_gives_up_and_reports_what_was_lost():
    with endless() as source:
        with started(
            "produce", "lines", "-b", "127.0.0.1:1", "--json", stdin=source.stdout
        ) as process:
            assert b"refused" in process.stderr.readline()
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            while b"interrupted: delivering" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            said, complained = process.communicate(timeout=PATIENCE)
        source.kill()
        source.stdout.close()
    assert process.returncode == 130, complained
    summary = json.loads(said)
    assert summary["delivered"] == 0
    assert summary["failed"] == summary["records"] > 0
    assert set(summary["errors"]) == {"PURGE_QUEUE"}


# ---------------------------------------------------------------------- broker


def test_a_broker_in_the_foreground():
    with started("broker", "--brokers", 2, "--topic", "orders:3", "-t", "users") as process:
        address = process.stdout.readline().decode().strip()
        assert re.fullmatch(r"127\.0\.0\.1:\d+,127\.0\.0\.1:\d+", address)
        done = run("produce", "orders", "-b", address, "-p", 2, given=b"x\n")
        assert b"1 record " in done.stdout
        run("produce", "users", "-b", address, "-p", 1, given=b"x\n", status=1)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert said == b""
    text = complained.decode()
    assert "5 MiB" in text
    assert "orders (3 partitions), users (1 partition)" in text


def test_sigterm_ends_the_broker():
    with started("broker") as process:
        assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


# ---------------------------------------------------------------------- perf


def test_perf_measures_what_it_sends(broker):
    done = run(
        "perf",
        "-b",
        broker.bootstrap_servers,
        "--topic",
        "wide",
        "--num-records",
        1000,
        "--record-size",
        50,
        "-w",
        10,
        "--json",
    )
    result = json.loads(done.stdout)
    messages = read(broker, 1010, "wide")
    assert {len(message.value) for message in messages} == {50}
    assert len({message.value for message in messages}) == 1000
    assert (result["records"], result["delivered"], result["failed"], result["record_size"]) == (
        1000,
        1000,
        0,
        50,
    )
    latency = result["latency_ms"]
    assert list(latency) == ["avg", "p50", "p95", "p99", "p99.9", "max"]
    assert (
        0
        <= latency["p50"]
        <= latency["p95"]
        <= latency["p99"]
        <= latency["p99.9"]
        <= latency["max"]
    )
    assert result["records_per_second"] > 0


def test_perf_in_words():
    text = run("perf", "-n", 1000, "--partitions", 2).stdout.decode()
    assert "1,000 records of 100 B delivered to perf" in text
    for part in ("throughput", "records/s", "latency", "avg", "p50", "p95", "p99", "p99.9", "max"):
        assert part in text


def test_perf_keeps_to_a_rate():
    result = json.loads(run("perf", "-n", 300, "-r", 200, "--json").stdout)
    assert result["delivered"] == 300
    assert result["seconds"] >= 299 / 200  # the first is due at once


def test_perf_fails_when_a_record_does(broker):
    done = run(
        "perf",
        "-b",
        broker.bootstrap_servers,
        "-t",
        "wide",
        "-n",
        5,
        "-s",
        2_000_000,
        "--json",
        status=1,
    )
    result = json.loads(done.stdout)
    assert result["errors"] == {"MSG_SIZE_TOO_LARGE": 5}
    assert result["latency_ms"]["p99"] is None


def test_ctrl_c_ends_perf_with_what_there_is():
    with started("perf", "-n", 1_000_000_000, "--json") as process:
        assert b"embedded broker" in process.stderr.readline()
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, complained
    result = json.loads(said)
    assert 0 < result["delivered"] == result["records"] < 1_000_000_000


# ---------------------------------------------------------------------- terminals


def on_terminal(*words, given, environment=None, press=None):
    """Run with stderr on a pseudo-terminal and `given` from a pipe; the status and all that the
    terminal was sent.

    `press` is (text to wait for, keys to press then), with the terminal as the controlling one.
    """
    main, side = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=side,
        stderr=side,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **(environment or {})},
        start_new_session=True,
    )
    os.close(side)

    def feed():
        with contextlib.suppress(BrokenPipeError):
            for some in given:
                process.stdin.write(some)
        close(process.stdin)

    feeder = threading.Thread(target=feed)
    feeder.start()
    shown = b""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not select.select([main], [], [], 1)[0]:
            continue
        try:
            some = os.read(main, 65536)
        except OSError:  # Linux' way to say that the last writer has gone
            break
        if not some:
            break
        shown += some
        if press is not None and press[0] in shown:
            os.killpg(process.pid, press[1])
            press = None
    process.kill() if time.monotonic() >= deadline else None
    status = process.wait()
    feeder.join()
    os.close(main)
    return status, shown.decode()


def slowly(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield b"a line\n" * 1000
        time.sleep(0.02)


def test_a_terminal_gets_a_live_display_that_is_gone_at_the_end(broker):
    pytest.importorskip("rich")
    status, shown = on_terminal(
        "produce", "lines", "-b", broker.bootstrap_servers, given=slowly(1.5)
    )
    assert status == 0
    assert "\x1b[?25l" in shown  # the cursor is hidden …
    assert "\x1b[?25h" in shown  # … and comes back
    assert "━" in shown
    assert re.search(r"delivered.*/s", shown)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).rstrip().splitlines()[-1]
    assert re.fullmatch(
        r"[\d,]+ records \(.*\) delivered to lines in .* s: .* records/s, .*/s", last
    )


@pytest.mark.parametrize("reason", ["a terminal that cannot move its cursor", "no rich"])
def test_the_plain_form_on_a_terminal(broker, reason, tmp_path):
    environment = {"TERM": "dumb"}
    if reason == "no rich":
        (tmp_path / "rich.py").write_text("raise ImportError('not installed')\n")
        environment = {
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        }
    status, shown = on_terminal(
        "produce",
        "lines",
        "-b",
        broker.bootstrap_servers,
        given=slowly(0.5),
        environment=environment,
    )
    assert status == 0
    assert "\x1b" not in shown
    assert "delivered to lines" in shown


def test_ctrl_c_on_a_terminal_leaves_it_as_it_was():
    pytest.importorskip("rich")
    status, shown = on_terminal(
        "produce", "lines", "--embedded", given=slowly(20), press=("━".encode(), signal.SIGINT)
    )
    assert status == 130
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "Traceback" not in shown
    assert "delivered to lines" in shown


# ---------------------------------------------------------------------- what is not sent as it
# stands


@pytest.mark.found(29)
def test_produce_asks_for_a_cluster():
    done = run("produce", "lines", given=b"x\n", status=2)
    assert b"-b HOST:PORT" in done.stderr
    assert b"--embedded" in done.stderr
    done = run("produce", "lines", "--embedded", "-b", "127.0.0.1:1", given=b"x\n", status=2)
    assert b"--embedded" in done.stderr


@pytest.mark.found(29)
@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize(
    ("content", "how"),
    [
        (gzip.compress(b"a\n", mtime=0), "gzip -dc"),
        (bz2.compress(b"a\n"), "bzip2 -dc"),
        (lzma.compress(b"a\n"), "xz -dc"),
        (b"\x28\xb5\x2f\xfd rest", "zstd -dc"),
        ("a\n".encode("utf-16"), "iconv -f UTF-16"),
        (b"\xfe\xff\0a", "iconv -f UTF-16"),
        ("a\n".encode("utf-32"), "iconv -f UTF-32"),
        (b"\x04\x22\x4d\x18 rest", "lz4 -dc"),
        (b"PK\x03\x04 rest", "unzip -p"),
    ],
)
def test_files_that_are_no_lines_are_refused(broker, tmp_path, content, how, redirected):
    path = tmp_path / "file"
    path.write_bytes(content)
    with path.open("rb") as file:
        done = subprocess.run(
            [
                *COMMAND,
                "produce",
                "lines",
                "-b",
                broker.bootstrap_servers,
                *([] if redirected else [path]),
            ],
            stdin=file,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, how in done.stderr.decode()) == (2, True), done.stderr
    assert not broker.messages("lines")


@pytest.mark.found(29)
@pytest.mark.parametrize(
    ("content", "how"),
    [
        (gzip.compress(b"a\n", mtime=0), "gzip -dc"),
        ("a\n".encode("utf-16"), "iconv -f UTF-16"),
        ("a\n".encode("utf-32"), "iconv -f UTF-32"),
    ],
)
def test_a_pipe_of_no_lines_is_refused(broker, content, how):
    done = produce(broker, given=content, status=1)
    assert how in done.stderr.decode()
    assert not broker.messages("lines")


@pytest.mark.found(29)
def test_a_byte_order_mark_in_a_pipe_is_no_part_of_the_first_line(broker):
    produce(broker, given=b"\xef\xbb\xbfa\nb\n")
    assert [message.value for message in read(broker, 2)] == [b"a", b"b"]
    produce(broker, given=b"\xef\xbb\xbf")
    assert len(read(broker, 2)) == 2


@pytest.mark.found(29)
def test_a_byte_order_mark_is_no_part_of_the_first_line(broker, tmp_path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfa\nb\n")
    produce(broker, tmp_path / "file")
    assert [message.value for message in read(broker, 2)] == [b"a", b"b"]


@pytest.mark.found(29)
@pytest.mark.parametrize(
    "words", [["--help"], ["produce", "--help"], ["perf", "--help"], ["broker", "--help"], ["info"]]
)
@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_output_in_ascii(words, environment):
    done = subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **environment},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
