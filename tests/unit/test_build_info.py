"""What the extension says of how it was built."""

import re
from pathlib import Path

from kafka_ext import _rdkafka

PATCHES = Path(__file__).resolve().parents[2] / "wheels/patches"


def test_build_info_says_how_the_extension_was_made():
    built = _rdkafka.build_info()
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", built["librdkafka"])
    assert built["librdkafka"].startswith(built["librdkafka_headers"].partition("-")[0])
    assert built["linkage"] in ("bundled static", "system shared") or built["linkage"].endswith(
        " shared"
    )
    assert built["allocator"] == "system" or built["allocator"].startswith("mimalloc ")
    assert all(re.fullmatch(r"[a-z]+ \d+(\.\d+)+", library) for library in built["libraries"])
    ours = built["linkage"] == "bundled static"
    if PATCHES.is_dir() or not ours:
        assert built["patches"] == [
            path.stem.partition("-")[2] for path in sorted(PATCHES.glob("*.patch")) if ours
        ]
    assert bool(built["sources"]) == ours
    assert "snappy" in built["features"]
    assert built["features"] == sorted(built["features"])
    assert type(built["debug"]) is type(built["free_threaded"]) is bool
