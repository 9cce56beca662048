"""The original notebook: its cells run unchanged, and its model gives the same logits as ours."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from vitreous import notebook
from vitreous.errors import ConfigError, ShapeError

CELLS = """
import numpy as np
import torch
from torch import nn
from vitreous.notebook import *

tokenizer = Tokenizer(input_height=32, input_width=32, output_height=16, output_width=16, n_input_channels=1,
                      embedding_dim=64)
dummy_batch = torch.zeros((1, 1, 32, 32))
tokenizer_result = tokenizer.forward(dummy_batch)
assert tokenizer_result.shape == (1, 256, 64), tokenizer_result.shape

mlp = create_mlp(128, 128 * 2, 0.1)

e = TransformerEncoder(embedding_dim=64, num_heads=2, mlp_size=128)
encoder_result = e(tokenizer_result)
print (encoder_result.shape)
assert encoder_result.shape == tokenizer_result.shape

input_height = 16
input_width = 16
n_input_channels = 1
vit = VisionTransformer(input_height, input_width,
                 #n_tokens=4,
                 n_input_channels=n_input_channels,
                 embedding_dim=32,
                 num_layers=2,
                 num_heads=2,
                 num_classes=10,
                 mlp_ratio=2.0,
                 dropout=0.1,
                 attention_dropout=0.1,
                 stochastic_depth=0.1)

fake_batch = torch.rand((1, n_input_channels, input_height, input_width))
print(fake_batch.shape)

