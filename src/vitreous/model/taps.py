"""A model, names -> what its parts give, read beside the forward: tokens, queries, keys, values, attention maps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vitreous.errors import UnknownNameError, nearest
from vitreous.model.parts.attention import Attention
from vitreous.model.parts.relation import Relation
from vitreous.model.parts.relative_bias import RelativeBias
from vitreous.model.parts.rotary import MixedRotaryPosition, RotaryPosition

INSIDE_ATTENTION = ("queries", "keys", "values", "maps")
"""What an attention can be asked beside its output, `[batch, heads, tokens, …]`; maps are probabilities."""


def tap_names(model: nn.Module) -> list[str]:
    """All that `taps` can read from a model: its submodules, and what is inside each attention."""
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
    """Read intermediates by name while the model runs; its output and its random state stay what they are.

    Args:
        model: Any; a compiled one as it was before.
        patterns: Names as `tap_names` lists them; `*` stands for any part between two dots.
        detach: Cut what is read off the graph. Otherwise gradients flow into it, and from it to what came before; those
            of the output reach what is inside an attention in evaluation alone, as in training its dropout would have
            to be drawn twice.

    Yields:
        Name to tensor, filled anew by each forward. A part that the forward does not call is not in it.

    Raises:
        UnknownNameError: A pattern that no name fits; the nearest name is suggested.

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
    """Containers, which are never called, and parts whose output is no tensor but relations."""
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
        # Some give more than tokens: dropped patches their cells, an attention its keys.
        tensor = output[0] if isinstance(output, tuple) else output
        seen[name] = tensor.detach() if detach else tensor

    return hook


def _attention_hook(name: str, inside: list[str], seen: dict[str, Tensor], detach: bool) -> Callable[..., Any]:
    def hook(module: Attention, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        tokens, relation = (*args, kwargs.get("relation", Relation()))[:2]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not detach):
            queries, keys, values = module.heads(tokens, relation)
            maps = module.weigh(queries, keys, relation)
            found = dict(zip(INSIDE_ATTENTION, (queries, keys, values, maps), strict=True))
            seen.update({f"{name}.{part}": found[part] for part in inside})
            if detach or module.training or not torch.is_grad_enabled():
                return None
            # The kernel's own numbers, with the gradient of the product written out: maps lie on the way to the logits.
            mixed = module.mix(tokens, maps @ values)
            original = output[0] if isinstance(output, tuple) else output
            same = original.detach() + (mixed - mixed.detach())
            return (same, *output[1:]) if isinstance(output, tuple) else same

    return hook
