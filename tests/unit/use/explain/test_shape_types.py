import subprocess
import sys

import pytest

SCRIPT = """
from jaxtyping import install_import_hook

with install_import_hook("vitreous", "beartype.beartype"):
    from vitreous.use.explain.methods import METHODS

from tests.unit.use.explain.models import KINDS, draw_images, make_model

for kind in KINDS:
    model = make_model(kind)
    images = draw_images().to(next(model.parameters()).dtype)
    for name in ("gradient-attention", "legrad", "grad-cam", "integrated-gradients", "rollout", "attention"):
        METHODS[name](model, images)
"""


@pytest.mark.slow
def test_shape_types_of_explanations_hold_at_run_time():
    """Every kind of model is explained with jaxtyping and beartype checking every annotated tensor."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
