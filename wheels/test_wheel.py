"""What each wheel must pass before anybody gets it, with the wheel installed and nothing else of
this checkout in reach:

    cd /anywhere && pytest /checkout/wheels/test_wheel.py

`make wheel`, cibuildwheel and the workflow all run this. What it needs beside the wheel is in the
extra `wheel-test`. A test that cannot be done on a machine is skipped and says why; with
KAFKA_EXT_WHEEL_TESTS=all (`make wheel`) it fails instead.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import kafka_ext
from kafka_ext import KafkaProducer, ProducerRecord, _rdkafka
from kafka_ext.testing import EmbeddedBroker

HERE = Path(__file__).resolve().parent
EXTENSION = Path(_rdkafka.__file__)
DISTRIBUTION = metadata.distribution("kafka-ext")

FEATURES = {
    "ssl",
    "sasl_plain",
    "sasl_scram",
    "sasl_oauthbearer",
    "oidc",
    "gzip",
    "snappy",
    "lz4",
    "zstd",
}
BUNDLED = {"librdkafka", "openssl", "curl", "zstd", "zlib"} | (
    {"mimalloc"} if sys.platform == "linux" else set()
)
# What is part of every system a wheel may be installed on; the tag says from which release on.
SYSTEM = re.compile(r"(lib(c|m|dl|rt|pthread)\.so|libc\.musl-|ld-(linux|musl)-)")


def cannot(reason: str) -> None:
    if os.environ.get("KAFKA_EXT_WHEEL_TESTS") == "all":
        pytest.fail(f"cannot be tested here: {reason}")
    pytest.skip(reason)


def run_python(
    program: str,
    *arguments: str,
    wrapper: tuple[str, ...] = (),
    timeout: float = 120,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run a program under this interpreter, in a folder that has nothing to import."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("SSL_CERT_FILE", "SSL_CERT_DIR")
    }
    return subprocess.run(
        [*wrapper, sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**inherited, **variables},
        cwd="/",
    )


# --- what is in it ---


def test_it_is_the_installed_wheel_that_is_tested():
    assert "site-packages" in EXTENSION.parts
    assert Path(kafka_ext.__file__).parent == EXTENSION.parent != HERE.parent / "kafka_ext"
    assert DISTRIBUTION.version == kafka_ext.__version__


def test_nothing_is_exported_but_what_python_looks_for():
    """Else another module's OpenSSL or librdkafka could be called in the place of ours, or ours in
    the place of theirs.
    """
    assert exported() == {"PyInit__rdkafka"}


def exported() -> set[str]:
    if sys.platform == "darwin":
        listed = subprocess.run(
            ["nm", "-gU", EXTENSION], capture_output=True, text=True, check=True
        ).stdout
        return {line.split()[-1].removeprefix("_") for line in listed.splitlines() if line}
    elffile = pytest.importorskip("elftools.elf.elffile")
    with EXTENSION.open("rb") as file:
        table = elffile.ELFFile(file).get_section_by_name(".dynsym")
        defined = (
            symbol for symbol in table.iter_symbols() if symbol.entry.st_shndx != "SHN_UNDEF"
        )
        return {symbol.name for symbol in defined if symbol.entry.st_info.bind != "STB_LOCAL"}


@pytest.mark.skipif(sys.platform != "linux", reason="delocate has looked at that")
def test_it_needs_nothing_but_the_c_library():
    elffile = pytest.importorskip("elftools.elf.elffile")
    with EXTENSION.open("rb") as file:
        elf = elffile.ELFFile(file)
        tags = list(elf.get_section_by_name(".dynamic").iter_tags())
        assert [
            tag.needed
            for tag in tags
            if tag.entry.d_tag == "DT_NEEDED" and not SYSTEM.match(tag.needed)
        ] == []
        assert [tag for tag in tags if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH")] == []
        # Stripped: neither symbols nor what a debugger reads.
        assert [
            section.name
            for section in elf.iter_sections()
            if section.name == ".symtab" or section.name.startswith(".debug")
        ] == []


def test_it_is_small():
    assert EXTENSION.stat().st_size < 10_000_000


def test_only_what_is_used_is_shipped():
    names = [str(file) for file in DISTRIBUTION.files or ()]
    assert [name for name in names if name.endswith((".c", ".pyx", ".a")) or "/core/" in name] == []
    for needed in (
        "kafka_ext/py.typed",
        "kafka_ext/_rdkafka.pyi",
        "kafka_ext/include/librdkafka.pxd",
    ):
        assert needed in names


def test_the_licences_of_everything_bundled_are_inside():
    licences = {
        path.stem: path.read_text(encoding="utf-8")
        for path in (EXTENSION.parent / "licenses").iterdir()
    }
    assert set(licences) == BUNDLED
    for name, sentence in {
        "librdkafka": "Magnus Edenhill",
        "openssl": "Apache License",
        "curl": "Daniel Stenberg",
        "zstd": "Meta Platforms",
        "zlib": "Jean-loup Gailly",
    }.items():
        assert sentence in licences[name]
    assert any(
        str(file).endswith("LICENSE") and ".dist-info" in str(file)
        for file in DISTRIBUTION.files or ()
    )


def bill_of_materials() -> dict:
    (path,) = (
        file
        for file in DISTRIBUTION.files or ()
        if file.parent.name == "sboms" and file.name.startswith("kafka_ext.")
    )
    assert path.parent.parent.name.endswith(".dist-info")
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_bill_of_materials_is_of_its_schema():
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    assert bill_of_materials()["bomFormat"] == "CycloneDX"
    text = json.dumps(bill_of_materials())
    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_bill_of_materials_says_what_is_linked_in():
    bill = bill_of_materials()
    assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/kafka-ext@{kafka_ext.__version__}"
    components = {component["name"]: component for component in bill["components"]}
    assert set(components) == BUNDLED
    built = _rdkafka.build_info()
    assert components["librdkafka"]["version"] == built["librdkafka"]
    linked = [name.split() for name in built["libraries"]]
    if "mimalloc" in components:
        linked.append(built["allocator"].split())
    assert {
        name: component["version"] for name, component in components.items() if name != "librdkafka"
    } == dict(linked)
    (depends,) = (
        entry
        for entry in bill["dependencies"]
        if entry["ref"] == bill["metadata"]["component"]["bom-ref"]
    )
    assert set(depends["dependsOn"]) == {component["bom-ref"] for component in bill["components"]}
    for component in bill["components"]:
        assert component["licenses"]
        (source,) = component["externalReferences"]
        assert re.fullmatch(r"[0-9a-f]{64}", source["hashes"][0]["content"])


# --- what it can do ---


def test_every_feature_is_built_in():
    built = _rdkafka.build_info()
    assert set(built["features"]) >= FEATURES
    assert (built["linkage"], built["debug"]) == ("bundled static", False)
    assert built["allocator"].startswith("mimalloc" if sys.platform == "linux" else "system")


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_compresses(codec):
    value = b"the same again and again; " * 4000
    with EmbeddedBroker(topics={"codecs": 1}) as broker:
        with KafkaProducer(
            bootstrap_servers=broker.bootstrap_servers, compression_type=codec
        ) as producer:
            producer.sync_send(ProducerRecord("codecs", value))
        assert [message.value for message in broker.messages("codecs")] == [value]


@pytest.mark.parametrize(
    "mechanism",
    [
        {"sasl.mechanism": "PLAIN"},
        {"sasl.mechanism": "SCRAM-SHA-256"},
        {"sasl.mechanism": "SCRAM-SHA-512"},
        {"sasl.mechanism": "OAUTHBEARER", "enable.sasl.oauthbearer.unsecure.jwt": True},
        {
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": "me",
            "sasl.oauthbearer.client.secret": "secret",
            "sasl.oauthbearer.token.endpoint.url": "https://127.0.0.1:9/token",
        },
    ],
    ids=["plain", "scram-sha-256", "scram-sha-512", "oauthbearer", "oidc"],
)
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_every_mechanism_is_there(mechanism, protocol):
    """librdkafka refuses one that it was not built with when the producer is made."""
    user = (
        {}
        if mechanism["sasl.mechanism"] == "OAUTHBEARER"
        else {"sasl.username": "me", "sasl.password": "secret"}
    )
    KafkaProducer(
        {"bootstrap.servers": "127.0.0.1:9", "security.protocol": protocol, **user, **mechanism}
    ).close(timeout=0)


def test_a_mechanism_that_is_not_there_is_refused():
    """So that the test above means something."""
    with pytest.raises(kafka_ext.KafkaException, match="GSSAPI"):
        KafkaProducer(
            {
                "bootstrap.servers": "127.0.0.1:9",
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "GSSAPI",
            }
        )


def test_the_command_line_works():
    program = Path(sys.executable).parent / "kafka-ext"
    done = subprocess.run(
        [program, "info", "--json"], capture_output=True, text=True, check=True, cwd="/"
    )
    assert json.loads(done.stdout)["librdkafka"]["libraries"] == _rdkafka.build_info()["libraries"]


# --- TLS ---


@pytest.fixture(scope="module")
def authority():
    return pytest.importorskip("trustme").CA()


@pytest.fixture(scope="module")
def server_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def secure(server_context):
    from tls_broker import tls_broker

    with (
        EmbeddedBroker(topics={"secure": 1}) as broker,
        tls_broker(broker.bootstrap_servers, server_context) as server,
    ):
        server.embedded = broker
        yield server


@pytest.fixture
def certificates(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


SEND = """
import sys
from kafka_ext import KafkaProducer, ProducerRecord

