"""`kafka-ext produce --format …` as its users run it: a process of its own, files and pipes, and
what arrives at a broker.
"""

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from kafka_ext.cli import _documents as documents
from kafka_ext.testing import EmbeddedBroker

COMMAND = [sys.executable, "-m", "kafka_ext", "produce"]
PATIENCE = 60


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker(isolation="process") as broker:
        yield broker


@pytest.fixture
def topic(request, broker):
    """One for each test, with two partitions."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    broker.create_topic(name, 2)
    return name


@pytest.fixture
def produce(broker, topic):
    def run(*words, given=b"", status=0, **keywords):
        command = [*COMMAND, topic, "-b", broker.bootstrap_servers, *map(str, words)]
        done = subprocess.run(
            command, input=given, capture_output=True, timeout=PATIENCE, check=False, **keywords
        )
        assert done.returncode == status, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def read(broker, topic):
    """All records of the topic, which must be `count`, by partition and in their order."""

    def all_of(count):
        messages = broker.messages(topic, count)
        assert len(broker.messages(topic)) == len(messages) == count
        return sorted(messages, key=lambda message: (message.partition, message.offset))

    return all_of


@pytest.fixture
def pa():
    pytest.importorskip("pyarrow.parquet")
    import pyarrow

    return pyarrow


def pairs(messages):
    return sorted((message.key or b"", message.value or b"") for message in messages)


# ---------------------------------------------------------------------- JSON documents


def test_a_document_is_a_line_and_its_key_a_field(produce, read):
    given = b"""{"id": "a", "n": 1}
{"id": 1.10}

{"id": null}
  {"no": 2}\r
