"""DINOv2 weights in transformers' format -> the difference of their tokens in vitreous, at several image sizes.

    .venv/bin/python benchmarks/backbones.py dinov2-small         a folder with config.json and model.safetensors

Every row runs the same trained weights in transformers and in vitreous, in float32 on the CPU, on two photos that come
with scikit-learn. A difference is the largest of all tokens after the final norm, relative to the largest token value.

* dinov2: `Dinov2Model`, resized positions included.
* registers: `Dinov2WithRegistersModel` with four registers drawn at random.
* meta: a file under the names of Meta's own code. transformers runs with positions resized by Meta's formula.
* meta registers: the same with registers; transformers runs as it is.
* vit: `ViTModel`, with LayerScale multiplied into the projections before it.
* 1 channel, 13 channels: gray photos; transformers runs on their copies in three channels.
* patches of 28 px: each patch is enlarged to twice its side; transformers runs on the original photos.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional as F
from transformers.models.dinov2 import modeling_dinov2

import vitreous
from results import command_line, results_file
from vitreous.model.change.reshape import change_channels, resize_model
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import export_weights

SIZES = ((98, 98), (126, 126), (224, 224), (196, 280))
NUM_REGISTERS = 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOLERANCE = 1e-5

Tokens = Callable[[Tensor], Tensor]
"""Normalized images -> tokens after the final norm."""


def photos(size: tuple[int, int]) -> Tensor:
    """Return two normalized photos, `[2, 3, height, width]`."""
    pixels = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2).float() / 255
    pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std


def resize_as_meta(self: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """Resize positions as `interpolate_pos_encoding` of facebookresearch/dinov2 does without registers."""
    table, patch = self.position_embeddings, self.patch_size
    side = round((table.shape[1] - 1) ** 0.5)
    if (height, width) == (side * patch, side * patch):
        return table
    grid = table[0, 1:].T.reshape(1, -1, side, side)
    scale = ((height // patch + 0.1) / side, (width // patch + 0.1) / side)
    resized = F.interpolate(grid, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
    return torch.cat([table[:, :1], resized], dim=1)


def with_registers(plain: Any) -> Any:
    """Return the weights as a `Dinov2WithRegistersModel`, with registers of the size of the class token."""
    values = {**plain.config.to_dict(), "num_register_tokens": NUM_REGISTERS}
    values = {key: value for key, value in values.items() if key not in ("model_type", "architectures")}
    model = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**values)).eval()
    registers = torch.randn(1, NUM_REGISTERS, plain.config.hidden_size, generator=torch.Generator().manual_seed(0))
    registers *= plain.embeddings.cls_token.detach().std()
    model.load_state_dict({**plain.state_dict(), "embeddings.register_tokens": registers})
    return model


def as_vit(plain: Any) -> Any:
    """Return the weights as a `ViTModel`: LayerScale is multiplied into the projections before it."""
    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        ours = vitreous.load_model(folder)
        state = ours.state_dict()
        for name in [name for name in state if name.endswith(".gamma")]:
            layer = name.replace("ls1.gamma", "attn.proj").replace("ls2.gamma", "mlp.fc2")
            gamma = state.pop(name)
            state[f"{layer}.weight"] = state[f"{layer}.weight"] * gamma[:, None]
            state[f"{layer}.bias"] = state[f"{layer}.bias"] * gamma
        changed = {"layer_scale": 0.0, "dynamic_img_size": False}
        folded = vitreous.model.build_model(vitreous.model.ModelConfig.from_dict(ours.config.as_dict() | changed))
        folded.load_state_dict(state)
        export_weights(folded, Path(folder) / "vit", to="hf")
        return transformers.ViTModel.from_pretrained(Path(folder) / "vit", add_pooling_layer=False).eval()


def opened(model: Any, folder: Path, *, as_meta: bool = False) -> VisionTransformer:
    """Save a model of transformers and open it with vitreous, by way of a file with Meta's names if `as_meta`."""
    model.save_pretrained(folder)
    ours = vitreous.load_model(folder)
    if as_meta:
        export_weights(ours, folder / "meta.pth", to="meta")
        ours = vitreous.load_model(folder / "meta.pth")
    return ours


