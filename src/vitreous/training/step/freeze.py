"""A model, what shall keep its weights -> the parts of it, held still or trained."""

from collections.abc import Sequence

from torch import Generator, nn

from vitreous.model.change.lora import add_lora
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.run_config import Freeze, TrainConfig


def make_trainable(model: VisionTransformer, config: TrainConfig, generator: Generator | None = None) -> None:
    """Give a model its corrections of low rank, and freeze what stays frozen to the end; before there is an optimiser.

    Args:
        model: A plain one, changed in place.
        config: Says what is frozen.
        generator: Where the corrections come from; None takes torch's global one.

    Raises:
        ConfigError: A rank that the model is too narrow for.
    """
    if config.lora_rank:
        add_lora(model, rank=config.lora_rank, alpha=config.lora_alpha, generator=generator)
    elif config.freeze_until == 1:
        set_frozen(frozen_parts(model, config.freeze, config.freeze_blocks), True)


def frozen_parts(model: VisionTransformer, freeze: Freeze, freeze_blocks: int) -> list[nn.Module]:
    """The parts that shall keep their weights: a stretch from the images on, so that no gradient runs through them.

    Args:
        model: Of which.
        freeze: `backbone` is all but the head.
        freeze_blocks: So many blocks from the first, with what comes before them; 0: none of both.
    """
    if freeze == "backbone":
        return [part for name, part in model.named_children() if name != "head"]
    if freeze_blocks == 0:
        return []
    before = [model.tokenizer, model.patch_norm, model.position, model.prefix, model.encoder.norm_pre]
    relation = [] if model.relation is None else [model.relation]
    return [*before, *relation, *model.encoder.blocks[:freeze_blocks]]


def set_frozen(parts: Sequence[nn.Module], is_frozen: bool) -> None:
    """Hold parts still, or let them be trained.

    A frozen part takes no gradient, which every optimiser leaves alone, decay included; and it works as in evaluation:
    nothing in it is dropped. Parts that are let go stay in the mode that they are in.
    """
    for part in parts:
        first = next(part.parameters(), None)
        if first is not None and first.requires_grad == is_frozen:
            part.requires_grad_(not is_frozen)
        if is_frozen:
            part.eval()
