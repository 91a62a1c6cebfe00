"""TLS and SASL of a test cluster: its listeners, its certificates, and what brokers and clients
must be configured with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cluster_artifacts import KafkaInstallError

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_CLIENT_CERTIFICATES = ("none", "requested", "required")
_MODULES = "org.apache.kafka.common.security"
_UNSECURED = f"{_MODULES}.oauthbearer.internals.unsecured.OAuthBearerUnsecured"


@dataclass(frozen=True)
class Listener:
    """How clients may connect to the brokers of a KafkaCluster.

    Attributes:
        protocol: "PLAINTEXT", "SSL", "SASL_PLAINTEXT" or "SASL_SSL".
        mechanisms: for SASL, some of "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512" and "OAUTHBEARER"
            (whose tokens nobody signs: any is believed that has a subject and has not expired).
        client_certificate: for TLS, whether the broker asks for one: "none", "requested" or
            "required".

    Raises:
        ValueError: there is no such protocol, mechanism or word.
    """

    protocol: str = "PLAINTEXT"
    mechanisms: Sequence[str] = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
    client_certificate: str = "none"

    def __post_init__(self) -> None:
        if self.protocol not in _PROTOCOLS:
            raise ValueError(
                f"protocol must be one of {', '.join(_PROTOCOLS)}, not {self.protocol!r}"
            )
        if (
            isinstance(self.mechanisms, str)
            or not set(self.mechanisms) <= set(MECHANISMS)
            or not self.mechanisms
        ):
            raise ValueError(
                f"mechanisms must be some of {', '.join(MECHANISMS)}, not {self.mechanisms!r}"
            )
        if self.client_certificate not in _CLIENT_CERTIFICATES:
            raise ValueError(
                f"client_certificate must be one of {', '.join(_CLIENT_CERTIFICATES)}, not"
                f" {self.client_certificate!r}"
            )

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
    """Makes certificates for tests, with the package `trustme` (the extra `kafka-ext[testing]`).

    Args:
        folder (Path): where the files go; it must exist.
        name (str): the authority's own name, and its files': letters, digits, hyphens.

    Attributes:
        certificate (Path): its own certificate, with which those it has made are checked; a PEM
            file.

    Raises:
        ValueError: the name has other characters.
        KafkaInstallError: trustme is not installed.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        try:
            import trustme
        except ImportError:
            missing = "trustme is missing, which makes the certificates"
            raise KafkaInstallError(
                f"{missing}; install it: python -m pip install 'kafka-ext[testing]'"
            ) from None
        self._folder = folder
        self._authority = trustme.CA(organization_unit_name=_file_name(name))
        self.certificate = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(self.certificate))

    def issue(self, name: str, hosts: Sequence[str] = ()) -> Certificate:
        """A certificate for `name` (its CN, and the name of its files).

        It is good for a server under these host names and IP addresses, and for a client.
        """
        issued = self._authority.issue_cert(*(hosts or (name,)), common_name=_file_name(name))
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        chain = (*issued.cert_chain_pems, self._authority.cert_pem)
        made.certificate.write_bytes(b"".join(pem.bytes() for pem in chain))
        made.key.write_bytes(_pkcs8(issued.private_key_pem.bytes()))
        return made


def _pkcs8(key: bytes) -> bytes:
    """The key as Java reads it."""
    from cryptography.hazmat.primitives import serialization  # trustme needs it too

    private = serialization.load_pem_private_key(key, password=None)
    form = serialization.PrivateFormat.PKCS8
    return private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _file_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
        raise ValueError(f"name must be of letters, digits and hyphens, not {name!r}")
    return name


class Certificates:
    """The certificates of a KafkaCluster: an authority, the brokers' for 127.0.0.1 and localhost,
    and a client's.

    Attributes:
        authority (CertificateAuthority): which makes more of them; its `certificate` is the file
            that clients check brokers with.
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


def broker_settings(
    name: str, listener: Listener, users: Mapping[str, str], certificates: Certificates | None
) -> dict[str, str]:
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
            # A client's principal is its CN alone, without what trustme says of itself.
            f"{prefix}.ssl.principal.mapping.rules": "RULE:^(CN=[^,]*).*$/$1/",
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
                settings[f"{of_mechanism}.jaas.config"] = _jaas(
                    "oauthbearer.OAuthBearerLoginModule", own
                )
                settings[f"{of_mechanism}.login.callback.handler.class"] = (
                    f"{_UNSECURED}LoginCallbackHandler"
                )
                settings[f"{of_mechanism}.server.callback.handler.class"] = (
                    f"{_UNSECURED}ValidatorCallbackHandler"
                )
            else:
                settings[f"{of_mechanism}.jaas.config"] = _jaas("scram.ScramLoginModule")
    return settings


def scram_users(listeners: Mapping[str, Listener], users: Mapping[str, str]) -> list[str]:
    """The arguments with which kafka.tools.StorageTool makes the users of the SCRAM mechanisms that
    some listener has.
    """
    used = {
        mechanism
        for listener in listeners.values()
        if listener.sasl
        for mechanism in listener.mechanisms
    }
    return [
        argument
        for mechanism in sorted(used)
        if mechanism.startswith("SCRAM")
        for user, password in users.items()
        for argument in ("--add-scram", f'{mechanism}=[name="{user}",password="{password}"]')
    ]


def client_settings(
    listener: Listener,
    mechanism: str | None,
    user: str | None,
    users: Mapping[str, str],
    certificates: Certificates | None,
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
            raise ValueError(
                f"mechanism: this listener has {', '.join(listener.mechanisms)}, not {chosen!r}"
            )
        settings["sasl.mechanisms"] = chosen
        if chosen != "OAUTHBEARER":
            name = next(iter(users), None) if user is None else user
            if name not in users:
                raise ValueError(
                    f"user: the cluster has {', '.join(users) or 'none'}, not {name!r}"
                )
            settings["sasl.username"] = str(name)
            settings["sasl.password"] = users[str(name)]
    elif mechanism is not None or user is not None:
        raise ValueError(
            f"mechanism and user are for listeners with SASL, and this one is {listener.protocol}"
        )
    return settings
