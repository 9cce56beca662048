"""A model -> the same with small corrections to learn beside its frozen matrices, and back to a plain model."""

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor, nn

from vitreous.errors import ConfigError
from vitreous.model.build import model_from_state
from vitreous.model.vit import VisionTransformer

_CORRECTED = ("qkv", "proj", "fc1", "fc2")
"""The matrices of a block, by the last part of their names."""


class LowRank(nn.Module):
    """A linear layer that stays as it is, plus a correction of low rank: `W x + α/r · B A x`.

    Args:
        base: The layer; its weight and bias take no gradient any more.
        rank: Rows of A, columns of B.
        alpha: α.
        generator: Where A comes from, a CPU generator; None takes torch's global one.

    Source:
        Hu et al. 2021, section 4.1 (2106.09685). B begins as zero, so that training begins at the model that was given;
        A as in their code, uniform within ±1/√width.
    """

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float, generator: Generator | None = None) -> None:
        super().__init__()
        device, dtype = base.weight.device, base.weight.dtype
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False, device=device, dtype=dtype)
        self.up = nn.Linear(rank, base.out_features, bias=False, device=device, dtype=dtype)
        self.scale = alpha / rank
        bound = 1 / math.sqrt(base.in_features)
        with torch.no_grad():
            drawn = torch.rand(rank, base.in_features, generator=generator)
            self.down.weight.copy_((2 * drawn - 1) * bound)
            self.up.weight.zero_()

    def forward(self, tokens: Tensor) -> Tensor:
        """What the layer gives, corrected."""
        return self.base(tokens) + self.scale * self.up(self.down(tokens))

    @property
    def weight(self) -> Tensor:
        """The matrix that does both at once, computed in float64."""
        correction = self.up.weight.double() @ self.down.weight.double()
        return (self.base.weight.double() + self.scale * correction).to(self.base.weight.dtype)


def add_lora(model: VisionTransformer, *, rank: int, alpha: float, generator: Generator | None = None) -> None:
    """Freeze a model, in place, but for its head, and give each matrix of its blocks a correction to learn.

    Args:
        model: A plain one.
        rank: Of the corrections, at least 1.
        alpha: They are scaled by `alpha / rank`.
        generator: Where they come from.

    Raises:
        ConfigError: A rank of which a correction would be larger than the narrowest matrix that it corrects.
    """
    found = [(block, name) for block in model.encoder.blocks for name, _ in _matrices(block)]
    narrowest = min(min(layer.weight.shape) for block in model.encoder.blocks for _, layer in _matrices(block))
    if not 1 <= rank <= narrowest:
        raise ConfigError(f"train.lora_rank={rank}: must be from 1 to {narrowest}, the model's width; 8 is usual")
    model.requires_grad_(False)
    for block, name in found:
        layer = block.get_submodule(name)
        if isinstance(layer, nn.Linear):
            block.set_submodule(name, LowRank(layer, rank=rank, alpha=alpha, generator=generator))
    model.head.requires_grad_(True)


def merge_lora(model: VisionTransformer) -> VisionTransformer:
    """A plain model that does the same, its corrections added to its matrices; one without any is returned itself."""
    corrected = {name: part for name, part in model.named_modules() if isinstance(part, LowRank)}
    if not corrected:
        return model
    state = dict(model.state_dict())
    for name, part in corrected.items():
        state[f"{name}.base.weight"] = part.weight
        del state[f"{name}.down.weight"], state[f"{name}.up.weight"]
    plain = {_plain_name(name, corrected): tensor.detach().clone() for name, tensor in state.items()}
    return model_from_state(model.config, plain).train(model.training)


def _matrices(block: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, part in block.named_modules():
        if isinstance(part, nn.Linear) and name.rpartition(".")[2] in _CORRECTED:
            yield name, part


def _plain_name(name: str, corrected: dict[str, LowRank]) -> str:
    module, _, parameter = name.rpartition(".")
    outer = module.removesuffix(".base")
    return f"{outer}.{parameter}" if outer in corrected else name
