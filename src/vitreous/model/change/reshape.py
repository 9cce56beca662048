"""A trained model -> the same model for another image size, patch size or number of channels."""

import dataclasses
from collections.abc import Mapping
from typing import cast

from einops import rearrange
from torch import Tensor

from vitreous.errors import ConfigError
from vitreous.model.build import model_from_state
from vitreous.model.change.merge import MergingEncoder
from vitreous.model.config.model_config import Interpolation, ModelConfig
from vitreous.model.parts.embedding import resize_grid
from vitreous.model.parts.relative_bias import resize_table
from vitreous.model.parts.tokenizer import FlexibleTokenizer, Tokenizer, resize_projection
from vitreous.model.vit import VisionTransformer


def resize_model(
    model: VisionTransformer,
    img_size: tuple[int, int] | None = None,
    *,
    patch_size: int | None = None,
    interpolation: Interpolation | None = None,
) -> VisionTransformer:
    """Return a copy for images or patches of another size; positions and patch projection are resized.

    Token merging and a flexible patch size are kept. A block merges at most half of the patches that remain.

    Args:
        model: Not changed.
        img_size: New height and width of the images in px; None keeps the size.
        patch_size: New side of a patch in px; None keeps it. See `tokenizer.resize_projection`.
        interpolation: Method of resizing learned positions, see `embedding.resize_grid`; None for the model's own.

    Raises:
        ConfigError: Patches do not tile this size, or the patch size would change but the stem is not `linear`.
    """
    config = dataclasses.replace(
        model.config,
        img_size=model.config.img_size if img_size is None else img_size,
        patch_size=model.config.patch_size if patch_size is None else patch_size,
        position_resize=interpolation or model.config.position_resize,
    )
    state = _copied(model)
    if config.patch_size != model.config.patch_size:
        if config.stem != "linear":
            raise ConfigError(
                f"patch_size={patch_size}: model.stem={config.stem} cannot change its patch size; keep "
                f"{model.config.patch_size}, or train another model"
            )
        projection = state["tokenizer.proj.weight"]
        state["tokenizer.proj.weight"] = resize_projection(projection, config.in_chans, config.patch_size)
    if "position.grid" in state:
        state["position.grid"] = resize_grid(state["position.grid"], config.grid_size, config.position_resize)
    if "relation.table" in state:
        state["relation.table"] = resize_table(state["relation.table"], config.grid_size)
    return _rebuilt(model, config, state)


def change_channels(model: VisionTransformer, in_chans: int) -> VisionTransformer:
    """Return a copy for images with another number of channels.

    From gray to color, the weights of the patch projection are repeated and divided by the number of channels; from
    color to gray, they are summed. A gray image and its copies in every channel give the same tokens. Between two other
    numbers, such as from RGB to 13 bands of a satellite, they are converted to gray first, so all channels start equal.
    The model is not changed. It is returned itself if it already takes this number of channels.

    Raises:
        ConfigError: The stem is not `linear`.

    Source:
        timm's `adapt_input_conv`, which sums in the same way. For other numbers it repeats red, green and blue in turn,
        times 3 / channels; here every channel gets the sum of all weights / channels. Both keep the tokens of gray
        images.
    """
    config = model.config
    if in_chans == config.in_chans:
        return model
    if config.stem != "linear":
        raise ConfigError(
            f"data.in_chans={in_chans}: the model takes {config.in_chans}, and its model.stem={config.stem} cannot be "
            f"changed to {in_chans}; use data.in_chans={config.in_chans}"
        )
    if 1 not in (in_chans, config.in_chans):
        return change_channels(change_channels(model, 1), in_chans)
    state = _copied(model)
    projection = rearrange(state["tokenizer.proj.weight"], "d (c n) -> d c n", c=config.in_chans)
    to_gray, from_gray = projection.sum(dim=1, keepdim=True), projection / in_chans
    changed = to_gray if in_chans == 1 else from_gray.expand(-1, in_chans, -1)
    state["tokenizer.proj.weight"] = rearrange(changed, "d c n -> d (c n)").contiguous()
    return _rebuilt(model, dataclasses.replace(config, in_chans=in_chans), state)


def make_flexible(model: VisionTransformer, patch_sizes: tuple[int, ...]) -> VisionTransformer:
    """Return a copy that draws its patch size at each step of training and can run with any: FlexiViT (2212.08013).

    In evaluation mode, set the patch size with e.g. `model.tokenizer.patch_size = 8`: larger patches are faster,
    smaller ones more accurate. The model has a `linear` stem and is not changed. Patch sizes are sides in px. The
    weights of the copy are saved for its own patch size.

    Raises:
        ConfigError: The stem is not `linear`, or `patch_sizes` is empty or contains a number below 1.

    Example:
        >>> import torch
        >>> from vitreous.model import create_model, make_flexible
        >>> model = make_flexible(create_model("vit_tiny_patch16_224", num_classes=5), (8, 16, 32)).eval()
        >>> model.tokenizer.patch_size = 32
        >>> model(torch.zeros(1, 3, 224, 224)).shape
        torch.Size([1, 5])
    """
    if model.config.stem != "linear":
        raise ConfigError(f"model.stem={model.config.stem}: has no patches to resize; use model.stem=linear")
    return _rebuilt(model, dataclasses.replace(model.config, dynamic_img_size=True), _copied(model), patch_sizes)


def _copied(model: VisionTransformer) -> dict[str, Tensor]:
    """Return copies of the weights, by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _rebuilt(
    model: VisionTransformer,
    config: ModelConfig,
    state: Mapping[str, Tensor],
    patch_sizes: tuple[int, ...] | None = None,
) -> VisionTransformer:
    """Build a model from changed weights that merges tokens as the old one does.

    Its patch size is drawn from `patch_sizes`; None draws from those of the old model, if its patch size is flexible.
    """
    copy, old = model_from_state(config, state), model.tokenizer
    if patch_sizes is not None:
        copy.tokenizer = FlexibleTokenizer(cast("Tokenizer", copy.tokenizer), patch_sizes)
    elif isinstance(old, FlexibleTokenizer):
        copy.tokenizer = FlexibleTokenizer(cast("Tokenizer", copy.tokenizer), old.patch_sizes)
        if config.patch_size == model.config.patch_size:
            copy.tokenizer.patch_size = old.chosen_patch_size
    if isinstance(model.encoder, MergingEncoder):
        copy.encoder = MergingEncoder(
            copy.encoder, num_merged=model.encoder.num_merged, num_prefix_tokens=model.num_prefix_tokens
        )
    return copy.train(model.training)
