"""Before anything is imported -> one thread per test process, and separate caches of images and of weights.

pytest-xdist starts one process per core. Images that tests decode must not fill the cache of the user, weights that the
user has downloaded must not change what tests train, and no test reaches the hub.
"""

import atexit
import os
import shutil
import signal
import sys
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
for name in ("VITREOUS_CACHE", "HF_HOME"):
    os.environ[name] = tempfile.mkdtemp(prefix="vitreous-cache-")
    atexit.register(shutil.rmtree, os.environ[name], ignore_errors=True)
for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"):
    os.environ.pop(name, None)
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nothing listens there
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell started the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the programs that tests start can be interrupted
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # OpenVINO would report each import
