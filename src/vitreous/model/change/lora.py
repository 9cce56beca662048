"""A model -> the same model with trainable low-rank updates of its frozen matrices (LoRA), and back."""

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor, nn

from vitreous.errors import ConfigError
from vitreous.model.build import model_from_state
from vitreous.model.vit import VisionTransformer

_UPDATED = ("qkv", "proj", "fc1", "fc2")
"""The matrices of a block, by the last part of their names."""


class LowRank(nn.Module):
    """A frozen linear layer plus a trainable update of low rank: `W x + α/r · B A x`.

    The rank r is the number of rows of A and of columns of B. A is drawn from a CPU generator; None uses torch's global
    one.

    Source:
        Hu et al. 2021, section 4.1 (2106.09685). B starts at zero, so the first output is that of the base layer. A is
        drawn as in their code, uniform within ±1/√width.
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
        """Return base(x) + scale * up(down(x))."""
        return self.base(tokens) + self.scale * self.up(self.down(tokens))

    @property
    def weight(self) -> Tensor:
        """The merged matrix, computed in float64, on the CPU: Apple's GPUs have no float64."""
        base, up, down = (layer.weight.cpu().double() for layer in (self.base, self.up, self.down))
        return (base + self.scale * (up @ down)).to(self.base.weight)


def add_lora(model: VisionTransformer, *, rank: int, alpha: float, generator: Generator | None = None) -> None:
    """Freeze all of a model except its head, and add a trainable low-rank update to each matrix of its blocks.

    The updates are scaled by `alpha / rank`.

    Raises:
        ConfigError: The rank is below 1 or exceeds the width of the narrowest matrix.
    """
    matrices = [(block, name, layer) for block in model.encoder.blocks for name, layer in _matrices(block)]
    narrowest = min(min(layer.weight.shape) for _, _, layer in matrices)
    if not 1 <= rank <= narrowest:
        raise ConfigError(
            f"train.lora_rank={rank}: must be from 1 to {narrowest}, the width of the narrowest matrix; 8 is usual"
        )
    model.requires_grad_(False)
    for block, name, layer in matrices:
        block.set_submodule(name, LowRank(layer, rank=rank, alpha=alpha, generator=generator))
    model.head.requires_grad_(True)


def merge_lora(model: VisionTransformer) -> VisionTransformer:
    """Return a model with the updates added to its matrices. A model without updates is returned unchanged."""
    updated = {name: part for name, part in model.named_modules() if isinstance(part, LowRank)}
    if not updated:
        return model
    inner = {f"{name}.{layer}" for name in updated for layer in ("base", "down", "up")}
    state = {name: tensor for name, tensor in model.state_dict().items() if name.rpartition(".")[0] not in inner}
    for name, part in updated.items():
        state[f"{name}.weight"] = part.weight
        if part.base.bias is not None:
            state[f"{name}.bias"] = part.base.bias
    copies = {name: tensor.detach().clone() for name, tensor in state.items()}
    return model_from_state(model.config, copies).train(model.training)


def _matrices(block: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, part in block.named_modules():
        if isinstance(part, nn.Linear) and name.rpartition(".")[2] in _UPDATED:
            yield name, part
