"""Names of the original notebook -> modules of this package: the cells of the notebook run unchanged.

`from vitreous.notebook import *` provides `Tokenizer`, `create_mlp`, `TransformerEncoder` and `VisionTransformer` with
the notebook's signatures. What differs: `Tokenizer.patchify` is implemented; `drop_path_rate` and `stochastic_depth`
have an effect; an image is cut into about 256 patches instead of single pixels; the ReLU is a plain ReLU; weights are
drawn by the `xavier` scheme of `model.init`, class token and positions with the notebook's std of 0.2.
"""

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from torch import nn
from torch.nn import init

from vitreous.errors import ConfigError, ShapeError
from vitreous.model import vit
from vitreous.model.build_parts import build_parts
from vitreous.model.config.divisibility import divisors
from vitreous.model.config.model_config import InitScheme, ModelConfig
from vitreous.model.init import initialize
from vitreous.model.parts import attention, encoder, tokenizer
from vitreous.model.parts.embedding import LearnedPosition, Prefix
from vitreous.ranges import Interval, check_value, rule_of

__all__ = ["Tokenizer", "TransformerEncoder", "VisionTransformer", "create_mlp"]

_TOKENS = 256  # the notebook's grid, 16x16
_NORM_EPS = 1e-5  # PyTorch's default, as in the notebook
_TOKEN_STD = 0.2  # of positions and class token
_INIT: InitScheme = "xavier"  # as in nn.MultiheadAttention; timm's 0.02 is far too small for models of this width
_SIZE = rule_of(Annotated[int, Interval("[1, 2**31)", "use a size of 1 or more")])
_RATE = rule_of(Annotated[float, Interval("[0, 1)", "0.1 is usual")])


class Tokenizer(tokenizer.Tokenizer):
    """Images -> tokens: one for each cell of an `output_height` x `output_width` grid, row by row.

    Heights and widths of the input are in px; those of the output are rows and columns of patches.

    Raises:
        ConfigError: A size is not a whole number above 0, the grid does not divide the image, or its patches are not
            square.
    """

    def __init__(
        self,
        input_height: int,
        input_width: int,
        output_height: int,
        output_width: int,
        n_input_channels: int,
        embedding_dim: int,
    ) -> None:
        _check_sizes({
            "input_height": input_height, "input_width": input_width, "output_height": output_height,
            "output_width": output_width, "n_input_channels": n_input_channels, "embedding_dim": embedding_dim,
        })  # fmt: skip
        for key, got, divisor in (
            ("input_height", input_height, output_height),
            ("input_width", input_width, output_width),
        ):
            if got % divisor:
                raise ConfigError(
                    f"{key}={got}: not divisible by {key.replace('input', 'output')}={divisor} "
                    f"(remainder {got % divisor}); choose a divisor"
                )
        patch_height, patch_width = input_height // output_height, input_width // output_width
        if patch_height != patch_width:
            raise ConfigError(
                f"output_height={output_height}, output_width={output_width}: cut {input_height}x{input_width} px into "
                f"patches of {patch_height}x{patch_width} px, only square ones are supported; choose another grid"
            )
        super().__init__(
            patch_size=patch_height,
            in_chans=n_input_channels,
            embed_dim=embedding_dim,
            img_size=(input_height, input_width),
        )
        initialize(self, scheme=_INIT)

    def patchify(self, img: NDArray[np.generic], kernel: NDArray[np.generic]) -> NDArray[np.generic]:
        """Cut one channel into non-overlapping patches of the kernel's shape.

        Only the shape of the kernel is used.

        Returns:
            `[height / kernel_height, width / kernel_width, kernel_height * kernel_width]`, so that
            `patches @ kernel.ravel()` is the convolution whose stride is its kernel.

        Raises:
            ShapeError: Image or kernel is not a matrix, or the kernel does not tile the image.
        """
        for name, array in (("img", img), ("kernel", kernel)):
            if array.ndim != 2 or not array.size:
                raise ShapeError(f"{name} {list(array.shape)}: must be [height, width], not empty; give one channel")
        (height, width), (kernel_height, kernel_width) = img.shape, kernel.shape
        if height % kernel_height or width % kernel_width:
            raise ShapeError(
                f"img {height}x{width}: not tiled by a kernel of {kernel_height}x{kernel_width}; pad or crop the image"
            )
        return rearrange(img, "(h p) (w q) -> h w (p q)", p=kernel_height, q=kernel_width)


