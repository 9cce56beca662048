"""`python -m vitreous` -> the command line."""

import sys

from vitreous.cli.main import main

sys.exit(main())
