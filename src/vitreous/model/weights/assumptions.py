"""Format, ModelConfig, hints -> what was assumed, because no tensor shows it."""

from typing import Any

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.shapes import shown, side_by_side
from vitreous.model.weights.table import Format, Hints

_IMPLIES = {"head_dim": "num_heads"}
"""Field that the user gives -> field that follows from it and the shapes."""


def assumptions(format_: Format, config: ModelConfig, hints: Hints) -> dict[str, Any]:
    """Return the fields of ModelConfig that neither tensors nor description nor user determine, with their values."""
    if hints.name is not None or hints.settings.keys() & {"architecture", "model_type", "model_cfg"}:
        return {}  # a published model, or one that its description defines
    given = {*hints.architecture, *(_IMPLIES[key] for key in hints.architecture if key in _IMPLIES)}
    if config.position != "learned":
        given |= {"img_size"}  # the user had to give it
    return {key: getattr(config, key) for key in format_.assumed if key not in given}


def assumption_note(assumed: dict[str, Any], config: ModelConfig) -> str:
    """Describe assumptions in one sentence that says how to replace them."""
    texts = [f"{key}={shown(value)}" for key, value in assumed.items()]
    if "img_size" in assumed:
        rows, columns = config.grid_size
        wide = (side_by_side(rows * columns, square=False)[::-1], side_by_side(rows * columns, square=False))
        others = " or ".join(shown(grid) for grid in dict.fromkeys(wide) if grid != (rows, columns))
        place = list(assumed).index("img_size")
        texts[place] += f" (a grid of {rows}x{columns} patches, not {others})" if others else ""
    return (
        f"assumes {', '.join(texts)}, and the usual order of class token, queries, keys and values, because no tensor "
        "shows them; set architecture={KEY: VALUE}, or --architecture.KEY VALUE, if that is wrong"
    )
