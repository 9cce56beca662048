"""A `config.json` as transformers writes it -> values of ModelConfig; what it leaves out, the shapes say."""

from collections.abc import Mapping
from typing import Annotated, Any

from vitreous.errors import ConfigError, UnknownNameError, nearest
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
"""transformers' word for a non-linearity -> ours; of several with one meaning, the first is written."""

_WAY_OUT = "correct it in the file"


class Settings:
    """What a `config.json` says of a model. Values that go straight into a field of ModelConfig are checked there.

    Attributes:
        known: Whether there is one. Without, the number of heads is left open, which no shape tells.

    Args:
        hints: With the description, and the image's size where the user gives it.
        tower: The key under which a model of image and text describes the image's part; None where there is one part.
    """

    def __init__(self, hints: Hints, tower: str | None = None) -> None:
        self._outer = hints.settings
        inner = None if tower is None else hints.settings.get(tower)
        self._values: Mapping[str, Any] = inner if isinstance(inner, Mapping) else hints.settings
        self._asked_size = hints.architecture.get("img_size")
        self.known = "model_type" in hints.settings

    def get(self, key: str, default: Any) -> Any:
        """A value as it stands; null is none."""
        value = self._values.get(key)
        return default if value is None else value

    def whole(self, key: str, default: int) -> int:
        """A count, 1 or more. Raises ConfigError."""
        value: int = self.get(key, default)
        check_value(f"config.json.{key}", value, _count())
        return value

    def has(self, key: str) -> bool:
        """Whether there is a value, other than null."""
        return self._values.get(key) is not None

    def number(self, key: str) -> float:
        """A number above 0, which must be there. Raises ConfigError."""
        value: float = self._values[key]
        check_value(f"config.json.{key}", value, rule_of(Annotated[float, Interval("(0, 2**31)", _WAY_OUT)]))
        return value

    def truth(self, key: str, default: bool) -> bool:
        """A truth value. Raises ConfigError."""
        value: bool = self.get(key, default)
        check_value(f"config.json.{key}", value, Rule(bool, hint=_WAY_OUT))
        return value

    def act(self, default: str) -> str:
        """The non-linearity. Raises UnknownNameError for one that we do not have."""
        name = self.get("hidden_act", default)
        if not isinstance(name, str) or name not in ACTS:
            raise UnknownNameError(f"config.json.hidden_act={name}: no such activation; {nearest(str(name), ACTS)}")
        return ACTS[name]

    def is_architecture(self, name: str) -> bool:
        """Whether the file says that this class wrote it."""
        names = self._outer.get("architectures")
        return isinstance(names, list) and name in names

    def num_classes(self, shapes: Shapes, head: str) -> int:
        """As many as there are labels, or rows in the head's weight; 0 without a head."""
        labels = self._outer.get("id2label")
        if head not in shapes:
            return 0
        return len(labels) if isinstance(labels, Mapping) else shapes[head][0]

    def img_size(self, patch_size: int, num_patches: int | None) -> tuple[int, int] | None:
        """Height and width in px, less the rest that fills no patch, which transformers never looks at.

        Args:
            patch_size: In px.
            num_patches: As many as have a position; None where positions are computed.

        Raises:
            ConfigError: No size at all, or nobody gives it and the patches fill no square.
        """
        if self._asked_size is not None:
            return None  # `resolve` takes it
        got = self.get("image_size", None)
        if got is None:
            side = None if num_patches is None else side_of(num_patches)
            return None if side is None else (side * patch_size, side * patch_size)
        sides = got if isinstance(got, list | tuple) else (got, got)
        if len(sides) != 2:
            raise ConfigError(
                f"config.json.image_size={got!r}: must be a side, or height and width, in px; use e.g. 224"
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
        """The fields of ModelConfig that all families describe alike.

        Args:
            kernel: Shape of the patch projection's weight.
            depth: Blocks that the file has.
            hidden: Width of its MLP.
            num_patches: As for `img_size`.
            heads: The class's default, taken where there is a description that does not say it.
            act: The class's default.
            eps: The class's default.

        Raises:
            ConfigError: A value of the wrong type, or out of any range.
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

    def _patch_size(self, seen: int) -> int:
        got = self.get("patch_size", seen)
        if isinstance(got, list) and len(got) == 2 and got[0] == got[1]:
            got = got[0]
        check_value("config.json.patch_size", got, _count())
        return got


def _count(least: int = 1) -> Rule:
    """Return the rule of a whole number that is at least `least`."""
    return rule_of(Annotated[int, Interval(f"[{least}, 2**31)", _WAY_OUT)])
