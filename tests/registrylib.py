"""A schema registry for tests: the HTTP API of the real one, as far as producers use it, in a
thread of this process.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Registry(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.schemas = []  # (type, text, references), its id is its index + 1
        self.subjects = {}  # name -> ids, the version is the index + 1
        self.asked = []  # method and path of each request
        self.auth = None  # user and password, asked for
        self.failures = []  # (status, error_code, message) of the next answers
        self.refuse = None  # (status, error_code, message) of each registration

    def add(self, subject, kind, text, references=()):
        schema = (kind, text, json.dumps(list(references)))
        if schema not in self.schemas:
            self.schemas.append(schema)
        number = self.schemas.index(schema) + 1
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number

    def answer(self, method, path, document):
        """(status, document) of a request."""
        if self.failures:
            status, code, message = self.failures.pop(0)
            return status, {"error_code": code, "message": message}
        if found := re.fullmatch(r"/schemas/ids/(\d+)", path):
            if int(found[1]) > len(self.schemas):
                return 404, {"error_code": 40403, "message": "Schema not found"}
            kind, text, references = self.schemas[int(found[1]) - 1]
            return 200, {"schema": text, "schemaType": kind, "references": json.loads(references)}
        if found := re.fullmatch(r"/subjects/([^/]+)(/versions(/\w+)?)?", path):
            subject = unquote(found[1])
            if method == "GET" and subject not in self.subjects:
                return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
            if method == "GET":
                versions = self.subjects[subject]
                version = len(versions) if found[3] == "/latest" else int(found[3][1:])
                kind, text, references = self.schemas[versions[version - 1] - 1]
                return 200, {
                    "subject": subject, "id": versions[version - 1], "version": version, "schema": text, "schemaType": kind,
                    "references": json.loads(references),
                }  # fmt: skip
            kind, text = document.get("schemaType", "AVRO"), document["schema"]
            references = document.get("references", [])
            if kind == "AVRO" or kind == "JSON":
                json.loads(text)
            else:
                base64.standard_b64decode(text)
            if found[2] is None:  # is it there?
                schema = (kind, text, json.dumps(references))
                if subject not in self.subjects:
                    return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
                number = self.schemas.index(schema) + 1 if schema in self.schemas else 0
                if number not in self.subjects[subject]:
                    return 404, {"error_code": 40403, "message": "Schema not found"}
                return 200, {
                    "subject": subject,
                    "id": number,
                    "version": self.subjects[subject].index(number) + 1,
                    "schema": text,
                }
            if self.refuse:
                return self.refuse[0], {"error_code": self.refuse[1], "message": self.refuse[2]}
            return 200, {"id": self.add(subject, kind, text, references)}
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}


class _Handler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.serve()

    def do_POST(self):
        self.serve()

    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        with self.server.lock:
            self.server.asked.append(f"{self.command} {path}")
            if self.server.auth and self.headers.get("Authorization") != _basic(*self.server.auth):
                status, document = 401, {"error_code": 40101, "message": "Unauthorized"}
            else:
                status, document = self.server.answer(
                    self.command, path, json.loads(body) if body else None
                )
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def _basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@contextmanager
def running():
    server = Registry()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
