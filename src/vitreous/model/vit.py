"""Images -> logits: the forward pass of the Vision Transformer. Dosovitskiy et al. 2021 (2010.11929).

Shapes: B images, C channels, N patches, P prefix tokens (class token, registers), D width of a token.
"""

from collections.abc import Sequence

import torch
from torch import nn

from vitreous.model.backbone import Backbone
from vitreous.model.build_parts import AnyRelation
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.encoder import Encoder
from vitreous.model.parts.patch_drop import keep
from vitreous.model.parts.relation import Relation, select
from vitreous.model.parts.tokenizer import ImageTokenizer
from vitreous.tensors import Images, Kept, Logits, PatchTokens, Tokens


class VisionTransformer(Backbone):
    """A Vision Transformer made of its parts; `build.build_model` chooses them from a configuration.

    Args:
        config: The configuration that the parts were built from; it is saved with the weights.
        tokenizer: Computes patch tokens from images.
        patch_norm: A norm on the patch tokens, or the identity.
        position: Adds position embeddings to the patch tokens.
        patch_drop: Drops some of the patch tokens in training.
        prefix: Puts class token and registers before the patch tokens, or is the identity.
        relation: Computes rotations or a bias for the attention of each block; None for neither.
        encoder: The blocks and the norms around them.
        pool: Computes one vector per image from its tokens.
        fc_norm: A norm on that vector, or the identity.
        head: Computes logits from that vector, or is the identity.

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
        tokenizer: ImageTokenizer,
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
        """Return one logit per class, `[B, num_classes]`; the pooled features if the model has no head.

        Images are `[B, C, height, width]`, normalized.

        Raises:
            ShapeError: The model does not accept this number of channels or this image size.
        """
        tokens, relations = self.embed(images)  #  [B, P + N, D]
        tokens = self.encoder(tokens, relations)  # [B, P + N, D]
        features = self.fc_norm(self.pool(tokens))  # [B, D]
        return self.head(features)  #              [B, num_classes]

    def embed(self, images: Images) -> tuple[Tokens, Sequence[Relation] | None]:
        """Return the tokens that enter the encoder, and one relation per block; None if attention takes only tokens.

        Raises:
            ShapeError: The model does not accept this number of channels or this image size.
        """
        tokens = self.patch_norm(self.tokenizer(images))  # [B, N, D]
        side = self.tokenizer.patch_size  #                 the tokenizer has checked that it tiles the images
        return self.arrange(tokens, (images.shape[-2] // side, images.shape[-1] // side))

    def arrange(
        self, patches: PatchTokens, grid_size: tuple[int, int], kept: Kept | None = None
    ) -> tuple[Tokens, Sequence[Relation] | None]:
        """Return what `embed` does for patches without positions, of a grid of rows and columns.

        `kept` are the patches to keep; None keeps all, or in training those that `patch_drop` draws.
        """
        tokens = self.position(patches, grid_size)
        if kept is not None:
            tokens = keep(tokens, kept)  #                  [B, kept, D]
        elif self.training:
            tokens, kept = self.patch_drop(tokens)  #       [B, kept, D]
        tokens = self.prefix(tokens)  #                     [B, P + N, D]
        if self.relation is None:
            return tokens, None
        relations = self.relation(grid_size)
        if kept is None:
            return tokens, relations
        count = self.num_prefix_tokens
        in_sequence = torch.cat([torch.arange(count, device=kept.device).expand(len(kept), -1), kept + count], dim=1)
        return tokens, [select(relation, in_sequence) for relation in relations]

    def forward_features(self, images: Images) -> Tokens:
        """Return the tokens after the final norm, `[B, P + N, D]`: prefix first, then patches row by row."""
        return self.encoder(*self.embed(images))
