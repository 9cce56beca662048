"""A model, names -> intermediate tensors of a forward pass: tokens, queries, keys, values, attention maps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vitreous.errors import UnknownNameError, nearest
from vitreous.model.parts.attention import Attention
from vitreous.model.parts.relation import NO_RELATION
from vitreous.model.parts.relative_bias import RelativeBias
from vitreous.model.parts.rotary import MixedRotaryPosition, RotaryPosition

INSIDE_ATTENTION = ("queries", "keys", "values", "maps")
"""Tensors inside an attention that can be read, each `[batch, heads, tokens, …]`; maps are probabilities."""


def tap_names(model: nn.Module) -> list[str]:
    """Return the names of everything that `taps` can read: the submodules, and what is inside each attention."""
    names = []
    for name, module in model.named_modules():
        if not name or _gives_no_tensor(module):
            continue
        names.append(name)
        if isinstance(module, Attention):
            names += [f"{name}.{part}" for part in INSIDE_ATTENTION]
    return names


@contextmanager
def taps(model: nn.Module, *patterns: str, detach: bool = True) -> Iterator[dict[str, Tensor]]:
    """Read intermediate tensors by name while the model runs; its output and random state do not change.

    Args:
        model: Any model; for a compiled one, the original module.
        patterns: Names as in `tap_names`; `*` stands for any part between two dots.
        detach: Detach what is read from the graph. If False, gradients flow to and through it. Gradients of the output
            reach the tensors inside an attention only in evaluation mode, because in training its dropout would have to
            be drawn twice.

    Yields:
        A dictionary from name to tensor that each forward fills again. Parts that the forward does not call are absent.

    Raises:
        UnknownNameError: No name matches a pattern; the nearest name is suggested.

    Example:
        >>> import torch
        >>> from vitreous.model import create_model
        >>> model = create_model("vit_pico_patch4_28", num_classes=5, in_chans=1)
        >>> with taps(model, "encoder.blocks.*.attn.maps") as seen:
        ...     logits = model(torch.zeros(2, 1, 28, 28))
        >>> seen["encoder.blocks.3.attn.maps"].shape
        torch.Size([2, 4, 50, 50])
    """
    wanted = _matching(tap_names(model), patterns)
    seen: dict[str, Tensor] = {}
    handles: list[RemovableHandle] = []
    try:
        for name, module in model.named_modules():
            inside = [part for part in INSIDE_ATTENTION if f"{name}.{part}" in wanted]
            if isinstance(module, Attention) and inside:
                hook = _attention_hook(name, inside, seen, detach)
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
            if name in wanted:
                handles.append(module.register_forward_hook(_output_hook(name, seen, detach)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _gives_no_tensor(module: nn.Module) -> bool:
    """Return True for containers, which are never called, and for parts that return relations instead of a tensor."""
    uncalled = type(module).forward is nn.Module.forward
    return uncalled or isinstance(module, RotaryPosition | MixedRotaryPosition | RelativeBias)


def _matching(names: list[str], patterns: tuple[str, ...]) -> set[str]:
    wanted: set[str] = set()
    for pattern in patterns:
        parts = pattern.split(".")
        found = {
            name
            for name in names
            if name.count(".") == len(parts) - 1 and all(map(fnmatchcase, name.split("."), parts))
        }
        if not found:
            raise UnknownNameError(f"tap={pattern}: no part of this model has such a name; {nearest(pattern, names)}")
        wanted |= found
    return wanted


def _output_hook(name: str, seen: dict[str, Tensor], detach: bool) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output  # patch_drop also returns the patches it kept
        seen[name] = tensor.detach() if detach else tensor

    return hook


def _attention_hook(name: str, inside: list[str], seen: dict[str, Tensor], detach: bool) -> Callable[..., Any]:
    def hook(module: Attention, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        tokens, relation = (*args, kwargs.get("relation", NO_RELATION))[:2]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not detach):
            queries, keys, values = module.project(tokens, relation)
            maps = module.weights(queries, keys, relation.bias)
            found = dict(zip(INSIDE_ATTENTION, (queries, keys, values, maps), strict=True))
            seen.update({f"{name}.{part}": found[part] for part in inside})
            if detach or module.training or not torch.is_grad_enabled():
                return None
            # Keep the numbers of the kernel, and let the gradient flow through the maps.
            explicit = module.output(tokens, maps @ values)
            return output.detach() + (explicit - explicit.detach())

    return hook
