"""A trained ViT that somebody else published, read by our code, against what its own code gave on MNIST."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.data.sources import idx
from vitreous.model import load_model

DATA = Path(__file__).parents[3] / "shared" / "data"
WEIGHTS = DATA / "weights" / "mnist-vit" / "vit_mnist_gpu.pt"
GOLDEN = WEIGHTS.with_name("golden_logits_first32_mnist_test.npz")
IMAGES, LABELS = (DATA / "mnist" / f"t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
ARCHITECTURE = {"num_heads": 4, "head_dim": 64, "act": "relu"}

pytestmark = [
    pytest.mark.skipif(not path.is_file(), reason=f"{path.name} is not in ../shared/data")
    for path in (WEIGHTS, GOLDEN, IMAGES, LABELS)
]


def read(path):
    content = path.read_bytes()
    return torch.from_numpy(idx.parse(idx.unpack(content, path.name), path.name).copy())


@pytest.fixture(scope="module")
def model():
    return load_model(WEIGHTS, architecture=ARCHITECTURE)


@pytest.fixture(scope="module")
def images():
    """As the published model was fed: normalised in float32."""
    return (read(IMAGES)[:, None].float() / 255 - 0.1307) / 0.3081


def test_it_is_what_its_authors_describe(model):
    config = model.config
    assert sum(parameter.numel() for parameter in model.parameters()) == 499_722
    assert (config.img_size, config.patch_size, config.in_chans, config.num_classes) == ((28, 28), 4, 1, 10)
    assert (config.embed_dim, config.depth, config.mlp_dim, config.norm_eps) == (64, 6, 128, 1e-5)


@pytest.mark.slow
def test_it_classifies_as_many_digits_as_published(model, images):
    with torch.inference_mode():
        guesses = torch.cat([model(batch).argmax(1) for batch in images.split(100)])
    assert int((guesses == read(LABELS)).sum()) == 9721


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-10)])
def test_logits_are_the_published_ones(model, images, dtype, tolerance):
    with np.load(GOLDEN) as golden:
        expected, index = golden["logits_fp64_vit_mnist_gpu"], golden["input_test_index"]
    with torch.inference_mode():
        logits = copy.deepcopy(model).to(dtype)(images[torch.from_numpy(index)].to(dtype))
    torch.testing.assert_close(logits.double(), torch.from_numpy(expected), rtol=0, atol=tolerance)
