import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError, install_import_hook

rooms = ["objective", "optim", "training.fit.evaluate", "training.step.train_step", "training.step.state"]
with install_import_hook([f"vitreous.{room}" for room in rooms], "beartype.beartype"):
    from vitreous.objective.cross_entropy import CrossEntropy
    from vitreous.training.request import TrainRequest
    from vitreous.training.start import run_training

values = {
    "data.img_size": "8x12", "data.batch_size": 16, "model.patch_size": 4, "model.embed_dim": 16, "model.depth": 1,
    "model.num_heads": 2, "train.epochs": 0.1, "train.device": "cpu",
}
with pytest.raises(TypeCheckError):
    CrossEntropy()(torch.zeros(2, 3), torch.zeros(5, dtype=torch.int64))
run_training(TrainRequest(data="digits", values=values, out=Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_shapes_of_step_and_loss_match_their_types_during_a_run(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "run"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
