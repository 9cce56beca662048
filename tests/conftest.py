"""Before anything is imported -> one thread a test process, and a cache of its own.

pytest-xdist runs as many processes as there are cores; what tests decode is none of the user's cache.
"""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["VITREOUS_CACHE"] = tempfile.mkdtemp(prefix="vitreous-cache-")
atexit.register(shutil.rmtree, os.environ["VITREOUS_CACHE"], ignore_errors=True)
