"""A trained model -> the same for another image size, patch size, number of channels or set of classes."""

import dataclasses

from einops import rearrange

from vitreous.errors import ConfigError
from vitreous.model.build import model_from_state
from vitreous.model.config.model_config import Interpolation
from vitreous.model.parts.position import resize_grid
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
    """A copy for images or patches of another size: what is learned per place is resampled, all else is the same.

    Args:
        model: Stays as it is.
        img_size: Height and width in px that the copy shall take; None keeps the model's.
        patch_size: Side of the copy's patches in px; None keeps the model's. See `tokenizer.resize_projection`.
        interpolation: Whose, for learned positions; None is the model's own.

    Raises:
        ConfigError: Patches do not tile that size, or another stem than `linear` was asked for other patches.
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
                f"patch_size={patch_size}: model.stem={config.stem} cannot be brought to another; keep "
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
    """A copy for images of other channels: gray weights are shared among three, those of colours added up for gray.

    A gray image, repeated in three channels, gives the one copy what it gave the gray model; and so does the other with
    a gray image what the colour model made of it as red, green and blue.

    Args:
        model: Stays as it is; one that has so many channels already is returned itself.
        in_chans: That the copy shall take.

    Raises:
        ConfigError: Neither the old nor the new number is 1, or another stem than `linear`.
    """
    config = model.config
    if in_chans == config.in_chans:
        return model
    if 1 not in (in_chans, config.in_chans) or config.stem != "linear":
        raise ConfigError(
            f"data.in_chans={in_chans}: the model takes {config.in_chans}, and its model.stem={config.stem} is not "
            f"brought to {in_chans}; use data.in_chans={config.in_chans}"
        )
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    projection = rearrange(state["tokenizer.proj.weight"], "d (c n) -> d c n", c=config.in_chans)
    to_gray, from_gray = projection.sum(dim=1, keepdim=True), projection / in_chans
    changed = to_gray if in_chans == 1 else from_gray.expand(-1, in_chans, -1)
    state["tokenizer.proj.weight"] = rearrange(changed, "d c n -> d (c n)").contiguous()
    return model_from_state(dataclasses.replace(config, in_chans=in_chans), state).train(model.training)


def make_flexible(model: VisionTransformer, patch_sizes: tuple[int, ...]) -> VisionTransformer:
    """A copy that trains with a patch size drawn at each step, and can be run with any: FlexiViT (2212.08013).

    Args:
        model: With a `linear` stem; stays as it is. Its own patch size is what the weights are kept in.
        patch_sizes: Sides in px to draw from.

    Raises:
        ConfigError: Another stem, or no patch size.
    """
    if model.config.stem != "linear":
        raise ConfigError(f"model.stem={model.config.stem}: has no patches to resize; use model.stem=linear")
    config = dataclasses.replace(model.config, dynamic_img_size=True)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    copy = model_from_state(config, state)
    if isinstance(copy.tokenizer, Tokenizer):
        copy.tokenizer = FlexibleTokenizer(copy.tokenizer, patch_sizes)
    return copy.train(model.training)
