"""The certificates that kafka_ext.testing makes."""

import socket
import ssl
import sys
import threading

import pytest

from kafka_ext.testing import CertificateAuthority
from kafka_ext.testing.cluster_artifacts import KafkaInstallError


def test_a_client_and_a_server_believe_each_other(tmp_path):
    pytest.importorskip("trustme")
    authority = CertificateAuthority(tmp_path)
    server_files = authority.issue("server", ("127.0.0.1", "localhost"))
    client_files = authority.issue("client")
    server_context = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=authority.certificate
    )
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_cert_chain(server_files.certificate, server_files.key)
    client_context = ssl.create_default_context(cafile=authority.certificate)
    client_context.load_cert_chain(client_files.certificate, client_files.key)
    ours, theirs = socket.socketpair()
    met = []

    def serve():
        with server_context.wrap_socket(theirs, server_side=True) as connection:
            met.append(connection.getpeercert())
            connection.sendall(b"!")

    server = threading.Thread(target=serve)
    server.start()
    with client_context.wrap_socket(ours, server_hostname="127.0.0.1") as connection:
        assert connection.recv(1) == b"!"
    server.join()
    assert (("commonName", "client"),) in met[0]["subject"]
    # Apache Kafka reads no other form.
    assert client_files.key.read_text().startswith("-----BEGIN PRIVATE KEY-----")


def test_names_are_checked(tmp_path):
    pytest.importorskip("trustme")
    with pytest.raises(ValueError, match="letters, digits and hyphens"):
        CertificateAuthority(tmp_path, "../elsewhere")
    with pytest.raises(ValueError, match="letters, digits and hyphens"):
        CertificateAuthority(tmp_path).issue("a/b")


def test_without_trustme_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(KafkaInstallError, match=r"pip install 'kafka-ext\[testing\]'"):
        CertificateAuthority(tmp_path)