[1]
{"id": {"x": [1, "\xc3\xa9", true]}}
"""
    done = produce(
        "--format", "ndjson", "--key-field", "id", "-H", "from=here", "-p", 1, given=given
    )
    assert [(message.key, message.value) for message in read(6)] == [
        (b"a", b'{"id": "a", "n": 1}'),
        (b"1.10", b'{"id": 1.10}'),
        (None, b'{"id": null}'),
        (None, b'  {"no": 2}\r'),
        (None, b"[1]"),
        ('{"x":[1,"é",true]}'.encode(), '{"id": {"x": [1, "é", true]}}'.encode()),
    ]
    assert all(
        (message.partition, message.headers) == (1, [("from", b"here")]) for message in read(6)
    )
    assert b"6 records" in done.stdout


def test_a_path_to_the_key(produce, read, tmp_path):
    path = tmp_path / "orders.jsonl"
    path.write_text('{"customer": {"id": 7}}\n{"customer.id": "flat"}\n{"customer": 3}\n')
    produce("--key-field", "customer.id", path)
    assert sorted(message.key or b"" for message in read(3)) == [b"", b"7", b"flat"]


def test_lines_that_are_not_json_fail_alone_and_by_number(produce, read, tmp_path):
    (tmp_path / "one.ndjson").write_bytes(b'{"a": 1}\n{"a": \n{"a": 2}\n')
    (tmp_path / "two.ndjson").write_bytes(b'\n"\xff"\nNaN\n{"a": 3}')
    done = produce(
        "--validate", "--json", tmp_path / "one.ndjson", tmp_path / "two.ndjson", status=1
    )
    said = done.stderr.decode()
    assert f"{tmp_path}/one.ndjson, line 2: not JSON" in said
    assert f"{tmp_path}/two.ndjson, line 2: not JSON: not UTF-8" in said
    assert f"{tmp_path}/two.ndjson, line 3: not JSON: NaN" in said
    assert "3 of 6 records not delivered" in said
    assert "the first: record 2" in said
    summary = json.loads(done.stdout)
    assert (summary["delivered"], summary["failed"], summary["errors"]) == (
        3,
        3,
        {"VALUE_DESERIALIZATION": 3},
    )
    assert [value for _, value in pairs(read(3))] == [b'{"a": 1}', b'{"a": 2}', b'{"a": 3}']


def test_a_field_asks_for_documents_and_many_wrong_lines_are_told_shortly(produce, read):
    done = produce(
        "-f", "ndjson", "--key-field", "a", given=b"no\n" * 1000 + b'{"a": "\\ud800"}\n', status=1
    )
    assert done.stderr.count(b", line ") == 10
    assert b"1,001 of 1,001 records not delivered" in done.stderr
    assert b"1 x KEY_SERIALIZATION" in done.stderr
    read(0)


def test_nobody_looks_unless_asked_to(produce, read):
    produce("--format", "ndjson", given=b"no json\n\n")
    assert [message.value for message in read(1)] == [b"no json"]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"k": ""}', b""),
        (b'{"k": false}', b"false"),
        (b'{"k": 1e400}', b"1e400"),
        (b'{"k": %s}' % (b"1" * 5000), b"1" * 5000),
        (b'{"k": [1.0, null, {}]}', b"[1.0,null,{}]"),
        (b'{"k": {"\\"": 1}}', b'{"\\"":1}'),
    ],
)
def test_keys_are_text_or_json_text(line, key):
    assert documents.key_at(documents.parse(line), "k") == key


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"'a'",
        b"\xff",
        b"Infinity",
        b"[-Infinity]",
        b"[" * 200_000,
        b"1 2",
        b"\xef\xbb\xbf1",
    ],
)
def test_what_is_not_json(line):
    with pytest.raises(documents.NotJSONError):
        documents.parse(line)


# ---------------------------------------------------------------------- tables


def orders(pa, rows=20_000):
    return pa.table(
        {
            "document": pa.array(
                [None if n % 1000 == 999 else b"order %d" % n for n in range(rows)]
            ),
            "customer": pa.array([f"customer {n % 7}" for n in range(rows)]).dictionary_encode(),
            "shop": pa.array([n % 2 for n in range(rows)], pa.int32()),
            "created": pa.array([1_700_000_000_000 + n for n in range(rows)], pa.timestamp("ms")),
            "origin": pa.array(["web", None] * (rows // 2), pa.large_string()),
            "price": pa.array([0.5] * rows),
        }
    )


def write(pa, table, path, form):
    if form == "parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, path, row_group_size=7000)
        return
    kind = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, kind(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=9000)


ALL_COLUMNS = (
    "--value",
    "document",
    "--key",
    "customer",
    "--partition-column",
    "shop",
    "--timestamp-column",
    "created",
)


def check_orders(messages, rows=20_000):
    numbers = [[n for n in range(rows) if n % 2 == partition] for partition in (0, 1)]
    for partition in (0, 1):
        mine = [message for message in messages if message.partition == partition]
        assert [message.value for message in mine] == [
            None if n % 1000 == 999 else b"order %d" % n for n in numbers[partition]
        ]
        assert [message.key for message in mine] == [
            b"customer %d" % (n % 7) for n in numbers[partition]
        ]
        assert [message.timestamp for message in mine] == [
            1_700_000_000_000 + n for n in numbers[partition]
        ]
        assert all(
            message.headers == [("origin", None if partition else b"web")] for message in mine
        )


@pytest.mark.parametrize("form", ["file", "stream", "parquet"])
def test_columns_of_a_file(produce, read, pa, tmp_path, form):
    path = tmp_path / ("orders.parquet" if form == "parquet" else "orders.arrow")
    write(pa, orders(pa), path, form)
    done = produce(*ALL_COLUMNS, "--header-column", "origin", "--json", path)
    check_orders(read(20_000))
    summary = json.loads(done.stdout)
    assert (summary["records"], summary["delivered"], summary["failed"]) == (20_000, 20_000, 0)
    assert summary["bytes"] == sum(len(b"order %d" % n) for n in range(20_000) if n % 1000 != 999)


@pytest.mark.parametrize("form", ["file", "stream", "parquet"])
def test_a_table_on_the_standard_input(broker, topic, read, pa, tmp_path, form):
    write(pa, orders(pa), tmp_path / "table", form)
    command = [
        *COMMAND,
        topic,
        "-b",
        broker.bootstrap_servers,
        "-f",
        "parquet" if form == "parquet" else "arrow",
    ]
    with open(tmp_path / "table", "rb") as file:
        done = subprocess.run(
            [*command, *ALL_COLUMNS, "--header-column", "origin"],
            stdin=file,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    check_orders(read(20_000))


def test_a_stream_through_a_pipe(produce, read, pa, tmp_path):
    write(pa, orders(pa), tmp_path / "table", "stream")
    produce(
        "-f",
        "arrow",
        *ALL_COLUMNS,
        "--header-column",
        "origin",
        given=(tmp_path / "table").read_bytes(),
    )
    check_orders(read(20_000))


@pytest.mark.parametrize(
    "kind",
    ["binary", "large_binary", "binary_view", "string", "large_string", "string_view", "binary(2)"],
)
def test_the_only_column_of_bytes_or_text_has_the_values(produce, read, pa, tmp_path, kind):
    kind = pa.binary(2) if kind == "binary(2)" else getattr(pa, kind)()
    table = pa.table({"n": [1, 2, 3], "text": pa.array([b"ab", None, b"cd"], kind)})
    write(pa, table, tmp_path / "t.feather", "file")
    done = produce("--json", tmp_path / "t.feather")
    assert sorted(message.value or b"" for message in read(3)) == [b"", b"ab", b"cd"]
    assert json.loads(done.stdout)["bytes"] == 4


def test_several_tables_and_one_without_rows(produce, read, pa, tmp_path):
    for name, values in (("a", [b"1"]), ("b", []), ("c", [b"2", b"3"])):
        write(
            pa,
            pa.table({"v": pa.array(values, pa.binary())}),
            tmp_path / f"{name}.parquet",
            "parquet",
        )
    produce(*(tmp_path / f"{name}.parquet" for name in "abc"))
    assert [value for _, value in pairs(read(3))] == [b"1", b"2", b"3"]


def test_rows_that_fail_are_counted_and_the_others_arrive(produce, read, pa, tmp_path):
    table = pa.table({"v": [b"x"] * 10 + [b"y" * 2_000_000] + [b"z"], "p": [0] * 9 + [77, 0, 0]})
    write(pa, table, tmp_path / "t.arrow", "file")
    done = produce("--partition-column", "p", "--json", tmp_path / "t.arrow", status=1)
    summary = json.loads(done.stdout)
    assert (summary["records"], summary["delivered"], summary["bytes"]) == (12, 10, 10)
    assert summary["errors"] == {"UNKNOWN_PARTITION": 1, "MSG_SIZE_TOO_LARGE": 1}
    assert "the first: record 10)" in done.stderr.decode()
    assert "the first: record 11)" in done.stderr.decode()
    read(10)


def test_a_file_that_breaks_off(produce, read, pa, tmp_path):
    table = pa.table({"v": [b"value %d" % n for n in range(30_000)]})
    write(pa, table, tmp_path / "whole", "stream")
    done = produce("-f", "arrow", given=(tmp_path / "whole").read_bytes()[:-150_000], status=1)
    assert b"cannot read on: standard input, behind row " in done.stderr
    assert b"delivered to" in done.stdout


def test_numbers_that_are_no_partitions(produce, read, pa, tmp_path):
    write(pa, pa.table({"v": [b"x"], "p": [-5]}), tmp_path / "t.arrow", "file")
    done = produce("--partition-column", "p", tmp_path / "t.arrow", status=1)
    assert b"cannot read on: " in done.stderr
    assert b"row 1 and those behind it: partition" in done.stderr
    read(0)


def test_without_pyarrow_one_line_names_what_to_install(produce, tmp_path):
    (tmp_path / "pyarrow.py").write_text("raise ImportError('not here')\n")
    (tmp_path / "t.parquet").write_bytes(b"")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }
    done = produce(tmp_path / "t.parquet", status=2, env=environment)
    assert done.stderr.decode().splitlines() == [
        "kafka-ext produce: error: --format parquet needs pyarrow (not here): pip install"
        " 'kafka-ext[arrow]'"
    ]
    produce("--format", "ndjson", given=b"{}\n", env=environment)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["--value", "nope"],
            (
                "--value: {path} has no column 'nope'; it has document, customer, shop, created,"
                " origin, price"
            ),
        ),
        (
            ["--value", "price"],
            "--value: column 'price' of {path} is double; it must be binary or string",
        ),
        (
            ["--value", "document", "--key", "shop"],
            "--key: column 'shop' of {path} is int32; it must be binary or string",
        ),
        (["--value", "document", "--partition-column", "origin"], "it must be integers"),
        (
            ["--value", "document", "--timestamp-column", "price"],
            "is double; it must be integers (milliseconds) or timestamps",
        ),
        (
            ["--value", "document", "--header-column", "nope"],
            "--header-column: {path} has no column 'nope'",
        ),
        ([], "which column of document, customer, origin has the values? --value COLUMN"),
        (
            ["--value", "document", "-p", "0"],
            "--partition is for lines and ndjson, it does not go with format arrow (guessed",
        ),
        (["--value", "document", "-H", "a=1"], "--header-column does"),
        (["-K", ":"], "--key-separator is for lines, it does not go with"),
        (["--key-field", "x"], "--key-field is for ndjson"),
        (
            ["--format", "parquet", "--value", "document"],
            "{path}: cannot be read as a Parquet file",
        ),
    ],
)
def test_what_a_table_refuses(produce, read, pa, tmp_path, words, complaint):
    path = tmp_path / "orders.arrow"
    write(pa, orders(pa, 10), path, "file")
    said = produce(*words, path, status=2).stderr.decode()
    assert complaint.format(path=path) in said
    assert len(said.splitlines()) == 1
    read(0)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["--key-field", "a"],
            (
                "--key-field is for ndjson, it does not go with format lines (the default; --format"
                " NAME changes it)"
            ),
        ),
        (
            ["--format", "ndjson", "--delimiter", ";"],
            "--delimiter is for lines, it does not go with --format ndjson",
        ),
        (["--format", "ndjson", "--null-marker", ""], "--null-marker"),
        (["--format", "ndjson", "--value", "a"], "--value is for arrow and parquet"),
        (["--validate"], "--validate"),
        (["--format", "csv"], "csv"),
    ],
)
def test_options_of_another_format(produce, words, complaint):
    assert complaint in produce(*words, given=b"{}\n", status=2).stderr.decode()


def test_parquet_needs_a_file(produce, pa):
    assert (
        b"it is a pipe, and Parquet is read from its end; name the file"
        in produce("-f", "parquet", given=b"PAR1", status=2).stderr
    )


def test_nothing_is_sent_when_the_last_file_is_wrong(produce, read, pa, tmp_path):
    write(pa, pa.table({"v": [b"x"]}), tmp_path / "a.arrow", "file")
    write(pa, pa.table({"w": [1]}), tmp_path / "b.arrow", "stream")
    (tmp_path / "c.arrow").write_bytes(b"no table")
    assert (
        b"b.arrow has no column 'v'"
        in produce("--value", "v", tmp_path / "a.arrow", tmp_path / "b.arrow", status=2).stderr
    )
    assert (
        b"c.arrow: cannot be read as an Arrow file"
        in produce(tmp_path / "a.arrow", tmp_path / "c.arrow", status=2).stderr
    )
    read(0)


def test_files_of_several_formats(produce, read, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    (tmp_path / "b.txt").write_bytes(b"b\n")
    files = (tmp_path / "a.jsonl", tmp_path / "b.txt")
    assert b"a.jsonl seems to be ndjson, " in produce(*files, status=2).stderr
    produce("--format", "lines", *files)
    assert [value for _, value in pairs(read(2))] == [b"b", b"{}"]


# ---------------------------------------------------------------------- signals and memory


def test_ctrl_c_while_a_stream_goes_on(broker, topic, pa):
    """The reading ends, and what was sent is delivered."""
    command = [*COMMAND, topic, "-b", broker.bootstrap_servers, "-f", "arrow", "--json"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    batch = pa.record_batch({"v": [b"x"] * 10})  # so little that the broker can keep it all
    ended = threading.Event()

    def feed():
        with (
            contextlib.suppress(OSError),
            pa.ipc.new_stream(pa.PythonFile(process.stdin, "w"), batch.schema) as writer,
        ):
            while not ended.is_set():
                writer.write_batch(batch)
                time.sleep(0.002)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        broker.messages(topic, 1, timeout=PATIENCE)
        process.send_signal(signal.SIGINT)
        said, complained = process.stdout.read(), process.stderr.read().decode()
        assert process.wait(PATIENCE) == 130, complained
    finally:
        ended.set()
        process.kill()
        feeder.join()
        process.stdout.close()
        process.stderr.close()
        with contextlib.suppress(OSError):
            process.stdin.close()
    assert "Traceback" not in complained
    summary = json.loads(said)
    assert summary["interrupted"]
    assert summary["failed"] == 0
    assert summary["delivered"] == summary["records"] > 0


@pytest.mark.slow(5)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("form", ["stream", "file", "parquet"])
@pytest.mark.measures
def test_memory_does_not_grow_with_the_table(broker, topic, pa, tmp_path, form):
    """400 MB of 1 kB values; the twentieth part shows what pyarrow and Python take by
    themselves.
    """
    script = (
        "import sys; from kafka_ext import cli; status = cli.main(sys.argv[1:]); "
        + "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr);"
        " sys.exit(status)"
    )
    peaks = []
    for rows in (20_000, 400_000):
        path = tmp_path / f"{rows}.{'parquet' if form == 'parquet' else 'arrow'}"
        schema = pa.schema({"v": pa.binary()})
        with contextlib.ExitStack() as stack:
            if form == "parquet":
                import pyarrow.parquet

                writer = stack.enter_context(
                    pyarrow.parquet.ParquetWriter(
                        path, schema, use_dictionary=False, compression="none"
                    )
                )
            else:
                kind = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
                writer = stack.enter_context(kind(str(path), schema))
            for start in range(0, rows, 10_000):
                writer.write_table(
                    pa.table(
                        {"v": [b"%020d" % n + bytes(980) for n in range(start, start + 10_000)]},
                        schema=schema,
                    )
                )
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                script,
                "produce",
                topic,
                "-b",
                broker.bootstrap_servers,
                "--json",
                path,
            ],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert json.loads(done.stdout)["delivered"] == rows
        peaks.append(int(done.stderr.split()[-1]))
    assert peaks[1] - peaks[0] < 200_000  # kB: the queue and what pyarrow holds, not the table


def test_timestamps_with_a_zone_and_other_units(produce, read, pa, tmp_path):
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.timezone.utc)
    table = pa.table({"v": [b"x"], "t": pa.array([moment], pa.timestamp("us", "UTC"))})
    write(pa, table, tmp_path / "t.parquet", "parquet")
    produce("--timestamp-column", "t", tmp_path / "t.parquet")
    assert [message.timestamp for message in read(1)] == [int(moment.timestamp() * 1000)]
