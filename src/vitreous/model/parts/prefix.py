"""Patch tokens -> class token, distillation token, registers, and patch tokens."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitreous.model.config.model_config import PrefixPosition
from vitreous.tensors import Tokens

LongerTokens = Float[Tensor, "batch longer embed_dim"]
"""The sequence with tokens put before it."""


class Prefix(nn.Module):
    """Put learned tokens, the same for every image, before the patches.

    A token's own position adds nothing that the token could not learn, but the field's weights have both: the first
    rows of timm's `pos_embed` are these positions.

    Args:
        embed_dim: Width of a token.
        class_token: Whether the first one gathers the image (2010.11929).
        distill_token: Whether the next one learns from a teacher (DeiT, 2012.12877).
        num_registers: How many more are there to be written on (Darcet et al. 2023, 2309.16588).
        position: Which of them have a learned position: `all`, `class` (and distillation token), `none`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        class_token: bool = True,
        distill_token: bool = False,
        num_registers: int = 0,
        position: PrefixPosition = "class",
    ) -> None:
        super().__init__()
        one, some, by_class = (embed_dim,), (num_registers, embed_dim), position != "none"
        self.class_token = _parameter(class_token, one)
        self.class_position = _parameter(class_token and by_class, one)
        self.distill_token = _parameter(distill_token, one)
        self.distill_position = _parameter(distill_token and by_class, one)
        self.registers = _parameter(num_registers > 0, some)
        self.register_position = _parameter(num_registers > 0 and position == "all", some)

    def forward(self, tokens: Tokens) -> LongerTokens:
        """Make the sequence longer, the class token first."""
        pairs = (
            (self.class_token, self.class_position),
            (self.distill_token, self.distill_position),
            (self.registers, self.register_position),
        )
        learned = [
            torch.atleast_2d(token if position is None else token + position).expand(tokens.shape[0], -1, -1)
            for token, position in pairs
            if token is not None
        ]
        return torch.cat([*learned, tokens], dim=1)


def _parameter(exists: bool, shape: tuple[int, ...]) -> nn.Parameter | None:
    return nn.Parameter(torch.zeros(shape)) if exists else None
