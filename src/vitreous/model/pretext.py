"""A model -> the same model with what it needs to learn without labels: a decoder of pixels, or a projector."""

from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Generator, nn

from vitreous.model.init import initialize
from vitreous.model.parts.attention import Attention
from vitreous.model.parts.encoder import Block, DropPath, Encoder, Mlp
from vitreous.model.parts.fixed_position import SinCosPosition
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Images, Kept, Patches, Tokens

HEAD_DIM = 32
"""Width of an attention head of the decoder."""
HIDDEN_DIM, EMBEDDING_DIM = 512, 64
"""Widths of the projector: of its hidden layers, and of the embeddings."""


def with_pretext(
    model: VisionTransformer,
    loss: Literal["mae", "simmim", "lejepa"],
    *,
    decoder_depth: int,
    generator: Generator | None = None,
) -> VisionTransformer:
    """Return a model that shares all parts except the head, and computes what a self-supervised loss takes.

    Args:
        model: Any model; its head is left out.
        loss: `mae` and `simmim` take the predicted pixels of all patches, `lejepa` an embedding of each image.
        decoder_depth: Blocks of the decoder, for `mae`.
        generator: CPU generator of the new weights; None uses torch's global one.
    """
    parts, config = model.parts(), model.config
    device = next(model.parameters()).device
    num_values = config.in_chans * config.patch_size**2
    new: nn.Module
    parts["head"] = nn.Identity()
    learner = VisionTransformer(config, **parts)
    match loss:
        case "mae":
            learner = MaskedAutoencoder(config, **parts)
            new = learner.decoder = Decoder(config.embed_dim, config.grid_size, num_values, depth=decoder_depth)
        case "simmim":
            learner = MaskedPrediction(config, **parts)
            new = learner.decoder = MaskToken(config.embed_dim, num_values)
        case "lejepa":
            new = learner.head = projector(config.num_features)
    initialize(new, scheme=config.init, generator=generator)
    if loss != "lejepa":
        # Nothing reads pooled features. Only weights with a gradient can be trained by several processes.
        for unused in (learner.pool, learner.fc_norm):
            unused.requires_grad_(False)
    return learner.to(device).train(model.training)


def without_pretext(model: VisionTransformer) -> VisionTransformer:
    """Return a model that shares all parts of what `with_pretext` returned, except decoder or projector."""
    parts = model.parts()
    parts["head"] = nn.Identity()
    return VisionTransformer(model.config, **parts).train(model.training)


class _Masked(VisionTransformer):
    """A model that sees some patches of an image and predicts the pixels of all of them.

    The pixels of hidden patches are set to 0, the mean color, before the stem. A stem may look at neighboring patches,
    and hidden ones must not leak into visible ones.
    """

    def visible_tokens(self, images: Images, kept: Kept) -> tuple[Tokens, tuple[int, int]]:
        """Return the tokens of all patches, of which only some are visible, and their rows and columns."""
        rows, columns = grid_size = self.tokenizer.grid_size(images)
        shown = torch.zeros(len(images), rows * columns, device=images.device, dtype=images.dtype).scatter(1, kept, 1)
        side = self.tokenizer.patch_size
        mask = repeat(shown, "b (h w) -> b 1 (h p) (w q)", h=rows, w=columns, p=side, q=side)
        return self.patch_norm(self.tokenizer(images * mask)), grid_size


class MaskedAutoencoder(_Masked):
    """A model that encodes the visible patches only, and predicts all patches with a decoder.

    Source:
        He et al. 2021, section 3 (2111.06377). The token of hidden patches starts at zero. The decoder is narrower and
        less deep, for small models, and has heads of width `HEAD_DIM`.
    """

    decoder: "Decoder"

    def forward(self, images: Images, kept: Kept | None = None) -> Patches:
        """Predict the pixels of all patches from those with the numbers `kept`; None shows all of them."""
        kept = every_patch(images, self) if kept is None else kept
        tokens, grid_size = self.visible_tokens(images, kept)
        tokens, relations = self.arrange(tokens, grid_size, kept)
        return self.decoder(self.encoder(tokens, relations), kept, grid_size)


