"""Images -> logits: the whole Vision Transformer on one screen. Dosovitskiy et al. 2021 (2010.11929)."""

from torch import nn

from vitreous.model.backbone import Backbone
from vitreous.model.build_parts import AnyRelation, AnyTokenizer
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.encoder import Encoder
from vitreous.tensors import Features, Images, Logits, Tokens


class VisionTransformer(Backbone):
    """Its parts, one after the other; `build.build_model` chooses them.

    Args:
        config: What the parts were built from; it travels with the weights.
        tokenizer: Images to patch tokens.
        patch_norm: A norm on those, or nothing.
        position: Patch tokens to patch tokens that know their place.
        patch_drop: All patch tokens to some of them, in training.
        prefix: Patch tokens to the whole sequence, a class token first if there is one.
        relation: A grid to what each block's attention takes beside tokens; None where it takes tokens alone.
        encoder: Tokens to tokens in context.
        pool: Tokens to one vector per image.
        fc_norm: A norm on that vector, or nothing.
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
        tokenizer: AnyTokenizer,
        patch_norm: nn.Module,
        position: nn.Module,
        patch_drop: nn.Module,
        prefix: nn.Module,
        relation: AnyRelation | None,
        encoder: Encoder,
        pool: nn.Module,
        fc_norm: nn.Module,
        head: nn.Module,
    ) -> None:
        super().__init__(config)
        self.tokenizer = tokenizer
        self.patch_norm = patch_norm
        self.position = position
        self.patch_drop = patch_drop
        self.prefix = prefix
        self.relation = relation
        self.encoder = encoder
        self.pool = pool
        self.fc_norm = fc_norm
        self.head = head

    def forward(self, images: Images) -> Logits:
        """Score the classes. Raises ShapeError for images that `config` does not describe."""
        return self.head(self.pooled(images))

    def pooled(self, images: Images) -> Features:
        """One vector per image, which the head takes."""
        tokens, relations = self.embed(images)
        tokens = self.encoder(tokens, relations, num_read=getattr(self.pool, "num_read", None))
        return self.fc_norm(self.pool(tokens))

    def forward_features(self, images: Images) -> Tokens:
        """The encoder's normalised tokens, prefix first, then patches row by row."""
        tokens, relations = self.embed(images)
        return self.encoder(tokens, relations)
