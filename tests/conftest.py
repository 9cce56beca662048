"""Before anything is imported -> one thread per test process, and a separate image cache.

pytest-xdist starts one process per core. Images that tests decode must not fill the cache of the user.
"""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["VITREOUS_CACHE"] = tempfile.mkdtemp(prefix="vitreous-cache-")
atexit.register(shutil.rmtree, os.environ["VITREOUS_CACHE"], ignore_errors=True)
