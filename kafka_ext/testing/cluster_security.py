"""TLS and SASL of a test cluster: its listeners, its certificates, and what brokers and clients must be configured with."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cluster_artifacts import KafkaInstallError, how_to_install, run_tool

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_CLIENT_CERTIFICATES = ("none", "requested", "required")
_MODULES = "org.apache.kafka.common.security"
_DAYS = 2
_NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
_UNSECURED = f"{_MODULES}.oauthbearer.internals.unsecured.OAuthBearerUnsecured"


@dataclass(frozen=True)
class Listener:
    """How clients may connect to the brokers of a KafkaCluster.

    Attributes:
        protocol: "PLAINTEXT", "SSL", "SASL_PLAINTEXT" or "SASL_SSL".
        mechanisms: for SASL, some of "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512" and "OAUTHBEARER" (whose tokens nobody
            signs: any is believed that has a subject and has not expired).
        client_certificate: for TLS, whether the broker asks for one: "none", "requested" or "required".

    Raises:
        ValueError: there is no such protocol, mechanism or word.
    """

    protocol: str = "PLAINTEXT"
    mechanisms: Sequence[str] = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
    client_certificate: str = "none"

    def __post_init__(self) -> None:
        if self.protocol not in _PROTOCOLS:
            raise ValueError(f"protocol must be one of {', '.join(_PROTOCOLS)}, not {self.protocol!r}")
        if isinstance(self.mechanisms, str) or not set(self.mechanisms) <= set(MECHANISMS) or not self.mechanisms:
            raise ValueError(f"mechanisms must be some of {', '.join(MECHANISMS)}, not {self.mechanisms!r}")
        if self.client_certificate not in _CLIENT_CERTIFICATES:
            raise ValueError(f"client_certificate must be one of {', '.join(_CLIENT_CERTIFICATES)}, not {self.client_certificate!r}")

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        """Whether clients authenticate by SASL."""
        return self.protocol.startswith("SASL")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, in PEM files.

    Attributes:
        certificate: the file with the certificate, and the authority's behind it.
        key: the file with its private key, not encrypted.
    """

    certificate: Path
    key: Path


