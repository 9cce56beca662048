"""`python -m vitreous` -> the command line."""

import sys

from vitreous.cli.main import main

if __name__ == "__main__":  # the processes that `--nproc` spawns import this file too
    sys.exit(main())
