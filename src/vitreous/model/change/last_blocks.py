"""A model -> the part of it that follows its first blocks: tokens -> logits."""

from torch import nn

from vitreous.model.change.trim import can_trim, pool_trimmed
from vitreous.model.parts.relation import NO_RELATION
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Features, Images, Logits, Tokens


class LastBlocks(nn.Module):
    """The last blocks of a model, with its final norm, pool and head.

    Block `first` is the first to run, from 1 to the number of blocks, with which none is left. The parts of the model
    are shared.
    """

    def __init__(self, model: VisionTransformer, first: int) -> None:
        super().__init__()
        self.model = model
        self.first = first

    def entering(self, images: Images) -> Tokens:
        """Return the tokens that enter the first of these blocks, `[batch, tokens, embed_dim]`."""
        tokens, relations = self.model.embed(images)
        outputs: dict[int, Tokens | None] = {self.first - 1: None}
        self.model.encoder(tokens, relations, outputs=outputs, depth=self.first)
        found = outputs[self.first - 1]
        return tokens if found is None else found

    def pooled(self, tokens: Tokens) -> Features:
        """Return the pooled features for the tokens that enter the first of these blocks."""
        model, tokens = self.model, tokens.to(next(self.parameters()).dtype)  # they may be stored in bfloat16
        relations = None if model.relation is None else model.relation(model.config.grid_size)
        if self.first < len(model.encoder.blocks) and can_trim(model):
            return pool_trimmed(model, tokens, relations, self.first)
        for number, block in enumerate(model.encoder.blocks[self.first :], start=self.first):
            tokens = block(tokens, relations[number] if relations else NO_RELATION)
        return model.fc_norm(model.pool(model.encoder.norm(tokens)))

    def forward(self, tokens: Tokens) -> Logits:
        """Return one logit per class for the tokens that enter the first of these blocks."""
        return self.model.head(self.pooled(tokens))
