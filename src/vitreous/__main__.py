"""`python -m vitreous` -> the command line."""

import sys

from vitreous.cli.main import main

if __name__ == "__main__":  # processes that `--nproc` starts import this file too
    sys.exit(main())
