"""A TLS listener for an EmbeddedBroker, which has none: for the recipe, and for tests."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from kafka_ext.testing import Certificate, EmbeddedBroker

if TYPE_CHECKING:
    from typing_extensions import Self


class TlsListener:
    """Takes TLS connections, and forwards what comes over them to the broker, and its answers back.

    Args:
        broker: of one broker only.
        certificate: what it shows to clients (kafka_ext.testing.CertificateAuthority.issue).
    """

    def __init__(self, broker: EmbeddedBroker, certificate: Certificate) -> None:
        host, port = broker.bootstrap_servers.split(":")
        self._broker = (host, int(port))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.certificate, certificate.key)
        self._listening = socket.create_server((host, 0))
        self._port = self._listening.getsockname()[1]
        self.bootstrap_servers = f"{host}:{self._port}"
        # How the broker names itself in its answers, and how clients are to find this
        # listener instead.
        self._name, self._own_name = (
            host.encode() + number.to_bytes(4, "big") for number in (int(port), self._port)
        )
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        # shutdown() wakes who waits in accept() or recv()
        for connection in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._open.add(connection)
            with (
                self._context.wrap_socket(connection, server_side=True) as client,
                socket.create_connection(self._broker) as broker,
            ):
                self._open |= {client, broker}
                answers = threading.Thread(target=self._forward, args=(broker, client))
                answers.start()
                self._forward(client, broker)
                answers.join()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data.replace(self._name, self._own_name))
        # One side has ended: end the other, so that its thread ends too.
        for connection in (source, target):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
