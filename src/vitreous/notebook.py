"""The original notebook's names -> the house's own modules: its cells run unchanged, what it left undone is done.

`from vitreous.notebook import *` provides `Tokenizer`, `create_mlp`, `TransformerEncoder` and `VisionTransformer` with
the notebook's signatures. What differs from its code: `Tokenizer.patchify` is written; `drop_path_rate` and
`stochastic_depth` drop; an image is cut into about 256 patches, not into single pixels; the ReLU is a plain ReLU;
weights start by the `xavier` scheme of `model.init`, class token and positions at the notebook's 0.2.
"""

import math

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from torch import nn
from torch.nn import init

from vitreous.errors import ConfigError, ShapeError
from vitreous.model import vit
from vitreous.model.build_parts import build_parts
from vitreous.model.config.model_config import InitScheme, ModelConfig
from vitreous.model.init import initialise
from vitreous.model.parts import attention, encoder, mlp, residual, tokenizer
from vitreous.model.parts.position import LearnedPosition
from vitreous.model.parts.prefix import Prefix

__all__ = ["Tokenizer", "TransformerEncoder", "VisionTransformer", "create_mlp"]

_TOKENS = 256  # the notebook's grid, 16x16
_NORM_EPS = 1e-5  # PyTorch's default, which the notebook takes
_TOKEN_STD = 0.2  # of positions and class token
_INIT: InitScheme = (
    "xavier"  # as in nn.MultiheadAttention; timm's 0.02 would start models of this width far too quietly
)


class Tokenizer(tokenizer.Tokenizer):
    """Images -> tokens: one for each cell of an `output_height` x `output_width` grid, row by row.

    Args:
        input_height: Of the image, in px.
        input_width: Of the image, in px.
        output_height: Patches down.
        output_width: Patches across.
        n_input_channels: Channels of an image.
        embedding_dim: Width of a token.

    Raises:
        ConfigError: The grid does not divide the image, or its patches are not square.
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
        for key, got, divisor in (
            ("input_height", input_height, output_height),
            ("input_width", input_width, output_width),
        ):
            if got % divisor:
                raise ConfigError(
                    f"{key}={got}: not divided by {key.replace('input', 'output')}={divisor} "
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
        initialise(self, scheme=_INIT)

    def patchify(self, img: NDArray[np.generic], kernel: NDArray[np.generic]) -> NDArray[np.generic]:
        """Cut one channel into non-overlapping patches of the kernel's shape.

        Args:
            img: `[height, width]`.
            kernel: `[kernel_height, kernel_width]`; only its shape is used.

        Returns:
            `[height / kernel_height, width / kernel_width, kernel_height * kernel_width]`, so that
            `patches @ kernel.ravel()` is the convolution whose stride is its kernel.

        Raises:
            ShapeError: The kernel does not tile the image.
        """
        (height, width), (kernel_height, kernel_width) = img.shape, kernel.shape
        if height % kernel_height or width % kernel_width:
            raise ShapeError(
                f"img {height}x{width}: not tiled by a kernel of {kernel_height}x{kernel_width}; pad or crop the image"
            )
        return rearrange(img, "(h p) (w q) -> h w (p q)", p=kernel_height, q=kernel_width)


def create_mlp(embedding_dim: int, mlp_size: int, dropout_rate: float) -> mlp.Mlp:
    """Linear, ReLU, dropout, linear, dropout: `[..., embedding_dim]` to the same.

    Args:
        embedding_dim: Width of a token.
        mlp_size: Hidden width.
        dropout_rate: After each linear layer.
    """
    layers = mlp.Mlp(embed_dim=embedding_dim, hidden_dim=mlp_size, act=nn.ReLU(), proj_drop_rate=dropout_rate)
    initialise(layers, scheme=_INIT)
    return layers


class TransformerEncoder(encoder.Block):
    """One encoder block: attention and ReLU MLP, each behind its own LayerNorm and beside a residual path.

    Args:
        embedding_dim: Width of a token.
        num_heads: Attention heads; divides `embedding_dim`.
        mlp_size: Hidden width of the MLP.
        dropout: On the attention's output and inside the MLP.
        attention_dropout: On the attention probabilities.
        drop_path_rate: Probability that an image skips a branch in training.

    Raises:
        ConfigError: The heads do not share the width evenly.
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
            drop_path=residual.DropPath(drop_path_rate),
        )
        initialise(self, scheme=_INIT)


class VisionTransformer(vit.VisionTransformer):
    """Images `[batch, n_input_channels, input_height, input_width]` -> logits `[batch, num_classes]`.

    A class token is read; positions are learned, the class token's too. The notebook gives no patch size, so the square
    patch is taken that cuts the image into the number of patches nearest to the notebook's 256 (by ratio; the larger
    patch if two are as near). For a square image whose side 16 divides, that is its grid of 16x16.

    Args:
        input_height: Of the images, in px.
        input_width: Of the images, in px.
        n_input_channels: Channels of an image.
        embedding_dim: Width of a token.
        num_layers: Encoder blocks.
        num_heads: Attention heads; divides `embedding_dim`.
        num_classes: Logits.
        mlp_ratio: Hidden width of the MLP over `embedding_dim`.
        dropout: After the positions, on the attention's output and inside the MLP.
        attention_dropout: On the attention probabilities.
        stochastic_depth: Probability that an image skips a branch of the last block; earlier blocks ramp up to it.

    Raises:
        ConfigError: A value that breaks a rule.
    """

    def __init__(  # the notebook's own signature, longer than the house writes them
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
        initialise(self, scheme=_INIT)
        for module in self.modules():
            match module:
                case LearnedPosition():
                    init.trunc_normal_(module.grid, std=_TOKEN_STD)
                case Prefix(class_token=nn.Parameter() as token, class_position=nn.Parameter() as position):
                    init.trunc_normal_(token, std=_TOKEN_STD)
                    init.trunc_normal_(position, std=_TOKEN_STD)


def _patch_size(height: int, width: int) -> int:
    """The square patch whose count is nearest to 256 by ratio; of two as near, the larger and cheaper one."""
    common = math.gcd(height, width)
    patches = [side for side in range(1, common + 1) if common % side == 0]
    return min(patches, key=lambda side: (round(abs(math.log(height * width / side**2 / _TOKENS)), 9), -side))
