"""A tool, photos and a time -> the tool's predictions, from a process of its own that cannot outlive its time."""

import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent / "transfer_peers"
PEERS = {
    "timm": "run_timm.py",
    "hf": "run_transformers.py",
    "fastai": "run_fastai.py",
    "autogluon": "run_autogluon.py",
    "lightly": "run_lightly_train.py",
    "scikit-learn": "run_scikit_learn.py",
}

OFFLINE = {"HF_HUB_OFFLINE": "1", "LIGHTLY_TRAIN_EVENTS_DISABLED": "1"}
"""Variables with which the tools ask nothing of a network."""


@dataclass(frozen=True)
class Bench:
    """Where and how a tool runs.

    Attributes:
        peer: Its name in `PEERS`.
        python: The Python of its environment.
        source: A checkout of the tool, for what its package does not contain; empty if it needs none.
        weights: Folder with the weights in the formats of `transfer_peers.write_weights`.
        folder: For temporary files, and the home folder of the processes, so that they find each other's caches.
    """

    peer: str
    python: str
    source: str
    weights: Path
    folder: Path

    def run(self, photos: Path, *, epochs: float, seconds: float, limit_s: float, seed: int) -> dict[str, Any]:
        """Run the tool in a process of its own and return its result and wall-clock time.

        Raises:
            subprocess.TimeoutExpired: It took longer than `limit_s`, and was ended.
            subprocess.CalledProcessError: It failed; `output` has the end of what it printed.
        """
        with tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as folder:
            out, log = Path(folder) / "out", Path(folder) / "log.txt"
            out.mkdir()
            job = {"photos": str(photos), "weights": str(self.weights), "out": str(out), "epochs": epochs,
                   "seconds": seconds, "seed": seed, "source": self.source}  # fmt: skip
            (Path(folder) / "job.json").write_text(json.dumps(job))
            command = [self.python, str(PROGRAMS / PEERS[self.peer]), str(Path(folder) / "job.json")]
            environment = os.environ | OFFLINE | {"HOME": str(self.folder)}
            for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
                environment.pop(name, None)
            began = time.perf_counter()
            with log.open("w") as written:
                process = subprocess.Popen(
                    command, stdout=written, stderr=subprocess.STDOUT, env=environment, start_new_session=True
                )
                try:
                    status = process.wait(limit_s)
                finally:  # workers of a data loader outlive an ended process, so its whole group is ended
                    _end_group(process)
            wall_s = time.perf_counter() - began
            if status or not (out / "result.json").is_file():
                raise subprocess.CalledProcessError(status, command, output=log.read_text(errors="replace")[-3000:])
            return json.loads((out / "result.json").read_text()) | {"wall_s": round(wall_s, 1)}


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
