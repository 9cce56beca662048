"""Model -> parameter groups: which parameters decay, and the learning rate of each layer."""

import re
from typing import Any

from torch import nn
from torch.nn import Parameter

_MATRIX_MODULES = (nn.Linear, nn.Conv2d)
_STEM = re.compile(r"(tokenizer|patch_norm|position|prefix|relation|encoder\.norm_pre)\.")
_BLOCK = re.compile(r"encoder\.blocks\.(\d+)\.")

ParamGroup = dict[str, Any]
"""Parameter group of torch's optimizers: `params`, in the order of the model, their `weight_decay`, and `lr_ratio`, the
fraction of the learning rate at which they learn."""


def param_groups(model: nn.Module, *, weight_decay: float, layer_decay: float = 1.0) -> list[ParamGroup]:
    """Put each trainable parameter into one group; frozen parameters are in none.

    Only matrices that multiply features have weight decay. Norms, biases, tokens and position embeddings are scales and
    offsets; shrinking them towards zero does not regularize. Layers are recognized by the parameter names of a
    `VisionTransformer`. `layer_decay` is the ratio of the learning rates of successive layers; see `layer_ratio`.

    Returns:
        Groups, none of them empty: first those with weight decay, then those without, each from lower to higher
        learning rate, so from the stem to the head.

    Source: Touvron et al. 2021, section 4 and their code (2012.12877).
    """
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, _MATRIX_MODULES)}
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    depth = count_blocks(model)
    members: dict[tuple[bool, float], list[Parameter]] = {}
    for name, parameter in named:
        key = (id(parameter) not in matrices, layer_ratio(name, depth=depth, layer_decay=layer_decay))
        members.setdefault(key, []).append(parameter)
    return [
        {"params": members[is_exempt, ratio], "weight_decay": 0.0 if is_exempt else weight_decay, "lr_ratio": ratio}
        for is_exempt, ratio in sorted(members)
    ]


def count_blocks(model: nn.Module) -> int:
    """Return the number of encoder blocks; 0 if no parameter is named like one."""
    numbers = [int(found[1]) for name, _ in model.named_parameters() if (found := _BLOCK.match(name))]
    return max(numbers, default=-1) + 1


def layer_ratio(name: str, *, depth: int, layer_decay: float) -> float:
    """Return the fraction of the learning rate for a layer. Lower layers are more general and should change less.

    `layer_decay`, in (0, 1], is the ratio of the learning rates of successive layers. `depth` is the number of blocks.

    Returns:
        `layer_decay^(depth + 1 - i)` for the i-th block, counted from 1. The stem (tokenizer, position embeddings,
        prefix tokens) has i = 0; everything after the blocks (norm, pool, head) has i = depth + 1.

    Source: Bao et al. 2022, BEiT (2106.08254), as in their code, with one difference: a relative bias that all blocks
        share counts as part of the head there, and as part of the stem here.
    """
    block = _BLOCK.match(name)
    number = int(block[1]) + 1 if block else 0 if _STEM.match(name) else depth + 1
    return float(layer_decay ** (depth + 1 - number))


def hidden_matrices(model: nn.Module) -> dict[Parameter, int]:
    """Return the trainable weight matrices of the encoder blocks, which map features to features.

    Returns:
        Each matrix, in the order of the model, and the number of matrices that are stacked in it: 3 for queries, keys
        and values.
    """
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    return {
        parameter: 3 if name.endswith(".qkv.weight") else 1
        for name, parameter in model.named_parameters()
        if _BLOCK.match(name) and id(parameter) in linear and parameter.requires_grad
    }
