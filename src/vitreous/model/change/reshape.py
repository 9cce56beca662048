"""A trained model -> the same model for another image size, patch size or number of channels."""

import dataclasses

from einops import rearrange

from vitreous.errors import ConfigError
from vitreous.model.build import model_from_state
from vitreous.model.config.model_config import Interpolation
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
    """Return a copy for images or patches of a different size; positions and patch projection are resampled.

    Args:
        model: Stays as it is.
        img_size: Height and width of the copy's images in px; None keeps the model's.
        patch_size: Side of the copy's patches in px; None keeps the model's. See `tokenizer.resize_projection`.
        interpolation: How learned positions are resampled, see `embedding.resize_grid`; None is the model's own way.

    Raises:
        ConfigError: Patches do not tile that size, or the patch size of another stem than `linear` would change.
    """
    config = dataclasses.replace(
        model.config,
        img_size=img_size or model.config.img_size,
        patch_size=patch_size or model.config.patch_size,
        position_resize=interpolation or model.config.position_resize,
    )
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
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
    return model_from_state(config, state).train(model.training)


def change_channels(model: VisionTransformer, in_chans: int) -> VisionTransformer:
    """Return a copy for images with other channels: from gray to color weights are divided, from color to gray summed.

    A gray image repeated in three channels gives the color copy the tokens that it gave the gray model, and vice versa.

    Args:
        model: The model, which is not changed. It is returned itself if it already takes this number of channels.
        in_chans: Channels of the copy's images.

    Raises:
        ConfigError: Neither the old nor the new number is 1, or the stem is not `linear`.
    """
    config = model.config
    if in_chans == config.in_chans:
        return model
    if 1 not in (in_chans, config.in_chans) or config.stem != "linear":
        raise ConfigError(
            f"data.in_chans={in_chans}: the model takes {config.in_chans}, and its model.stem={config.stem} cannot be "
            f"changed to {in_chans}; use data.in_chans={config.in_chans}"
        )
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    projection = rearrange(state["tokenizer.proj.weight"], "d (c n) -> d c n", c=config.in_chans)
    to_gray, from_gray = projection.sum(dim=1, keepdim=True), projection / in_chans
    changed = to_gray if in_chans == 1 else from_gray.expand(-1, in_chans, -1)
    state["tokenizer.proj.weight"] = rearrange(changed, "d c n -> d (c n)").contiguous()
    return model_from_state(dataclasses.replace(config, in_chans=in_chans), state).train(model.training)


def make_flexible(model: VisionTransformer, patch_sizes: tuple[int, ...]) -> VisionTransformer:
    """Return a copy that draws its patch size at each step of training and can run with any: FlexiViT (2212.08013).

    In evaluation, `model.tokenizer.patch_size = 8` sets the patch size: larger patches are faster, smaller ones more
    accurate.

    Args:
        model: A model with a `linear` stem, which is not changed. The weights are kept for its own patch size.
        patch_sizes: Sides in px to draw from.

    Raises:
        ConfigError: The stem is not `linear`, or there is no patch size.

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
    config = dataclasses.replace(model.config, dynamic_img_size=True)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    copy = model_from_state(config, state)
    if isinstance(copy.tokenizer, Tokenizer):
        copy.tokenizer = FlexibleTokenizer(copy.tokenizer, patch_sizes)
    return copy.train(model.training)
