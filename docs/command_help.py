"""The directive `command-help`: what `kafka-ext COMMAND --help` prints, so that the page cannot say
anything else.
"""

from __future__ import annotations

import os
import subprocess
import sys

from docutils import nodes
from docutils.parsers.rst import Directive


class CommandHelp(Directive):
    """Its argument is the command."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        # In a process of its own: argparse looks at the terminal, and the command may end the
        # interpreter.
        main = "import sys; from kafka_ext.cli import main; sys.exit(main())"
        environment = {**os.environ, "COLUMNS": "88", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
        shown = subprocess.run(
            [sys.executable, "-c", main, self.arguments[0], "--help"],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        if shown.returncode:
            raise self.error(
                f"kafka-ext {self.arguments[0]} --help ended with {shown.returncode}:"
                f" {shown.stderr}"
            )
        block = nodes.literal_block(
            shown.stdout, shown.stdout.replace("usage: -c", "usage: kafka-ext")
        )
        block["language"] = "text"
        block["classes"].append("terminal")
        return [block]
