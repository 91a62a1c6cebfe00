"""`kafka-ext info`: what is installed, for a bug report or to see what a build can do."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib import metadata
from typing import Any

from .. import __version__, _rdkafka
from ._display import out

_EPILOG = """\
examples:
  kafka-ext info
  kafka-ext info --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["librdkafka"]["version"])'
"""


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "info",
        help="versions, features, and how librdkafka is linked",
        description=(
            "Show the versions of kafka_ext, librdkafka and Python, what librdkafka was built with,"
            " and how it is linked."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="the same as a JSON object")
    parser.set_defaults(run=run)


def _rich_version() -> str | None:
    try:
        return metadata.version("rich")
    except metadata.PackageNotFoundError:
        return None


def collect() -> dict[str, Any]:
    built = _rdkafka.build_info()
    return {
        "kafka_ext": {
            "version": __version__,
            "extension": _rdkafka.__file__,
            "debug": built["debug"],
            "free_threaded": built["free_threaded"],
        },
        "librdkafka": {
            "version": built["librdkafka"],
            "compiled_against": built["librdkafka_headers"],
            "linkage": built["linkage"],
            "allocator": built["allocator"],
            "sources": built["sources"],
            "patches": built["patches"],
            "libraries": built["libraries"],
            "features": built["features"],
        },
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
            "platform": platform.platform(),
        },
        "rich": _rich_version(),
    }


def run(arguments: argparse.Namespace) -> int:
    found = collect()
    if arguments.json:
        out(json.dumps(found, indent=2))
        return 0
    ours, theirs, python = found["kafka_ext"], found["librdkafka"], found["python"]
    kinds = [
        name
        for name, is_so in (
            ("debug build", ours["debug"]),
            ("free-threaded", ours["free_threaded"]),
        )
        if is_so
    ]
    rows = (
        ("kafka_ext", f"{ours['version']}{' (' + ', '.join(kinds) + ')' if kinds else ''}"),
        ("extension", ours["extension"]),
        ("librdkafka", f"{theirs['version']} (compiled against {theirs['compiled_against']})"),
        ("linked", theirs["linkage"]),
        ("allocator", theirs["allocator"]),
        ("sources", theirs["sources"] or "this machine's"),
        ("patches", ", ".join(theirs["patches"]) or "none"),
        ("libraries", ", ".join(theirs["libraries"]) or "this machine's"),
        ("builtin.features", ", ".join(theirs["features"])),
        ("Python", f"{python['version']} ({python['implementation']}, {python['executable']})"),
        ("platform", python["platform"]),
        (
            "rich",
            found["rich"] or "not installed: progress is plain lines; pip install 'kafka-ext[cli]'",
        ),
    )
    out("\n".join(f"{name:<16}  {value}" for name, value in rows))
    return 0