class CertificateAuthority:
    """Makes certificates for tests, with the `openssl` program; they are valid for two days.

    Args:
        folder (Path): where the files go; it must exist.
        name (str): the authority's own name, and its files': letters, digits, hyphens.

    Attributes:
        certificate (Path): its own certificate, with which those it has made are checked; a PEM file.

    Raises:
        ValueError: the name has other characters.
        KafkaInstallError: there is no `openssl`, or it fails.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = _file_name(name)
        self.certificate = folder / f"{name}.pem"
        self._openssl(f"req -x509 {_NEW_KEY} -days {_DAYS} -subj /CN={name} -keyout {name}.key -out {name}.pem")

    def issue(self, name: str, hosts: Sequence[str] = ()) -> Certificate:
        """A certificate for `name` (its CN, and the name of its files), good for a server under these host names and IPv4 addresses."""
        _file_name(name)
        extensions = self._folder / f"{name}.ext"
        alternatives = ",".join(("IP:" if host.replace(".", "").isdigit() else "DNS:") + host for host in hosts)
        extensions.write_text(f"subjectAltName={alternatives}\n" if alternatives else "basicConstraints=CA:FALSE\n")
        self._openssl(f"req -new {_NEW_KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr")
        self._openssl(
            f"x509 -req -in {name}.csr -CA {self._name}.pem -CAkey {self._name}.key -CAcreateserial -days {_DAYS} "
            f"-extfile {name}.ext -out {name}.pem"
        )
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        made.certificate.write_text(made.certificate.read_text() + self.certificate.read_text())
        return made

    def _openssl(self, arguments: str) -> None:
        program = shutil.which("openssl")
        if program is None:
            raise KafkaInstallError(
                how_to_install("openssl is missing, which makes the certificates", "openssl", "OpenSSL's program, 1.1.1 or newer")
            )
        run_tool([program, *arguments.split()], f"openssl {arguments.split()[0]} failed", cwd=self._folder, timeout=60)


def _file_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
        raise ValueError(f"name must be of letters, digits and hyphens, not {name!r}")
    return name


class Certificates:
    """The certificates of a KafkaCluster: an authority, the brokers' for 127.0.0.1 and localhost, and a client's.

    Attributes:
        authority (CertificateAuthority): which makes more of them; its `certificate` is the file that clients check brokers with.
        server (Certificate): the brokers'.
        client (Certificate): one for clients, with the name "client".
    """

    def __init__(self, folder: Path) -> None:
        self.authority = CertificateAuthority(folder)
        self.server = self.authority.issue("server", ("127.0.0.1", "localhost"))
        self.client = self.authority.issue("client")
        # A key store of type PEM is one file with the key, as PKCS 8, and its certificates.
        self.key_store = folder / "server-store.pem"
        self.key_store.write_text(self.server.key.read_text() + self.server.certificate.read_text())


def _jaas(module: str, options: Mapping[str, str] | None = None) -> str:
    quoted = "".join(f' {name}="{_escaped(value)}"' for name, value in (options or {}).items())
    return f"{_MODULES}.{module} required{quoted};"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def broker_settings(name: str, listener: Listener, users: Mapping[str, str], certificates: Certificates | None) -> dict[str, str]:
    """What a broker must be configured with for this listener of its own."""
    prefix = f"listener.name.{name.lower()}"
    settings: dict[str, str] = {}
    if listener.tls:
        assert certificates is not None
        settings |= {
            f"{prefix}.ssl.keystore.type": "PEM",
            f"{prefix}.ssl.keystore.location": str(certificates.key_store),
            f"{prefix}.ssl.truststore.type": "PEM",
            f"{prefix}.ssl.truststore.location": str(certificates.authority.certificate),
            f"{prefix}.ssl.client.auth": listener.client_certificate,
        }
    if listener.sasl:
        settings[f"{prefix}.sasl.enabled.mechanisms"] = ",".join(listener.mechanisms)
        for mechanism in listener.mechanisms:
            of_mechanism = f"{prefix}.{mechanism.lower()}.sasl"
            if mechanism == "PLAIN":
                known = {f"user_{user}": password for user, password in users.items()}
                settings[f"{of_mechanism}.jaas.config"] = _jaas("plain.PlainLoginModule", known)
            elif mechanism == "OAUTHBEARER":
                own = {"unsecuredLoginStringClaim_sub": "broker"}
                settings[f"{of_mechanism}.jaas.config"] = _jaas("oauthbearer.OAuthBearerLoginModule", own)
                settings[f"{of_mechanism}.login.callback.handler.class"] = f"{_UNSECURED}LoginCallbackHandler"
                settings[f"{of_mechanism}.server.callback.handler.class"] = f"{_UNSECURED}ValidatorCallbackHandler"
            else:
                settings[f"{of_mechanism}.jaas.config"] = _jaas("scram.ScramLoginModule")
    return settings


def scram_users(listeners: Mapping[str, Listener], users: Mapping[str, str]) -> list[str]:
    """The arguments with which kafka.tools.StorageTool makes the users of the SCRAM mechanisms that some listener has."""
    used = {mechanism for listener in listeners.values() if listener.sasl for mechanism in listener.mechanisms}
    return [
        argument
        for mechanism in sorted(used)
        if mechanism.startswith("SCRAM")
        for user, password in users.items()
        for argument in ("--add-scram", f'{mechanism}=[name="{user}",password="{password}"]')
    ]


def client_settings(
    listener: Listener, mechanism: str | None, user: str | None, users: Mapping[str, str], certificates: Certificates | None
) -> dict[str, str]:
    """What a client must be configured with to connect to this listener, as this user."""
    settings: dict[str, str] = {}
    if listener.protocol != "PLAINTEXT":
        settings["security.protocol"] = listener.protocol
    if listener.tls:
        assert certificates is not None
        settings["ssl.ca.location"] = str(certificates.authority.certificate)
        if listener.client_certificate == "required":
            settings["ssl.certificate.location"] = str(certificates.client.certificate)
            settings["ssl.key.location"] = str(certificates.client.key)
    if listener.sasl:
        chosen = listener.mechanisms[0] if mechanism is None else mechanism
        if chosen not in listener.mechanisms:
            raise ValueError(f"mechanism: this listener has {', '.join(listener.mechanisms)}, not {chosen!r}")
        settings["sasl.mechanisms"] = chosen
        if chosen != "OAUTHBEARER":
            name = next(iter(users), None) if user is None else user
            if name not in users:
                raise ValueError(f"user: the cluster has {', '.join(users) or 'none'}, not {name!r}")
            settings["sasl.username"] = str(name)
            settings["sasl.password"] = users[str(name)]
    elif mechanism is not None or user is not None:
        raise ValueError(f"mechanism and user are for listeners with SASL, and this one is {listener.protocol}")
    return settings
