#!/usr/bin/env python3
"""From the wheel that the build made to the one that is given away: checked, tagged, stripped, with a bill of materials.

    python wheels/repair.py dist/kafka_ext-….whl wheelhouse

auditwheel (delocate on macOS) finds out from which release of the C library on the wheel works and tags it so. Everything else is linked
in already: what either would have to copy in is a mistake, and refused. The bill of materials is a CycloneDX document in
`.dist-info/sboms/` (PEP 770), made from what wheels/librdkafka.py wrote down. Same input, same output, bit by bit.
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

# What librdkafka's sources hold of others; its LICENSES.txt, shipped as licenses/librdkafka.txt, has their terms.
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


def _licence(licence: str) -> dict[str, Any]:
    """SPDX's name for it, or a name of its own where SPDX has none."""
    return {"license": {"name" if " " in licence else "id": licence}}


def _component(part: dict[str, Any]) -> dict[str, Any]:
    name, version = part["name"], part["version"]
    reference = f"pkg:generic/{name}@{version}"
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "scope": "required",
        "licenses": [_licence(part["licence"])],
        "purl": reference,
        "cpe": f"cpe:2.3:a:{CPE[name]}:{version}:*:*:*:*:*:*:*",
        "externalReferences": [
            {
                "type": "source-distribution",
                "url": part["url"],
                "comment": f"compiled from: {part['origin']}",
                "hashes": [{"alg": "SHA-256", "content": part["sha256"]}],
            }
        ],
    }
    if name == "librdkafka":
        found["components"] = [
            {"type": "library", "bom-ref": f"{reference}#{part}", "name": part, "licenses": [_licence(licence)]}
            for part, licence in INSIDE_LIBRDKAFKA.items()
        ]
    return found


def bill_of_materials(version: str, components: list[dict[str, Any]]) -> dict[str, Any]:
    """A CycloneDX 1.6 document of the package and of all that is linked into it."""
    package = f"pkg:pypi/kafka-ext@{version}"
    parts = [_component(part) for part in components]
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": package,
                "name": "kafka-ext",
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "purl": package,
            }
        },
        "components": parts,
        "dependencies": [
            {"ref": package, "dependsOn": [part["bom-ref"] for part in parts]},
            *({"ref": part["bom-ref"], "dependsOn": []} for part in parts),
        ],
    }
    # One name for the same contents: no clock and no chance in what is built.
    return {**bill, "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bill))}"}


def made_of(prefix: Path) -> list[dict[str, Any]]:
    info = prefix / "build-info.json"
    if not info.is_file():
        raise BuildError(f"{prefix} was not made by wheels/librdkafka.py")
    known = json.loads(info.read_text(encoding="utf-8"))
    if not known["archives"]:
        raise BuildError(f"{prefix} needs the machine's OpenSSL, curl, zstd and zlib; a wheel is built with KAFKA_EXT_LIBRARIES=pinned")
    components: list[dict[str, Any]] = known["components"]
    for part in components:
        if not part["pinned"]:
            raise BuildError(f"{part['name']} is of {part['origin']}, and not the pinned release: nothing else may be in a wheel")
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
        grafted = [path.name for path in (*contents.glob("*.libs/*"), *contents.glob("kafka_ext/.dylibs/*"))]
        if grafted:
            raise BuildError(f"{wheel.name} needs {', '.join(grafted)} of this machine, and all it needs should be linked in")
        if sys.platform == "linux":
            # Some interpreters have their own folder written into all that is linked for them.
            for extension in contents.glob("kafka_ext/*.so"):
                run(["patchelf", "--remove-rpath", extension])
        (metadata,) = contents.glob("*.dist-info")
        version = metadata.name.removesuffix(".dist-info").rpartition("-")[2]
        sboms = metadata / "sboms"
        sboms.mkdir(exist_ok=True)
        text = json.dumps(bill_of_materials(version, components), indent=2, ensure_ascii=False)
        (sboms / "kafka_ext.cdx.json").write_text(text + "\n", encoding="utf-8")
        into.mkdir(parents=True, exist_ok=True)
        run([sys.executable, "-m", "wheel", "pack", "--dest-dir", into, contents])
        return into / repaired.name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="what the build made")
    parser.add_argument("into", type=Path, help="the folder for the repaired one")
    parser.add_argument("--archs", default="", help="for macOS: the architectures it must have, as delocate spells them")
    parser.add_argument("--prefix", type=Path, help="the librdkafka it was built with; else the one these settings build")
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