class MaskedPrediction(_Masked):
    """A model that encodes all patches, the hidden ones as a token, and predicts their pixels with one linear layer.

    Source:
        Xie et al. 2021, section 3 (2111.09886). The token of hidden patches starts at zero.
    """

    decoder: "MaskToken"

    def forward(self, images: Images, kept: Kept | None = None) -> Patches:
        """Predict the pixels of all patches from those with the numbers `kept`; None shows all of them."""
        kept = every_patch(images, self) if kept is None else kept
        tokens, grid_size = self.visible_tokens(images, kept)
        tokens, relations = self.arrange(self.decoder.hide(tokens, kept), grid_size)
        return self.decoder(self.encoder(tokens, relations)[:, self.num_prefix_tokens :])


class Decoder(nn.Module):
    """Encoded visible tokens -> the pixels of all patches: a small Transformer with a token for hidden patches.

    `embed_dim` is the width of the encoded tokens, `grid_size` the usual rows and columns of patches, `num_values` the
    number of values of a patch, and `depth` the number of blocks.
    """

    def __init__(self, embed_dim: int, grid_size: tuple[int, int], num_values: int, *, depth: int) -> None:
        super().__init__()
        num_heads = max(1, round(embed_dim / 2 / HEAD_DIM))
        width = num_heads * HEAD_DIM
        self.embed = nn.Linear(embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = SinCosPosition(grid_size=grid_size, embed_dim=width)
        self.blocks = Encoder([_block(width, num_heads) for _ in range(depth)], norm=nn.LayerNorm(width, eps=1e-6))
        self.proj = nn.Linear(width, num_values)

    def forward(self, tokens: Tokens, kept: Kept, grid_size: tuple[int, int]) -> Patches:
        """Predict the pixels of all patches. `tokens` are the prefix tokens and the encoded patches numbered `kept`."""
        tokens = self.embed(tokens)
        num_prefix = tokens.shape[1] - kept.shape[1]
        hidden = self.mask_token.to(tokens.dtype).expand(len(tokens), grid_size[0] * grid_size[1], -1)
        places = rearrange(kept, "b n -> b n 1").expand(-1, -1, tokens.shape[2])
        patches = self.position(hidden.scatter(1, places, tokens[:, num_prefix:]), grid_size)
        decoded = self.blocks(torch.cat([tokens[:, :num_prefix], patches.to(tokens.dtype)], dim=1))
        return self.proj(decoded[:, num_prefix:])


class MaskToken(nn.Module):
    """The token of hidden patches, and the linear layer from encoded tokens to pixels."""

    def __init__(self, embed_dim: int, num_values: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(embed_dim))
        self.proj = nn.Linear(embed_dim, num_values)

    def hide(self, tokens: Tokens, kept: Kept) -> Tokens:
        """Return the tokens with those of hidden patches replaced."""
        shown = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device).scatter(1, kept, True)
        return torch.where(shown.unsqueeze(2), tokens, self.token.to(tokens.dtype))

    def forward(self, tokens: Tokens) -> Patches:
        """Return the predicted pixels of each patch."""
        return self.proj(tokens)


def projector(num_features: int) -> nn.Sequential:
    """Return an MLP from features to embeddings; LayerNorm instead of BatchNorm, so that images stay independent."""
    layers: list[nn.Module] = []
    for width in (num_features, HIDDEN_DIM):
        layers += [nn.Linear(width, HIDDEN_DIM), nn.LayerNorm(HIDDEN_DIM), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN_DIM, EMBEDDING_DIM))


def every_patch(images: Images, model: VisionTransformer) -> Kept:
    """Return the numbers of all patches of each image."""
    rows, columns = model.tokenizer.grid_size(images)
    return torch.arange(rows * columns, device=images.device).expand(len(images), -1)


def _block(width: int, num_heads: int) -> Block:
    return Block(
        norm1=nn.LayerNorm(width, eps=1e-6),
        attn=Attention.plain(embed_dim=width, num_heads=num_heads),
        norm2=nn.LayerNorm(width, eps=1e-6),
        mlp=Mlp(embed_dim=width, hidden_dim=4 * width, act=nn.GELU()),
        drop_path=DropPath(0.0),
    )
