"""What the extension says of how it was built."""

import re

from kafka_ext import _rdkafka


def test_build_info_says_how_the_extension_was_made():
    built = _rdkafka.build_info()
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", built["librdkafka"])
    assert built["librdkafka"].startswith(built["librdkafka_headers"].partition("-")[0])
    assert built["linkage"] in ("bundled static", "system shared") or built["linkage"].endswith(" shared")
    assert built["allocator"] == "system" or built["allocator"].startswith("mimalloc ")
    assert all(re.fullmatch(r"[a-z]+ \d+(\.\d+)+", library) for library in built["libraries"])
    assert built["patches"] == (["librdkafka-4953"] if built["linkage"] == "bundled static" else [])
    assert "snappy" in built["features"]
    assert built["features"] == sorted(built["features"])
    assert type(built["debug"]) is type(built["free_threaded"]) is bool
