"""`config.json` of transformers, tensor shapes <-> values of ModelConfig."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.shapes import side_of
from vitreous.model.weights.table import Hints, Shapes
from vitreous.ranges import Interval, Rule, check_value, rule_of

ACTS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""transformers' name of an activation -> ours. Of several names with one meaning, the first is written."""
_ACT_NAMES = {ours: theirs for theirs, ours in reversed(ACTS.items())}
_WAY_OUT = "correct it in the file"


class Settings:
    """Access to the values of a `config.json`. Values that become a field of ModelConfig unchanged are checked there.

    `tower` is the key of the image tower in the description of a model of image and text; None for an image model.

    Attributes:
        known: True if there is a `config.json`. Without one the number of heads is unknown, as shapes do not show it.
    """

    def __init__(self, hints: Hints, tower: str | None = None) -> None:
        self._outer = hints.settings
        inner = None if tower is None else hints.settings.get(tower)
        self._values: Mapping[str, Any] = inner if isinstance(inner, Mapping) else hints.settings
        self._given_size = hints.architecture.get("img_size")
        self.known = "model_type" in hints.settings

    def get(self, key: str, default: Any) -> Any:
        """Return a value unchanged; the default if it is missing or null."""
        value = self._values.get(key)
        return default if value is None else value

    def whole(self, key: str, default: int) -> int:
        """Return a whole number. Raises ConfigError unless it is 1 or more."""
        value: int = self.get(key, default)
        check_value(f"config.json.{key}", value, _count())
        return value

    def number(self, key: str) -> float | None:
        """Return a number; None if it is missing or null. Raises ConfigError unless it is above 0."""
        value: float | None = self.get(key, None)
        if value is not None:
            check_value(f"config.json.{key}", value, rule_of(Annotated[float, Interval("(0, 2**31)", _WAY_OUT)]))
        return value

    def truth(self, key: str, default: bool) -> bool:
        """Return a bool. Raises ConfigError for other types."""
        value: bool = self.get(key, default)
        check_value(f"config.json.{key}", value, Rule(bool, hint=_WAY_OUT))
        return value

    def act(self, default: str) -> str:
        """Return our name of the activation. Raises UnknownNameError if we do not have it."""
        name = self.get("hidden_act", default)
        if not isinstance(name, str) or name not in ACTS:
            raise UnknownNameError(f"config.json.hidden_act={name}: no such activation; {nearest(str(name), ACTS)}")
        return ACTS[name]

    def is_architecture(self, name: str) -> bool:
        """Return True if this class of transformers wrote the file."""
        names = self._outer.get("architectures")
        return isinstance(names, list) and name in names

    def num_classes(self, shapes: Shapes, head: str) -> int:
        """Return the number of labels, or else of rows in the weight of the head; 0 without a head."""
        labels = self._outer.get("id2label")
        if head not in shapes:
            return 0
        return len(labels) if isinstance(labels, Mapping) else shapes[head][0]

    def img_size(self, patch_size: int, num_patches: int | None) -> tuple[int, int] | None:
        """Return height and width in px, rounded down to whole patches: transformers ignores the rest of an image.

        None if the size is unknown, or if the user gives it. `num_patches` have a position; None if positions are
        computed.

        Raises:
            ConfigError: The size is not valid, or not given while the patches do not fill a square.
        """
        if self._given_size is not None:
            return None  # `resolve` uses the user's size
        got = self.get("image_size", None)
        if got is None:
            side = None if num_patches is None else side_of(num_patches, patch_size)
            return None if side is None else (side * patch_size, side * patch_size)
        sides = got if isinstance(got, list | tuple) else (got, got)
        if len(sides) != 2:
            raise ConfigError(
                f"config.json.image_size={got!r}: must be one side or [height, width] in px; use e.g. 224"
            )
        for side in sides:
            check_value("config.json.image_size", side, _count(least=patch_size))
        return sides[0] // patch_size * patch_size, sides[1] // patch_size * patch_size

    def sizes(
        self,
        kernel: tuple[int, ...],
        *,
        depth: int,
        hidden: int,
        num_patches: int | None,
        heads: int,
        act: str,
        eps: float,
    ) -> dict[str, Any]:
        """Return the fields of ModelConfig that all families describe in the same way.

        `kernel` is the shape of the weight of the patch projection; `depth` and `hidden` are those of the file.
        `num_patches` have a position; None if positions are computed. The other arguments apply if `config.json` does
        not give these values: they are the defaults of their class.

        Raises:
            ConfigError: A value has the wrong type or is out of range.
        """
        width, in_chans, side, _ = kernel
        width, patch_size = self.whole("hidden_size", width), self._patch_size(side)
        return {
            "img_size": self.img_size(patch_size, num_patches),
            "patch_size": patch_size,
            "in_chans": self.whole("num_channels", in_chans),
            "embed_dim": width,
            "depth": self.whole("num_hidden_layers", depth),
            "num_heads": self.get("num_attention_heads", heads if self.known else None),
            "mlp_ratio": self.whole("intermediate_size", hidden) / width,
            "act": self.act(act),
            "norm_eps": self.get("layer_norm_eps", eps),
            "position_resize": "huggingface",
        }

    def _patch_size(self, default: int) -> int:
        got = self.get("patch_size", default)
        if isinstance(got, list) and len(got) == 2 and got[0] == got[1]:
            got = got[0]
        check_value("config.json.patch_size", got, _count())
        return got


def _count(least: int = 1) -> Rule:
    """Return the rule of a whole number that is at least `least`."""
    return rule_of(Annotated[int, Interval(f"[{least}, 2**31)", _WAY_OUT)])


def describe(config: ModelConfig, architecture: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of `config.json`, by file name.

    Classes get the labels that transformers gives to classes without names. `architecture` is the class of transformers
    that opens the weights, and `values` are the fields of its configuration, including `model_type`.
    """
    names = [f"LABEL_{number}" for number in range(config.num_classes)]
    labels = {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    text = json.dumps({"architectures": [architecture], **values, **labels}, indent=2)
    return {"config.json": text + "\n"}


def sizes(config: ModelConfig) -> dict[str, Any]:
    """Return the fields that all families share."""
    height, width = config.img_size
    return {
        "image_size": height if height == width else [height, width],
        "patch_size": config.patch_size,
        "num_channels": config.in_chans,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "hidden_act": _ACT_NAMES[config.act],
        "layer_norm_eps": float(config.norm_eps),  # their class rejects an int
    }


def rates(config: ModelConfig) -> dict[str, Any]:
    """Return the dropout fields of families that have one rate for positions and branches."""
    return {"hidden_dropout_prob": config.proj_drop_rate, "attention_probs_dropout_prob": config.attn_drop_rate}


def refuse_unless_square(config: ModelConfig) -> list[str]:
    """Reject images that are not square, for classes that support only one side length."""
    return [] if config.img_size[0] == config.img_size[1] else [f"model.img_size={config.img_size}"]
