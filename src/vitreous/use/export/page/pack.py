"""Predictor -> PackedModel: what `engine.js` needs, as JSON with weights of 8 bits, or the reason why it cannot run."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.build import build_model
from vitreous.model.parts.attention import KeylessBiasLinear
from vitreous.model.parts.relative_bias import RelativeBias
from vitreous.model.vit import VisionTransformer
from vitreous.training.fit.familiarity import FLAGGED, Familiarity
from vitreous.use.export.page.int8 import MATRICES, to_int8, with_int8_weights
from vitreous.use.predict.predictor import Predictor

MOST_BYTES = 4_000_000
"""Size of a packed model, which leaves a fifth of a page of 5 MB to the rest of a report."""
TOLERANCE = 1e-3
"""Largest difference of a logit between `engine.js` and Python with the same weights; `tests/browser` measures it."""
_WAY_OUT = "use `vitreous predict` for this model"


@dataclass(frozen=True, eq=False)
class PackedModel:
    """A model that a page can run.

    Attributes:
        rounded: The same model in Python, with the weights that the page has.
        text: JSON without `<`, so that no class name can end the script element that will contain it.
    """

    rounded: VisionTransformer
    text: str


@torch.no_grad()
def pack(predictor: Predictor, *, example: bytes | None = None) -> PackedModel:
    """Pack a model, and if there is room what training images look like to it. `example` is a PNG file to try it with.

    Raises:
        ConfigError: The model is too large for a page, was changed after it was built, or takes images that a browser
            does not read.
    """
    _check(predictor)
    rounded = with_int8_weights(predictor.model)
    for known in (predictor.familiarity, None):
        text = _text(predictor, rounded, known, example)
        if len(text) <= MOST_BYTES:
            return PackedModel(rounded, text)
    raise _too_large(len(text))


def _text(predictor: Predictor, rounded: VisionTransformer, known: Familiarity | None, example: bytes | None) -> str:
    weights = _Weights()
    levels = torch.tensor([0.0, 255.0]).view(2, 1, 1, 1).expand(-1, predictor.preprocess.in_chans, 1, 1)
    black, white = predictor.preprocess.normalize(levels).flatten(1).double()
    data = {
        "temperature": predictor.temperature,
        "example": None if example is None else as_base64(example),
        "normalize": {"scale": ((white - black) / 255).tolist(), "shift": black.tolist()},
        "model": _describe(rounded, weights) | {"familiarity": None if known is None else _familiarity(known, weights)},
        "floats": as_base64(torch.cat(weights.floats).numpy().astype("<f4").tobytes()),
        "integers": as_base64(torch.cat(weights.integers).numpy().tobytes()),
    }
    return page_data(predictor, data)


def page_data(predictor: Predictor, data: Mapping[str, Any]) -> str:
    """Return the JSON of a page with any model, without `<`: what `app.js` needs, and `data` for its `Engine`."""
    described = {
        "classes": predictor.classes,
        "thresholds": predictor.thresholds,
        "preprocess": predictor.preprocess.as_dict() | {"may_turn": may_turn()},
        "flagged": FLAGGED,
    }
    return json.dumps({**described, **data}, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def may_turn() -> bool:
    """Return True if this version of Pillow may resize the columns of a tall image before its rows."""
    tall, bicubic = Image.linear_gradient("L").rotate(30).resize((7, 31)), Image.Resampling.BICUBIC
    rows_first = tall.resize((24, 31), bicubic).resize((24, 16), bicubic)
    return tall.resize((24, 16), bicubic) != rows_first


def check_images(preprocess: Preprocess) -> None:
    """Raise ConfigError if a browser does not read the images that a model takes."""
    if preprocess.in_chans not in (1, 3):
        raise ConfigError(f"data.in_chans={preprocess.in_chans}: a browser reads gray and color images; {_WAY_OUT}")
    if preprocess.value_range:
        limits = ",".join(f"{limit:g}" for limit in preprocess.value_range)
        raise ConfigError(f"data.value_range={limits}: a browser reads only 8 bits of an image; {_WAY_OUT}")


def _check(predictor: Predictor) -> None:
    check_images(predictor.preprocess)
    model = predictor.model
    if (size := sum(weight.numel() for weight in model.parameters()) * 4 // 3) > MOST_BYTES:
        raise _too_large(size)
    if model.config.extension:
        raise ConfigError(f"model.extension={model.config.extension}: a page has no parts of your own; {_WAY_OUT}")
    built = build_model(model.config, device="meta")
    kinds, expected = ([type(module) for module in some.modules()][1:] for some in (model, built))
    if kinds != expected:
        raise ConfigError(f"model={type(model).__name__}: was changed after it was built; {_WAY_OUT}")


def _too_large(size: int) -> ConfigError:
    return ConfigError(
        f"model={size / 1e6:.1f} MB: more than the {MOST_BYTES / 1e6:g} MB, about 2.9 million parameters, that a page "
        f"takes; {_WAY_OUT}"
    )


@dataclass
class _Weights:
    """Weights in the order in which they are described: whole numbers of 8 bits, and float32."""

    integers: list[Tensor] = field(default_factory=list)
    floats: list[Tensor] = field(default_factory=list)

    def vector(self, values: Tensor) -> dict[str, int]:
        return {"at": _append(self.floats, values.detach().float()), "count": values.numel()}

    def matrix(self, layer: Any) -> dict[str, Any]:
        weight, bias = layer.weight, layer.bias
        if isinstance(layer, KeylessBiasLinear):
            of_queries, of_values = bias.chunk(2)
            bias = torch.cat([of_queries, torch.zeros_like(of_queries), of_values])
        if weight.ndim == 4:  # the engine puts the channels of a pixel next to each other
            weight = rearrange(weight, "o c h w -> o (h w c)")
        stride = layer.stride[0] if isinstance(layer, nn.Conv2d) else 1
        given = None if bias is None else self.vector(bias)
        return self.rounded(weight) | {"bias": given, "kind": type(layer).__name__, "stride": stride}

    def rounded(self, matrix: Tensor) -> dict[str, Any]:
        values, scales = to_int8(matrix)
        place = {"at": _append(self.integers, values), "rows": values.shape[0], "columns": values.shape[1]}
        return place | {"scales": self.vector(scales)}

    def tree(self, module: nn.Module) -> Any:
        """Describe a module like PyTorch does: its parts and parameters by name; a list for a sequence of modules."""
        if isinstance(module, MATRICES):
            return self.matrix(module)
        if isinstance(module, nn.ModuleList | nn.Sequential):
            return list(map(self.tree, module))
        parts = {name: self.tree(part) for name, part in module.named_children()}
        own = {name: self.vector(values) for name, values in module.named_parameters(recurse=False)}
        return {"kind": type(module).__name__, "eps": getattr(module, "eps", None)} | own | parts


def _append(parts: list[Tensor], values: Tensor) -> int:
    """Append the values to the others and return the number of values before them."""
    parts.append(values.flatten())
    return sum(map(len, parts[:-1]))


def _describe(model: VisionTransformer, weights: _Weights) -> dict[str, Any]:
    """Return the configuration and the weights; what is the same for all images is computed here."""
    config, width = model.config, model.config.embed_dim
    names = ("tokenizer", "patch_norm", "encoder", "pool", "fc_norm", "head")
    return {
        "config": config.as_dict(),
        "position": weights.vector(model.position(torch.zeros(1, config.num_patches, width), config.grid_size)),
        "prefix": weights.vector(model.prefix(torch.zeros(1, 0, width))),
        "bias": weights.tree(model.relation) if isinstance(model.relation, RelativeBias) else None,
        "rotations": _rotations(model, weights),
        # Of the parts of an image that are nearest to each row and column of tokens, in px
        "edges": [[0, *model.tokenizer.nearest_tokens(n).bincount().cumsum(0).tolist()] for n in config.grid_size],
        **{name: weights.tree(getattr(model, name)) for name in names},
    }


def _rotations(model: VisionTransformer, weights: _Weights) -> list[dict[str, Any]]:
    """Return cosines and sines for each block; none without rotary positions."""
    if model.relation is None or isinstance(model.relation, RelativeBias):
        return []
    relations, stored = model.relation(model.config.grid_size), dict[int, dict[str, Any]]()
    for found in relations:
        if id(found) not in stored:  # fixed angles are the same in all blocks
            cos, sin = (table.chunk(2, dim=-1)[0] for table in (found.cos, found.sin) if table is not None)
            stored[id(found)] = {"heads": cos.shape[1], "cos": weights.vector(cos), "sin": weights.vector(sin)}
    return [stored[id(found)] for found in relations]


def _familiarity(found: Familiarity, weights: _Weights) -> dict[str, Any]:
    """Return what the page needs to say how unlike the training images an image is; see `Familiarity.scores`."""
    scores, percentiles, largest = found.percentiles
    described: dict[str, Any] = {
        "scores": weights.vector(torch.from_numpy(scores)),
        "percentiles": weights.vector(torch.from_numpy(percentiles)),
        "largest": largest,
    }
    if found.score == "energy":
        return described
    matrix, points, rank = found.reference(found.score)
    if matrix is None:  # there are many points; what they have in common would make 8 bits too coarse
        shift = -points.mean(dim=0)
        return described | {"shift": weights.vector(shift), "points": weights.rounded(points + shift), "rank": rank}
    means = {"weight": weights.vector(points), "rows": len(points), "columns": points.shape[1]}
    return described | {"matrix": weights.vector(matrix.T), "points": means, "rank": rank}


def as_base64(content: bytes) -> str:
    """Return bytes as text."""
    return base64.b64encode(content).decode()