port, value, *settings = sys.argv[1:]
extra = dict(setting.split("=", 1) for setting in settings)
with KafkaProducer({"bootstrap.servers": f"127.0.0.1:{port}", "security.protocol": "ssl", "message.timeout.ms": 8000, **extra}) as producer:
    producer.sync_send(ProducerRecord("secure", value.encode()))
"""


def arrived(secure, value):
    return value.encode() in [message.value for message in secure.embedded.messages("secure")]


def test_it_sends_through_tls(secure, certificates, request):
    done = run_python(SEND, str(secure.port), request.node.name, f"ssl.ca.location={certificates}")
    assert done.returncode == 0, done.stderr
    assert arrived(secure, request.node.name)


def test_an_authority_that_is_not_trusted_is_refused(secure, request):
    done = run_python(SEND, str(secure.port), request.node.name)
    assert done.returncode != 0
    assert "timed out" in done.stderr.lower(), done.stderr
    assert not arrived(secure, request.node.name)
    assert any("unknown ca" in refusal for refusal in secure.refused), secure.refused


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_the_variables_openssl_heeds_are_heeded(secure, certificates, variable, request):
    where = certificates
    if variable == "SSL_CERT_DIR":
        # A folder is looked up by a hash of the subject's name, as `openssl rehash` lays it out.
        if shutil.which("openssl") is None:
            cannot(
                "there is no openssl command to say by what name it would look for the certificate"
            )
        asked = ["openssl", "x509", "-noout", "-subject_hash", "-in", str(certificates)]
        name = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        shutil.copy(certificates, certificates.parent / f"{name}.0")
        where = certificates.parent
    done = run_python(SEND, str(secure.port), request.node.name, **{variable: str(where)})
    assert done.returncode == 0, done.stderr
    assert arrived(secure, request.node.name)


# The places where distributions keep the authorities they trust, and nowhere else.
LAYOUTS = {
    "Debian": "/etc/ssl/certs/ca-certificates.crt",
    "Fedora": "/etc/pki/tls/certs/ca-bundle.crt",
    "Fedora without its old link": "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "Alpine": "/etc/ssl/cert.pem",
    "openSUSE": "/etc/ssl/ca-bundle.pem",
}

# In a mount namespace of its own: an /etc that is a copy of this one, but for the authorities.
FAKED = r"""
set -eu
etc=$1; bundle=$2; place=$3; shift 3
cp -a /etc/. "$etc" 2> /dev/null || true
rm -rf "$etc/ssl" "$etc/pki"
mkdir -p "$etc$(dirname "${place#/etc}")"
cp "$bundle" "$etc${place#/etc}"
mount --bind "$etc" /etc
exec "$@"
"""


@pytest.fixture(params=LAYOUTS, ids=lambda name: name.replace(" ", "-"))
def faked_root(request, certificates, tmp_path):
    """A command before another that runs it on a machine laid out as that distribution does."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        cannot("faking another distribution takes Linux's unshare")
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        cannot("this machine does not let us have a mount namespace")
    etc = tmp_path / "etc"
    etc.mkdir()
    return (
        "unshare",
        "-rm",
        "sh",
        "-c",
        FAKED,
        "faked",
        str(etc),
        str(certificates),
        LAYOUTS[request.param],
    )


def test_tls_certificates_are_found(faked_root, secure, request):
    done = run_python(SEND, str(secure.port), request.node.name, wrapper=faked_root)
    assert done.returncode == 0, done.stderr
    assert arrived(secure, request.node.name)


OIDC = """
import sys, time
from kafka_ext import KafkaProducer

url, seconds = sys.argv[1:]
failures = []
settings = {
    "bootstrap.servers": "127.0.0.1:9", "security.protocol": "sasl_plaintext",
    "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc",
    "sasl.oauthbearer.client.id": "me", "sasl.oauthbearer.client.secret": "secret", "sasl.oauthbearer.token.endpoint.url": url,
    "error_cb": lambda error: failures.append(str(error)),
}
producer = KafkaProducer(settings)
deadline = time.monotonic() + float(seconds)
while time.monotonic() < deadline and not any("token" in failure.lower() for failure in failures):
    time.sleep(0.05)
producer.close(timeout=0)
print(failures)
"""


def test_certificates_are_found_for_https_too(faked_root, server_context):
    """OIDC's token endpoint: curl, with the same OpenSSL, looks for itself."""
    from tls_broker import TokenEndpoint

    endpoint = TokenEndpoint(server_context)
    try:
        done = run_python(OIDC, endpoint.url, "2", wrapper=faked_root)
        assert done.returncode == 0, done.stderr
        assert "token" not in done.stdout.lower(), done.stdout
        assert any("grant_type=client_credentials" in body for body in endpoint.asked)
    finally:
        endpoint.close()


def test_a_token_endpoint_that_is_not_trusted_is_refused(server_context):
    from tls_broker import TokenEndpoint

    endpoint = TokenEndpoint(server_context)
    try:
        done = run_python(OIDC, endpoint.url, "20")
        assert "token" in done.stdout.lower(), (done.stdout, done.stderr)
        assert endpoint.asked == []
    finally:
        endpoint.close()


# --- beside others ---

# Each brings an OpenSSL of its own, or links one, and confluent_kafka a librdkafka.
NEIGHBOURS = ("confluent_kafka", "ssl", "psycopg", "pyarrow")

TOGETHER = """
import importlib, itertools, os, sys, warnings

port, certificates, *modules = sys.argv[1:]


def go(order):
    for name in order:
        importlib.import_module(name)
    from kafka_ext import KafkaProducer, ProducerRecord, _rdkafka

    tls = {"bootstrap.servers": f"127.0.0.1:{port}", "security.protocol": "ssl", "ssl.ca.location": certificates}
    with KafkaProducer(tls, enable_idempotence=False) as producer:
        producer.sync_send(ProducerRecord("secure", " ".join(order).encode()))
    if "confluent_kafka" in order:
        confluent_kafka = sys.modules["confluent_kafka"]
        theirs = confluent_kafka.Producer(tls)
        theirs.produce("secure", b"theirs: " + " ".join(order).encode())
        assert theirs.flush(20) == 0
    if "ssl" in order:
        ssl = sys.modules["ssl"]
        context = ssl.create_default_context(cafile=certificates)
        import socket
        with socket.create_connection(("127.0.0.1", int(port))) as raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as encrypted:
            assert encrypted.version().startswith("TLS")
    if "psycopg" in order:
        psycopg = sys.modules["psycopg"]
        try:  # its OpenSSL in use: our port speaks TLS at once, which libpq's direct negotiation does too
            psycopg.connect(f"host=127.0.0.1 port={port} sslmode=require connect_timeout=2", sslnegotiation="direct")
        except (psycopg.OperationalError, psycopg.ProgrammingError):
            pass
        assert psycopg.pq.version() > 0
    if "pyarrow" in order:
        assert sys.modules["pyarrow"].array([1, 2, 3]).sum().as_py() == 6


# A child for each order: it starts with none of them loaded, and sooner than a new interpreter.
assert not set(modules) & set(sys.modules)
orders = list(itertools.permutations(modules))
running, failed = {}, []


def wait():
    pid, status = os.wait()
    order = running.pop(pid)
    if status:
        failed.append((order, os.waitstatus_to_exitcode(status)))


for order in orders:
    if len(running) >= 4 * (os.cpu_count() or 1):  # they wait more than they compute
        wait()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            go(order)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        # As a program ends: what the modules have registered to be done at exit is part of getting along.
        sys.exit(0)
    running[pid] = order
while running:
    wait()
assert not failed, failed
print(len(orders), "orders")
"""


@pytest.mark.timeout(900)  # half a minute, but on a machine that others use it is 120 programs
def test_it_gets_along_with_whoever_else_brings_openssl_or_librdkafka(secure, certificates):
    """In every order of being imported: each is then used, ours and confluent_kafka's librdkafka
    through TLS.
    """
    there = [name for name in NEIGHBOURS if importlib.util.find_spec(name)]
    if len(there) < len(NEIGHBOURS):
        cannot(f"not installed: {', '.join(sorted(set(NEIGHBOURS) - set(there)))}")
    modules = ["kafka_ext._rdkafka", *there]
    before = len(secure.embedded.messages("secure"))
    done = run_python(TOGETHER, str(secure.port), str(certificates), *modules, timeout=850)
    assert done.returncode == 0, done.stderr[-5000:]
    orders = len(list(itertools.permutations(modules)))
    assert done.stdout.strip() == f"{orders} orders"
    assert len(secure.embedded.messages("secure")) - before == 2 * orders
