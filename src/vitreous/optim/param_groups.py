"""Model -> parameters in groups: which of them decay, and at what share of the learning rate each layer learns."""

import re
from typing import Any

from torch import nn
from torch.nn import Parameter

_MATRIX_MODULES = (nn.Linear, nn.Conv2d)
_STEM = re.compile(r"(tokenizer|patch_norm|position|prefix|relation|encoder\.norm_pre)\.")
_BLOCK = re.compile(r"encoder\.blocks\.(\d+)\.")


ParamGroup = dict[str, Any]
"""As torch's optimisers take it: `params`, in the order of the model, their `weight_decay`, and `lr_ratio`, their share
of the learning rate."""


def param_groups(model: nn.Module, *, weight_decay: float, layer_decay: float = 1.0) -> list[ParamGroup]:
    """All trainable parameters, each in one group; what is frozen is in none.

    Weight decay is for the matrices that multiply features, and for nothing else: norms, biases, tokens and positions
    are offsets and scales, and shrinking them towards zero regularises nothing.

    Args:
        model: Any module; layers are told by the names of a `VisionTransformer`.
        weight_decay: Of the matrices.
        layer_decay: See `layer_ratio`.

    Returns:
        Groups that decay before those that do not, within each the stem first and the head last; none is empty.

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
        {"params": members[spared, ratio], "weight_decay": 0.0 if spared else weight_decay, "lr_ratio": ratio}
        for spared, ratio in sorted(members)
    ]


def count_blocks(model: nn.Module) -> int:
    """Blocks of the encoder; 0 where there is none by that name."""
    numbers = [int(found[1]) for name, _ in model.named_parameters() if (found := _BLOCK.match(name))]
    return max(numbers, default=-1) + 1


def layer_ratio(name: str, *, depth: int, layer_decay: float) -> float:
    """The share of the learning rate that a layer gets: what lies lower is more general, and should move less.

    Args:
        name: Of a parameter, e.g. `encoder.blocks.3.attn.qkv.weight`.
        depth: Blocks of the encoder, counted from 1 here.
        layer_decay: In (0, 1].

    Returns:
        `layer_decay^(depth + 1 - i)` in block i; i is 0 in the stem, which is tokenizer, positions and tokens, and
        depth + 1 behind the blocks: norm, pool, head.

    Source: Bao et al. 2022, BEiT (2106.08254), as their code has it. A relative bias that all blocks share belongs to
        their head and to our stem: ours is one table for every block, next to positions.
    """
    block = _BLOCK.match(name)
    number = int(block[1]) + 1 if block else 0 if _STEM.match(name) else depth + 1
    return float(layer_decay ** (depth + 1 - number))


def hidden_matrices(model: nn.Module) -> list[Parameter]:
    """Trainable matrices of the encoder's blocks: what has features on both of its sides."""
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    return [
        parameter
        for name, parameter in model.named_parameters()
        if _BLOCK.match(name) and id(parameter) in linear and parameter.requires_grad
    ]
