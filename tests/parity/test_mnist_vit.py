"""A ViT trained by other code gives the logits and the accuracy of that code here.

The published MNIST model is used if its files are in ../shared/data. The same claims are always tested on a small model
of the same architecture with random weights, whose reference code is in this file.
"""

import copy
import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn

from vitreous.data.sources.named import idx
from vitreous.errors import AssumptionWarning
from vitreous.model import load_model

DATA = Path(__file__).parents[3] / "shared" / "data"
WEIGHTS = DATA / "weights" / "mnist-vit" / "vit_mnist_gpu.pt"
GOLDEN = WEIGHTS.with_name("golden_logits_first32_mnist_test.npz")
IMAGES, LABELS = (DATA / "mnist" / f"t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
MISSING = [path.name for path in (WEIGHTS, GOLDEN, IMAGES, LABELS) if not path.is_file()]

needs_data = pytest.mark.skipif(bool(MISSING), reason=f"not in ../shared/data: {', '.join(MISSING)}")
CASES = ["generated", pytest.param("published", marks=needs_data)]
SLOW_CASES = ["generated", pytest.param("published", marks=[needs_data, pytest.mark.slow])]


@dataclass
class Case:
    """A trained model, the images it was tested on, and what its own code computed for them."""

    weights: Path
    architecture: dict
    sizes: tuple
    images: Path
    labels: Path
    golden: np.ndarray
    golden_index: np.ndarray
    num_correct: int


def published():
    with np.load(GOLDEN) as golden:
        logits, index = golden["logits_fp64_vit_mnist_gpu"], golden["input_test_index"]
    architecture = {"num_heads": 4, "head_dim": 64, "act": "relu"}
    return Case(WEIGHTS, architecture, (499_722, (28, 28), 10, 64, 6, 128), IMAGES, LABELS, logits, index, 9721)


class Residual(nn.Module):
    """`x + fn(norm(x))`, under vit-pytorch's names of version 0."""

    def __init__(self, dim, fn):
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(dim), fn

    def forward(self, x):
        return x + self.fn(self.norm(x))


class Attention(nn.Module):
    def __init__(self, dim, num_heads, head_dim):
        super().__init__()
        self.num_heads, inner = num_heads, num_heads * head_dim
        self.to_qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim))

    def forward(self, x):
        q, k, v = rearrange(self.to_qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return self.to_out(rearrange(scores @ v, "b h n d -> b n (h d)"))


class FeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Identity(), nn.Linear(hidden, dim))

    def forward(self, x):
        return self.net(x)


class Reference(nn.Module):
    """The architecture of the published model, written without vitreous: 8x8 gray images, patches of 4 px."""

    def __init__(self, dim=20, depth=2, num_heads=5, head_dim=6, hidden=33, num_classes=7):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embedding = nn.Parameter(torch.zeros(1, 1 + 4, dim))
        self.to_patch_embedding = nn.Sequential(nn.Identity(), nn.Linear(16, dim))
        self.transformer = nn.Module()
        self.transformer.layers = nn.ModuleList(
            nn.ModuleList([
                Residual(dim, Attention(dim, num_heads, head_dim)), Residual(dim, FeedForward(dim, hidden))
            ])
            for _ in range(depth)
        )  # fmt: skip
        self.mlp_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, num_classes))

    def forward(self, images):
        x = self.to_patch_embedding(rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=4, q=4))
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embedding
        for attention, feed_forward in self.transformer.layers:
            x = feed_forward(attention(x))
        return self.mlp_head(x[:, 0])


def generated(folder):
    generator = torch.Generator().manual_seed(0)
    reference = Reference()
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    torch.save(reference.state_dict(), folder / "reference.pt")
    pixels = torch.randint(256, (60, 8, 8), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        logits = reference.double()(normalized(pixels).double())
    labels = logits.argmax(1)
    labels[::3] = (labels[::3] + 1) % 7  # the reference gets two of three images right
    images_file, labels_file = folder / "images-idx3-ubyte.gz", folder / "labels-idx1-ubyte.gz"
    images_file.write_bytes(gzip.compress(struct.pack(">IIII", 0x803, 60, 8, 8) + pixels.numpy().tobytes()))
    labels_file.write_bytes(gzip.compress(struct.pack(">II", 0x801, 60) + labels.byte().numpy().tobytes()))
    index = np.arange(60)[::2]
    sizes = (sum(parameter.numel() for parameter in reference.parameters()), (8, 8), 7, 20, 2, 33)
    architecture = {"num_heads": 5, "head_dim": 6, "act": "relu"}
    return Case(
        folder / "reference.pt", architecture, sizes, images_file, labels_file, logits[index].numpy(), index, 40
    )


def normalized(pixels):
    """Normalize gray images in float32, as the published model was trained."""
    return (pixels[:, None].float() / 255 - 0.1307) / 0.3081


def read(path):
    content = path.read_bytes()
    return torch.from_numpy(idx.parse(idx.unpack(content, path.name), path.name).copy())


@pytest.fixture(scope="module")
def case(request, tmp_path_factory):
    return published() if request.param == "published" else generated(tmp_path_factory.mktemp("generated"))


@pytest.fixture(scope="module")
def model(case):
    with pytest.warns(AssumptionWarning, match="assumes norm_eps=1e-05, patch_size=4, in_chans=1, img_size="):
        return load_model(case.weights, architecture=case.architecture)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_architecture_is_inferred_from_the_file(case, model):
    config = model.config
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    found = (num_parameters, config.img_size, config.num_classes, config.embed_dim, config.depth, config.mlp_dim)
    assert found == case.sizes
    assert (config.patch_size, config.in_chans, config.norm_eps) == (4, 1, 1e-5)


@pytest.mark.parametrize("case", SLOW_CASES, indirect=True)
def test_accuracy_equals_that_of_the_original_code(case, model):
    with torch.inference_mode():
        predicted = torch.cat([model(batch).argmax(1) for batch in normalized(read(case.images)).split(100)])
    assert int((predicted == read(case.labels)).sum()) == case.num_correct


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-10)])
def test_logits_equal_those_of_the_original_code(case, model, dtype, tolerance):
    images = normalized(read(case.images))[torch.from_numpy(case.golden_index)]
    with torch.inference_mode():
        logits = copy.deepcopy(model).to(dtype)(images.to(dtype))
    torch.testing.assert_close(logits.double(), torch.from_numpy(case.golden), rtol=0, atol=tolerance)
