"""A schema registry that means harm, or an address with a password: bounded answers, plain errors,
no credentials in them.
"""

from __future__ import annotations

import gzip
import json
import pickle
import threading
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("httpx")

from kafka_ext.registry import RegistryError, SchemaRegistry

PASSWORD = "hunter2-hunter2"


@contextmanager
def answering(body, *, status=200, headers=()):
    """The URL of a server that gives one answer to everything, without its scheme; and the paths
    that were asked for.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                pass  # it has read enough

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def error_of(body, call=lambda registry: registry.latest("s"), **answer):
    with answering(body, **answer) as (address, _):
        registry = SchemaRegistry(f"http://user:{PASSWORD}@{address}")
        try:
            with pytest.raises(RegistryError) as caught:
                call(registry)
        finally:
            registry.close()
    exc = caught.value
    assert PASSWORD not in "".join(traceback.format_exception(exc))
    assert exc.__context__ is None
    assert exc.__cause__ is None
    assert len(str(exc)) < 1000
    assert str(exc).isprintable()
    assert str(pickle.loads(pickle.dumps(exc))) == str(exc)
    return exc


@pytest.mark.found(33)
def test_credentials_of_a_url_are_used_and_not_shown():
    with answering(b'{"id": 1, "schema": "{}"}') as (address, asked):
        registry = SchemaRegistry(f"http://user:p%40{PASSWORD}@{address}/base?apikey=abcdef")
        assert PASSWORD not in repr(registry)
        assert "abcdef" not in repr(registry)
        registry = SchemaRegistry(f"http://user:p%40{PASSWORD}@{address}")
        assert registry.latest("s") == (1, "{}")
        again = pickle.loads(pickle.dumps(registry))
        assert again.latest("s") == (1, "{}")
        registry.close()
        again.close()
    authorizations = {authorization for _, authorization in asked}
    assert len(authorizations) == 1
    assert None not in authorizations


@pytest.mark.found(33)
@pytest.mark.parametrize("closed", [True, False])
def test_credentials_are_in_no_error(closed):
    if closed:
        registry = SchemaRegistry(f"http://user:{PASSWORD}@127.0.0.1:1")
        with pytest.raises(RegistryError, match="did not answer") as caught:
            registry.latest("s")
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__context__ is None
        registry.close()
        return
    echo = json.dumps({"error_code": 401, "message": f"user:{PASSWORD} is wrong"}).encode()
    assert error_of(echo, status=401).status == 401


@pytest.mark.found(33)
@pytest.mark.parametrize(
    "url",
    [
        f"ftp://user:{PASSWORD}@host",
        f"http://user:{PASSWORD}@",
        f"http://u:{PASSWORD}@h:port",
        "localhost:8081",
        "",
    ],
)
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="https://registry") as caught:
        SchemaRegistry(url)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.found(38)
@pytest.mark.parametrize("zipped", [True, False])
def test_an_answer_is_bounded(zipped):
    body = b'{"schema": "' + b" " * (64 << 20) + b'"}'
    headers = [("Content-Encoding", "gzip")] if zipped else []
    error = error_of(gzip.compress(body, 1) if zipped else body, headers=headers)
    assert ("compressed" if zipped else "16 MiB") in str(error)


@pytest.mark.found(38)
@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 10_000,
        b'{"id": "1", "schema": "{}"}',
        b'{"id": true, "schema": "{}"}',
        b'{"id": -1, "schema": "{}"}',
        b'{"id": 4294967296, "schema": "{}"}',
        b'{"id": 1, "schema": {}}',
        b'{"id": 1}',
        b'{"error_code": {}, "message": []}',
        json.dumps({"message": "x" * 1_000_000}).encode(),
        json.dumps({"message": "\x1b[2J\nline"}).encode(),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_odd_answers_are_registry_errors(body, status, monkeypatch):
    monkeypatch.setattr("kafka_ext.registry._FIRST_PAUSE", 0.0)
    error = error_of(body, status=status)
    assert error.status in (None, status)
    assert error.code is None


@pytest.mark.found(38)
@pytest.mark.parametrize(
    "schema", ["[" * 100_000, "{", "null", '{"type": "what"}', '{"type": "record"}', '"x"']
)
def test_a_newest_schema_that_is_none(schema):
    pytest.importorskip("fastavro")
    from kafka_ext.registry import AvroSerializer

    body = json.dumps({"id": 1, "schema": schema}).encode()
    error_of(body, lambda registry: AvroSerializer(registry).prepare("orders"))


@pytest.mark.found(38)
@pytest.mark.parametrize("subject", ["..", ".", "", "\ud800"])
def test_no_subject_asks_for_another_path(subject):
    with answering(b'{"id": 1}') as (address, asked):
        registry = SchemaRegistry(f"http://{address}")
        for call in (registry.register, registry.lookup):
            with pytest.raises(ValueError, match="subject"):
                call(subject, "{}")
        with pytest.raises(ValueError, match="subject"):
            registry.latest(subject)
        assert asked == []
        registry.register("../a/..", "{}")
        assert [path for path, _ in asked] == ["/subjects/..%2Fa%2F../versions"]
        registry.close()


@pytest.mark.found(38)
def test_credentials_over_plain_http_are_warned_of():
    for keywords in (
        {"auth": ("user", PASSWORD)},
        {"headers": {"Authorization": f"Bearer {PASSWORD}"}},
    ):
        with pytest.warns(UserWarning, match="plain http") as warned:
            SchemaRegistry("http://registry.example:8081", **keywords)
        assert PASSWORD not in str(warned[0].message)
        assert warned[0].filename == __file__
    with pytest.warns(UserWarning, match="plain http"):
        SchemaRegistry(f"http://user:{PASSWORD}@registry.example:8081")
    SchemaRegistry(f"https://user:{PASSWORD}@registry.example:8081")
    SchemaRegistry(f"http://user:{PASSWORD}@localhost:8081")
