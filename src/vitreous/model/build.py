"""A name or a `ModelConfig` -> VisionTransformer, with fresh or given weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitreous.model.build_parts import build_parts
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import config_for
from vitreous.model.init import initialise
from vitreous.model.vit import VisionTransformer
from vitreous.seeding import derive


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    drop_path_rate: float = 0.0,
    seed: int | None = None,
) -> VisionTransformer:
    """A freshly initialised model by name, e.g. `vit_small_patch16_224`.

    Args:
        name: `vit_{size}_patch{px}_{px}` with one of `presets.SIZES`, shorter with `img_size` and `patch_size` given,
            or a published family's, as timm has it: `deit3_base_patch16_224`, `vit_small_patch14_dinov2` …
        num_classes: Logits; 0 returns features instead; None as the name was published, mostly 1000.
        in_chans: Channels of an image.
        img_size: Side, or height and width, in px; overrides the name's.
        patch_size: Side of a patch in px; overrides the name's.
        drop_path_rate: Stochastic depth of the last block.
        seed: Makes the weights reproducible; None draws them from torch's global generator.

    Raises:
        UnknownNameError: No such name; the nearest one is suggested.
        ConfigError: A size that nobody gave, or a value that breaks a rule.
    """
    config = config_for(
        name,
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size,
        patch_size=patch_size,
        drop_path_rate=drop_path_rate,
    )
    generator = None if seed is None else torch.Generator().manual_seed(derive(seed, "init"))
    return build_model(config, generator=generator)


def build_model(
    config: ModelConfig, *, device: torch.device | str = "cpu", generator: torch.Generator | None = None
) -> VisionTransformer:
    """A freshly initialised model, in training mode.

    Args:
        config: What to build.
        device: Where it shall live. Weights are drawn on the CPU first, so that they are the same everywhere; `meta`
            draws and allocates nothing: shapes alone.
        generator: Where the weights come from, a CPU generator; None takes torch's global one.
    """
    model = _skeleton(config)
    if torch.device(device).type == "meta":
        return model
    model.to_empty(device="cpu")
    initialise(model, scheme=config.init, generator=generator)
    return model.to(device)


def model_from_state(config: ModelConfig, state: Mapping[str, Tensor]) -> VisionTransformer:
    """A model that holds these very tensors, in their dtype and on their device; no weight is drawn or copied.

    Args:
        config: What to build.
        state: Every parameter by name, of the right shape.

    Raises:
        RuntimeError: PyTorch's own, for names or shapes that do not fit; `weights` checks and explains before.
    """
    first = next(iter(state.values()))
    model = _skeleton(config).to(first.dtype).to_empty(device=first.device)
    model.load_state_dict(dict(state), strict=True, assign=True)
    return model


def _skeleton(config: ModelConfig) -> VisionTransformer:
    # The meta device spares PyTorch's own initialisation, which `initialise` or loaded weights would overwrite.
    with torch.device("meta"):
        return VisionTransformer(config, **build_parts(config))
