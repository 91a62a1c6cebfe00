"""A Kafka broker that speaks TLS, and a token endpoint that does: what the tests of a wheel's
OpenSSL and curl talk to.

The embedded broker has no TLS. So a proxy takes TLS connections, and passes what it decrypts on to
the broker; in the broker's answers it puts its own port in the place of the broker's, so that
clients keep coming through it.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

HOST = "127.0.0.1"


class TlsServer:
    """Accepts TLS connections on a port of its own and serves each in a thread."""

    def __init__(self, context: ssl.SSLContext, serve: Callable[[ssl.SSLSocket], None]) -> None:
        self._context = context
        self._serve = serve
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.handshakes = 0
        self.refused: list[
            str
        ] = []  # what went wrong in the handshakes that failed, as OpenSSL says it
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._handshake, args=(connection,), daemon=True).start()

    def _handshake(self, connection: socket.socket) -> None:
        try:
            with self._context.wrap_socket(connection, server_side=True) as encrypted:
                self.handshakes += 1
                self._serve(encrypted)
        except (OSError, ssl.SSLError) as error:
            self.refused.append(str(error))

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = read(size - len(data))
        if not more:
            raise ConnectionError("the other side has gone")
        data += more
    return data


@contextmanager
def tls_broker(bootstrap_servers: str, context: ssl.SSLContext) -> Iterator[TlsServer]:
    """A TLS port in front of an embedded cluster of one broker."""
    host, _, port = bootstrap_servers.rpartition(":")
    name = host.encode()
    theirs = name + struct.pack(">i", int(port))

    def serve(client: ssl.SSLSocket) -> None:
        ours = name + struct.pack(">i", server.port)
        with socket.create_connection((host, int(port))) as broker:

            def requests() -> None:
                with suppress(OSError):
                    while data := client.recv(65536):
                        broker.sendall(data)
                with suppress(OSError):
                    broker.shutdown(socket.SHUT_RDWR)

            threading.Thread(target=requests, daemon=True).start()
            with suppress(OSError):
                while True:
                    size = _exactly(broker.recv, 4)
                    answer = _exactly(broker.recv, struct.unpack(">i", size)[0])
                    client.sendall(size + answer.replace(theirs, ours))

    server = TlsServer(context, serve)
    try:
        yield server
    finally:
        server.close()


class TokenEndpoint:
    """What an identity provider's token endpoint is to librdkafka: it answers each POST with a
    token that is valid for an hour.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        asked: list[str] = []
        self.asked = asked  # the bodies of the requests that came through TLS and HTTP

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                body = json.dumps(
                    {"access_token": _unsigned_token(), "token_type": "Bearer", "expires_in": 3600}
                ).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer((HOST, 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://{HOST}:{self._server.server_address[1]}/token"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _unsigned_token() -> str:
    import base64

    def part(content: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    now = int(time.time())
    return f"{part({'alg': 'none'})}.{part({'sub': 'kafka-ext', 'iat': now, 'exp': now + 3600})}."
