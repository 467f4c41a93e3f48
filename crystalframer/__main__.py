"""`python -m crystalframer` is the command `crystalframer`."""

import sys

from crystalframer.cli import main

if __name__ == "__main__":
    sys.exit(main())
