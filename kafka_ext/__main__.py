"""`python -m kafka_ext`: the command line, without an entry point on the path."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