def models_of(plain: Any, folder: Path) -> dict[str, tuple[Tokens, VisionTransformer]]:
    """Return the model of transformers and ours, by case."""
    registered, vit = with_registers(plain), as_vit(plain)
    return {
        "dinov2": (tokens_of(plain), opened(plain, folder / "a")),
        "registers": (tokens_of(registered), opened(registered, folder / "b")),
        "meta": (tokens_of(plain), opened(plain, folder / "c", as_meta=True)),
        "meta registers": (tokens_of(registered), opened(registered, folder / "d", as_meta=True)),
        "vit": (tokens_of(vit, interpolate_pos_encoding=True), opened(vit, folder / "e")),
    }


def tokens_of(model: Any, **options: Any) -> Tokens:
    """Return the function from images to tokens."""
    return lambda images: model(images, **options).last_hidden_state


def difference(theirs: Tokens, ours: Tokens, images: Tensor, changed: Tensor | None = None) -> float:
    """Return the largest difference of two models, relative to the largest token value.

    Args:
        theirs: Model of transformers.
        ours: The same weights in vitreous.
        images: Input of the first model.
        changed: Input of the second one; None for the same.
    """
    with torch.inference_mode():
        expected, found = theirs(images), ours(images if changed is None else changed)
    return ((expected - found).abs().max() / expected.abs().max()).item()


def changed_differences(theirs: Tokens, ours: VisionTransformer, images: Tensor) -> dict[str, float]:
    """Return the difference after changes of channels and patch size, by case."""
    gray, found = images.mean(dim=1, keepdim=True), {}
    for channels in (1, 13):
        copy, copies = change_channels(ours, channels), gray.expand(-1, channels, -1, -1)
        name = f"{channels} channel{'s' * (channels > 1)}"
        found[name] = difference(theirs, copy.forward_features, gray.expand(-1, 3, -1, -1), copies)
    patch, double = ours.config.patch_size, tuple(2 * side for side in images.shape[-2:])
    patches = F.unfold(images, patch, stride=patch).transpose(1, 2).reshape(-1, 3, patch, patch)
    larger = F.interpolate(patches, scale_factor=2, mode="bilinear").reshape(len(images), -1, 3 * (2 * patch) ** 2)
    enlarged = F.fold(larger.transpose(1, 2), double, 2 * patch, stride=2 * patch)
    copy = resize_model(ours, (double[0], double[1]), patch_size=2 * patch)
    found[f"patches of {2 * patch} px"] = difference(theirs, copy.forward_features, images, enlarged)
    return found


def differences(models: dict[str, tuple[Tokens, VisionTransformer]], size: tuple[int, int]) -> dict[str, float]:
    """Return the difference at one image size, by case."""
    images, found = photos(size), {}
    for case, (theirs, ours) in models.items():
        with meta_positions(case == "meta"):
            found[case] = difference(theirs, resize_model(ours, size).forward_features, images)
    theirs, ours = models["dinov2"]
    return found | changed_differences(theirs, resize_model(ours, size), images)


@contextmanager
def meta_positions(applies: bool) -> Iterator[None]:
    """Let transformers resize the positions of DINOv2 by Meta's formula."""
    embeddings = modeling_dinov2.Dinov2Embeddings
    original = embeddings.interpolate_pos_encoding
    embeddings.interpolate_pos_encoding = resize_as_meta if applies else original
    try:
        yield
    finally:
        embeddings.interpolate_pos_encoding = original


def main() -> None:
    """Print a table of differences, and store them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="folder of a Dinov2Model as transformers saves it")
    weights = parser.parse_args().weights
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    plain = transformers.Dinov2Model.from_pretrained(weights).eval()
    path, stored = results_file("backbones")
    stored |= {"command": command_line(), "versions": {m.__name__: m.__version__ for m in (torch, transformers)}}
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        models = models_of(plain, Path(folder))
    for size in SIZES:
        for case, value in differences(models, size).items():
            rows.setdefault(case, {})["x".join(map(str, size))] = value
    stored["largest_relative_difference"] = rows
    path.write_text(json.dumps(stored, indent=1) + "\n")
    sizes = list(next(iter(rows.values())))
    print(f"| case | {' | '.join(f'{size} px' for size in sizes)} |\n|{'---|' * (len(sizes) + 1)}")
    for case, values in rows.items():
        print(f"| {case} | {' | '.join(f'{values[size]:.1e}' for size in sizes)} |")
    largest = max(value for values in rows.values() for value in values.values())
    print(f"largest difference {largest:.1e}, {'within' if largest <= TOLERANCE else 'above'} {TOLERANCE:g}")


if __name__ == "__main__":
    main()
