"""Images -> logits: the whole Vision Transformer on one screen. Dosovitskiy et al. 2021 (2010.11929)."""

from torch import nn

from vitreous.model.config import ModelConfig
from vitreous.tensors import Images, Logits, Tokens


class VisionTransformer(nn.Module):
    """Six parts, one after the other; `build.build_model` chooses them.

    Args:
        config: What the parts were built from; it travels with the weights.
        tokenizer: Images to patch tokens.
        position: Patch tokens to patch tokens that know their place.
        prefix: Patch tokens to the whole sequence, a class token first if there is one.
        encoder: Tokens to tokens in context.
        pool: Tokens to one vector per image.
        head: That vector to logits.

    Example:
        >>> import torch
        >>> from vitreous.model import create_model
        >>> model = create_model("vit_pico_patch4_28", num_classes=5, in_chans=1)
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        tokenizer: nn.Module,
        position: nn.Module,
        prefix: nn.Module,
        encoder: nn.Module,
        pool: nn.Module,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.position = position
        self.prefix = prefix
        self.encoder = encoder
        self.pool = pool
        self.head = head

    def forward(self, images: Images) -> Logits:
        """Score the classes. Raises ShapeError for images that `config` does not describe."""
        tokens = self.forward_features(images)
        features = self.pool(tokens)
        return self.head(features)

    def forward_features(self, images: Images) -> Tokens:
        """The encoder's normalised tokens, prefix first, then patches row by row."""
        tokens = self.tokenizer(images)
        tokens = self.position(tokens)
        tokens = self.prefix(tokens)
        return self.encoder(tokens)