result = vit(fake_batch)
print(result.shape)
print(result)
"""


def test_notebook_cells_run_unchanged(capsys):
    names = {}
    exec(CELLS, names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == ["torch.Size([1, 256, 64])", "torch.Size([1, 1, 16, 16])", "torch.Size([1, 10])"]
    assert names["mlp"](torch.zeros(2, 3, 128)).shape == (2, 3, 128)
    names["result"].sum().backward()


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (
            notebook.Tokenizer,
            ["input_height", "input_width", "output_height", "output_width", "n_input_channels", "embedding_dim"],
        ),
        (notebook.create_mlp, ["embedding_dim", "mlp_size", "dropout_rate"]),
        (
            notebook.TransformerEncoder,
            ["embedding_dim", "num_heads", "mlp_size", "dropout=0.1", "attention_dropout=0.1", "drop_path_rate=0.1"],
        ),
        (
            notebook.VisionTransformer,
            [
                *("input_height", "input_width", "n_input_channels", "embedding_dim", "num_layers", "num_heads"),
                *("num_classes=1000", "mlp_ratio=4.0", "dropout=0.1", "attention_dropout=0.1", "stochastic_depth=0.1"),
            ],
        ),
    ],
)
def test_signatures_and_defaults_are_those_of_the_notebook(function, signature):
    parameters = inspect.signature(function).parameters.values()
    assert [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters] == signature


SIZES = {
    notebook.Tokenizer: (8, 8, 4, 4, 3, 8),
    notebook.create_mlp: (8, 4, 0.5),
    notebook.TransformerEncoder: (8, 2, 4, 0.5, 0.25, 0.125),
    notebook.VisionTransformer: (8, 8, 3, 8, 1, 2, 5, 2.0, 0.5, 0.25, 0.125),
}


@pytest.mark.parametrize("got", [-1, 1.5, "4", None, float("nan"), 10**400, 2**31])
@pytest.mark.parametrize(
    ("function", "place"), [(function, place) for function, values in SIZES.items() for place in range(len(values))]
)
def test_every_argument_out_of_range_is_refused(function, place, got):
    values = list(SIZES[function])
    function(*values)
    if list(inspect.signature(function).parameters)[place] == "mlp_ratio" and got == 1.5:
        return
    values[place] = got
    with pytest.raises(ConfigError, match=r"=.*: must be .*; "):
        function(*values)


@pytest.mark.parametrize("place", range(6))
def test_tokenizer_refuses_a_size_of_0(place):
    values, names = list(SIZES[notebook.Tokenizer]), list(inspect.signature(notebook.Tokenizer).parameters)
    values[place] = 0
    with pytest.raises(ConfigError) as caught:
        notebook.Tokenizer(*values)
    assert str(caught.value) == f"{names[place]}=0: must be from 1 to 2,147,483,647; use a size of 1 or more"


@pytest.mark.parametrize("side", [2**30, 2**31 - 1])
def test_a_very_large_image_is_refused_at_once(side):
    with pytest.raises(ConfigError):
        notebook.VisionTransformer(side, side - 1, 3, 8, 1, 2)


@pytest.mark.parametrize(("shape", "text"), [((0, 2), "[0, 2]"), ((2,), "[2]"), ((2, 2, 3), "[2, 2, 3]")])
def test_patchify_refuses_what_is_not_a_matrix(shape, text):
    tokenizer, matrix, other = notebook.Tokenizer(12, 20, 6, 10, 1, 4), np.zeros((2, 2)), np.zeros(shape)
    for name, arguments in (("img", (other, matrix)), ("kernel", (matrix, other))):
        with pytest.raises(ShapeError) as caught:
            tokenizer.patchify(*arguments)
        assert str(caught.value) == f"{name} {text}: must be [height, width], not empty; give one channel"


def test_patches_times_kernel_equal_the_strided_convolution():
    tokenizer = notebook.Tokenizer(12, 20, 6, 10, 1, 4)
    rng = np.random.default_rng(0)
    image, kernel = rng.normal(size=(12, 20)), rng.normal(size=(3, 4))
    patches = tokenizer.patchify(image, kernel)
    convolved = nn.functional.conv2d(
        torch.from_numpy(image)[None, None], torch.from_numpy(kernel)[None, None], stride=(3, 4)
    )
    assert patches.shape == (4, 5, 12)
    np.testing.assert_allclose(patches @ kernel.ravel(), convolved[0, 0].numpy(), rtol=0, atol=1e-12)


def test_patchify_refuses_a_kernel_that_does_not_tile():
    with pytest.raises(ShapeError) as caught:
        notebook.Tokenizer(12, 20, 6, 10, 1, 4).patchify(np.zeros((12, 20)), np.zeros((3, 6)))
    assert str(caught.value) == "img 12x20: not tiled by a kernel of 3x6; pad or crop the image"


def test_tokenizer_refuses_a_grid_that_does_not_divide_the_image():
    with pytest.raises(ConfigError) as caught:
        notebook.Tokenizer(12, 21, 6, 10, 1, 4)
    assert str(caught.value) == "input_width=21: not divisible by output_width=10 (remainder 1); choose a divisor"


def test_tokenizer_refuses_patches_that_are_not_square():
    with pytest.raises(ConfigError) as caught:
        notebook.Tokenizer(12, 20, 6, 5, 1, 4)
    assert str(caught.value) == (
        "output_height=6, output_width=5: cut 12x20 px into patches of 2x4 px, only square ones are supported; "
        "choose another grid"
    )


@pytest.mark.parametrize(
    ("height", "width", "patch_size", "grid_size"),
    [
        (16, 16, 1, (16, 16)),
        (32, 32, 2, (16, 16)),
        (224, 224, 14, (16, 16)),
        (28, 28, 2, (14, 14)),
        (8, 8, 1, (8, 8)),
        (64, 32, 4, (16, 8)),
        (48, 32, 2, (24, 16)),
    ],
)
def test_default_grid_is_the_one_nearest_to_256_tokens(height, width, patch_size, grid_size):
    vit = notebook.VisionTransformer(height, width, 1, 8, 1, 2)
    assert (vit.tokenizer.patch_size, vit.config.grid_size) == (patch_size, grid_size)


def test_stochastic_depth_and_dropout_rates_reach_their_modules():
    vit = notebook.VisionTransformer(16, 16, 1, 8, 3, 2, dropout=0.2, attention_dropout=0.3, stochastic_depth=0.4)
    assert [block.drop_path.rate for block in vit.encoder.blocks] == pytest.approx([0.0, 0.2, 0.4])
    assert (vit.encoder.drop.p, vit.encoder.blocks[0].mlp.drop1.p, vit.encoder.blocks[0].attn.proj_drop.p) == (
        0.2,
        0.2,
        0.2,
    )
    assert vit.encoder.blocks[0].attn.attn_drop_rate == 0.3


def test_drop_path_rate_of_the_encoder_has_an_effect():
    encoder = notebook.TransformerEncoder(8, 2, 16, dropout=0.0, attention_dropout=0.0, drop_path_rate=0.5)
    tokens = torch.randn(100, 5, 8)
    untouched = (encoder(tokens) == tokens).all(dim=(1, 2)).sum()
    assert 8 < untouched < 50  # about a quarter of the images, 25, skip both branches


def test_class_token_and_positions_start_at_the_notebooks_scale():
    vit = notebook.VisionTransformer(16, 16, 1, 64, 1, 2)
    assert vit.position.grid.std().item() == pytest.approx(0.2, rel=0.05)
    assert vit.prefix.class_token.std().item() == pytest.approx(0.2, rel=0.4)
    assert vit.prefix.class_position.std().item() == pytest.approx(0.2, rel=0.4)


class NotebookBlock(nn.Module):
    """The encoder block of the original notebook, copied line by line."""

    def __init__(self, embedding_dim, num_heads, mlp_size):
        super().__init__()
        self.attention_pre_norm = nn.LayerNorm(embedding_dim)
        self.attention = nn.MultiheadAttention(embed_dim=embedding_dim, num_heads=num_heads, batch_first=True)
        self.mlp_pre_norm = nn.LayerNorm(embedding_dim)
        self.mlp = nn.Sequential(nn.Linear(embedding_dim, mlp_size), nn.ReLU(), nn.Linear(mlp_size, embedding_dim))

    def forward(self, x):
        y = self.attention_pre_norm(x)
        x = x + self.attention(y, y, y)[0]
        return x + self.mlp(self.mlp_pre_norm(x))


class NotebookViT(nn.Module):
    """The model of the original notebook, copied line by line, with a patch size, which the notebook could not set."""

    def __init__(self, patch_size, num_patches, channels, embedding_dim, num_layers, num_heads, num_classes, mlp_size):
        super().__init__()
        self.conv = nn.Conv2d(channels, embedding_dim, patch_size, stride=patch_size)
        self.positional_embeddings = nn.Parameter(torch.empty(1, num_patches + 1, embedding_dim))
        self.class_embedding = nn.Parameter(torch.empty(1, embedding_dim))
        self.blocks = nn.Sequential(*[NotebookBlock(embedding_dim, num_heads, mlp_size) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(embedding_dim)
        self.fc = nn.Linear(embedding_dim, num_classes)

    def forward(self, x):
        patch_embeddings = self.conv(x).flatten(2, 3).transpose(-2, -1)
        cls_token = self.class_embedding.expand(patch_embeddings.size(0), 1, -1)
        x = torch.cat([cls_token, patch_embeddings], dim=1)
        x = x + self.positional_embeddings
        x = self.blocks(x)
        x = self.norm(x)
        return self.fc(x[:, 0])


def as_ours(theirs):
    """Return the weights of the notebook's model under the names of this package."""
    positions = theirs["positional_embeddings"][0]
    ours = {
        "tokenizer.proj.weight": theirs["conv.weight"].flatten(1),
        "tokenizer.proj.bias": theirs["conv.bias"],
        "prefix.class_token": theirs["class_embedding"][0],
        "prefix.class_position": positions[0],
        "position.grid": positions[1:].view(12, 20, 20),
    }
    names = {
        "attention_pre_norm.": "norm1.",
        "attention.in_proj_": "attn.qkv.",
        "attention.out_proj.": "attn.proj.",
        "mlp_pre_norm.": "norm2.",
        "mlp.0.": "mlp.fc1.",
        "mlp.2.": "mlp.fc2.",
    }
    for kind in ("weight", "bias"):
        ours |= {f"encoder.norm.{kind}": theirs[f"norm.{kind}"], f"head.{kind}": theirs[f"fc.{kind}"]}
        for block in range(3):
            for their_name, our_name in names.items():
                ours[f"encoder.blocks.{block}.{our_name}{kind}"] = theirs[f"blocks.{block}.{their_name}{kind}"]
    return ours


def test_logits_equal_those_of_the_notebooks_model_with_the_same_weights():
    torch.manual_seed(0)
    theirs = NotebookViT(2, 240, 3, 20, 3, 5, 7, 50).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.4)
    ours = notebook.VisionTransformer(24, 40, 3, 20, 3, 5, num_classes=7, mlp_ratio=2.5).double().eval()
    ours.load_state_dict(as_ours(theirs.state_dict()), strict=True)
    images = torch.randn(2, 3, 24, 40, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-10)