def create_mlp(embedding_dim: int, mlp_size: int, dropout_rate: float) -> encoder.Mlp:
    """Build linear, ReLU, dropout, linear, dropout: `[..., embedding_dim]` to the same shape.

    `mlp_size` is the hidden width; `dropout_rate` applies after each linear layer.

    Raises:
        ConfigError: A size or rate is out of range.
    """
    _check_sizes({"embedding_dim": embedding_dim, "mlp_size": mlp_size})
    check_value("dropout_rate", dropout_rate, _RATE)
    layers = encoder.Mlp(embed_dim=embedding_dim, hidden_dim=mlp_size, act=nn.ReLU(), proj_drop_rate=dropout_rate)
    initialize(layers, scheme=_INIT)
    return layers


class TransformerEncoder(encoder.Block):
    """One encoder block: attention and a ReLU MLP, each behind its own LayerNorm on a residual branch.

    `num_heads` divides `embedding_dim`, and `mlp_size` is the hidden width of the MLP. `dropout` applies to the
    attention's output and inside the MLP, `attention_dropout` to the attention probabilities. `drop_path_rate` is the
    probability that an image skips a branch in training.

    Raises:
        ConfigError: A size or rate is out of range, or `num_heads` does not divide `embedding_dim`.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        mlp_size: int,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        drop_path_rate: float = 0.1,
    ) -> None:
        _check_sizes({"embedding_dim": embedding_dim, "num_heads": num_heads, "mlp_size": mlp_size})
        rates = {"dropout": dropout, "attention_dropout": attention_dropout, "drop_path_rate": drop_path_rate}
        for name, rate in rates.items():
            check_value(name, rate, _RATE)
        super().__init__(
            norm1=nn.LayerNorm(embedding_dim, eps=_NORM_EPS),
            attn=attention.Attention.plain(
                embed_dim=embedding_dim,
                num_heads=num_heads,
                attn_drop_rate=attention_dropout,
                proj_drop_rate=dropout,
            ),
            norm2=nn.LayerNorm(embedding_dim, eps=_NORM_EPS),
            mlp=create_mlp(embedding_dim, mlp_size, dropout),
            drop_path=encoder.DropPath(drop_path_rate),
        )
        initialize(self, scheme=_INIT)


class VisionTransformer(vit.VisionTransformer):
    """Images `[batch, n_input_channels, input_height, input_width]` -> logits `[batch, num_classes]`.

    The class token is read; positions are learned, that of the class token too. The notebook gives no patch size. The
    patch size is the one that cuts the image into the number of square patches nearest to the notebook's 256, by ratio;
    of two equally near, the larger patch. For a square image with a side divisible by 16 the grid is 16x16.

    `num_heads` divides `embedding_dim`, and `mlp_ratio` is the hidden width of the MLP over it. `dropout` applies after
    the positions, to the attention's output and inside the MLP, `attention_dropout` to the attention probabilities.
    `stochastic_depth` is the probability that an image skips a branch of the last block; earlier blocks ramp up to it.

    Raises:
        ConfigError: A value that breaks a rule.
    """

    def __init__(  # the notebook's signature, longer than usual here
        self,
        input_height: int,
        input_width: int,
        n_input_channels: int,
        embedding_dim: int,
        num_layers: int,
        num_heads: int,
        num_classes: int = 1000,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        stochastic_depth: float = 0.1,
    ) -> None:
        _check_sizes({"input_height": input_height, "input_width": input_width})
        config = ModelConfig(
            img_size=(input_height, input_width),
            patch_size=_patch_size(input_height, input_width),
            in_chans=n_input_channels,
            num_classes=num_classes,
            embed_dim=embedding_dim,
            depth=num_layers,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            act="relu",
            init=_INIT,
            norm_eps=_NORM_EPS,
            pos_drop_rate=dropout,
            proj_drop_rate=dropout,
            attn_drop_rate=attention_dropout,
            drop_path_rate=stochastic_depth,
        )
        super().__init__(config, **build_parts(config))
        initialize(self, scheme=_INIT)
        for module in self.modules():
            match module:
                case LearnedPosition():
                    init.trunc_normal_(module.grid, std=_TOKEN_STD)
                case Prefix(class_token=nn.Parameter() as token, class_position=nn.Parameter() as position):
                    init.trunc_normal_(token, std=_TOKEN_STD)
                    init.trunc_normal_(position, std=_TOKEN_STD)


def _patch_size(height: int, width: int) -> int:
    """Return the patch size with the count nearest to 256 by ratio; of two equally near, the larger and cheaper one."""
    patches = divisors(math.gcd(height, width))
    return min(patches, key=lambda side: (round(abs(math.log(height * width / side**2 / _TOKENS)), 9), -side))


def _check_sizes(sizes: Mapping[str, object]) -> None:
    for name, size in sizes.items():
        check_value(name, size, _SIZE)
