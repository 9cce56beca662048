"""Model, TrainConfig -> the same model with some modules frozen, or with low-rank adapters (LoRA)."""

from collections.abc import Sequence

from torch import Generator, nn

from vitreous.model.change.lora import add_lora
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.run_config import Freeze, TrainConfig


def make_trainable(model: VisionTransformer, config: TrainConfig, generator: Generator | None = None) -> None:
    """Add low-rank adapters, or freeze what stays frozen for the whole run. Call this before building the optimizer.

    The model is changed in place. The adapters are drawn from the generator; None uses torch's global one.

    Raises:
        ConfigError: The rank of the adapters is too large for the width of the model.
    """
    if config.lora_rank:
        add_lora(model, rank=config.lora_rank, alpha=config.lora_alpha, generator=generator)
    elif config.freeze_until == 1:
        set_frozen(modules_to_freeze(model, config.freeze, config.freeze_blocks), True)


def modules_to_freeze(model: VisionTransformer, freeze: Freeze, freeze_blocks: int) -> list[nn.Module]:
    """Return the modules to freeze: for `backbone` all but the head, else the first blocks and everything before them.

    They are the first modules of the forward pass, so that no gradient has to flow through them.
    """
    if freeze == "backbone":
        return [module for name, module in model.named_children() if name != "head"]
    if freeze_blocks == 0:
        return []
    before_blocks = [model.tokenizer, model.patch_norm, model.position, model.prefix, model.encoder.norm_pre]
    relation = [] if model.relation is None else [model.relation]
    return [*before_blocks, *relation, *model.encoder.blocks[:freeze_blocks]]


def set_frozen(modules: Sequence[nn.Module], is_frozen: bool) -> None:
    """Freeze modules, or unfreeze them.

    Frozen weights get no gradient, so no optimizer changes them, not even by weight decay. Frozen modules are put into
    evaluation mode, so they use no dropout. Unfrozen modules stay in the mode that they are in.
    """
    for module in modules:
        first = next(module.parameters(), None)
        if first is not None and first.requires_grad == is_frozen:
            module.requires_grad_(not is_frozen)
        if is_frozen:
            module.eval()
