"""What an extra of the installed kafka-ext asks for, one requirement a line, for `pip install -r`.

pip itself would build the extension again for each extra that it adds to an editable install.

    python wheels/extra.py test > requirements.txt
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires


def requirements(extra: str) -> list[str]:
    """The requirements of one extra, with whatever other condition they stand under."""
    condition = re.compile(rf"(.*?)(?: and|;) extra == ([\"']){re.escape(extra)}\2")
    found = [condition.fullmatch(line) for line in requires("kafka-ext") or ()]
    return [match[1] for match in found if match]


if __name__ == "__main__":
    lines = requirements(sys.argv[1])
    if not lines:
        sys.exit(f"kafka-ext has no extra {sys.argv[1]!r}")
    print(*lines, sep="\n")
