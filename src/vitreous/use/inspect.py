"""A run, a data set or a model's name -> what it is, as facts for people and machines."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitreous.data.facts import DataFacts, survey
from vitreous.data.sources import known_sets, open_source
from vitreous.data.sources.folder import is_image_name
from vitreous.data.sources.huggingface import DATA_PREFIX
from vitreous.data.sources.rows import is_table_name
from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.config import ModelConfig
from vitreous.model.count import count_flops, count_parameters, count_parts
from vitreous.model.presets import SIZES, config_for
from vitreous.model.weights import is_native, read_metadata
from vitreous.model.weights.files import IN_FOLDER, SUFFIXES, open_weights
from vitreous.model.weights.open import identify
from vitreous.model.weights.table import Hints
from vitreous.train.records import Listener, ignore
from vitreous.train.run_folder import RunFolder
from vitreous.use.predict.predictor import find_model


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        kind: `run`, `weights`, `model` or `data`.
        title: What it is called.
        facts: (name, value) pairs, most important first.
        table: Rows of text below a row of headings; empty where there is none.
        notes: Warnings, one sentence each.
        details: Everything, for JSON.
    """

    kind: str
    title: str
    facts: tuple[tuple[str, str], ...]
    table: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    details: dict[str, Any]


def inspect(thing: str, listener: Listener = ignore, root: str | None = None) -> Inspection:
    """Look at a run folder or model file, at another library's weights, at data, or at a model by name.

    Args:
        thing: A path, `hf://organisation/name`, the name of a set, or a model such as `vit_base_patch16_224`.
        listener: Told how far reading is.
        root: The folder that a table's paths are relative to.

    Raises:
        UnknownNameError: It is none of these.
        ConfigError: It is a single image.
        VitreousError: It is one, and cannot be used.
    """
    path = Path(thing).expanduser()
    folder = RunFolder(path)
    is_table = path.is_file() and is_table_name(path.name)
    if root is not None and not is_table:
        raise ConfigError(f"root={root}: is for the paths of a table, {thing} is none; leave it out")
    if thing in known_sets() or thing.startswith(DATA_PREFIX) or is_table:
        return _inspect_data(thing, listener, root)
    if path.is_file() and is_image_name(path.name):
        raise ConfigError(f"inspect={thing}: is one image; give a folder of class folders, a run or a model")
    if thing.startswith("hf://") or _is_foreign(path, folder):
        return _inspect_weights(thing)
    if path.is_file() or folder.config.is_file() or folder.model.is_file():
        return _inspect_run(path)
    if path.is_dir():
        return _inspect_data(thing, listener)
    if thing.startswith(("vit_", "deit", "flexivit")):
        return _inspect_model(thing, config_for(thing))
    raise UnknownNameError(f"inspect={thing}: is no path, no data set and no model; {_way_out(thing, path)}")


def _way_out(thing: str, path: Path) -> str:
    """The nearest name or neighbouring path, else what can be given."""
    models = [f"vit_{size}_patch16_224" for size in SIZES]
    siblings = [str(entry) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(thing, [*known_sets(), *models, *siblings])
    known = ", ".join(known_sets())
    return near if near.startswith("did you mean") else f"give an existing path, {known} or a model like {models[-1]}"


def _inspect_model(title: str, config: ModelConfig) -> Inspection:
    parts = count_parts(config)
    rows = [(part.part, part.shape, f"{part.parameters:,}", _mega(part.flops)) for part in parts]
    facts = {
        "parameters": f"{count_parameters(config):,}",
        "MFLOP an image": f"{_mega(count_flops(config))} (two per multiply-add)",
        "image": f"{config.in_chans} x {config.img_size[0]} x {config.img_size[1]} px, {config.num_classes} classes",
        "tokens": f"{config.num_tokens}, of which {config.num_prefix_tokens} prefix",
    }
    details = {"architecture": config.as_dict(), "parameters": count_parameters(config), "flops": count_flops(config),
               "parts": [asdict(part) for part in parts]}  # fmt: skip
    table = (("part", "shape", "parameters", "MFLOP"), *rows)
    return Inspection("model", title, tuple(facts.items()), table, (), details)


def _is_foreign(path: Path, folder: RunFolder) -> bool:
    """Whether these are weights, and not ours."""
    if path.is_dir():
        there = [path / name for name in IN_FOLDER if (path / name).is_file()]
        return bool(there) and not folder.config.is_file() and not is_native(there[0])
    return path.is_file() and path.suffix in SUFFIXES and not is_native(path)


def _inspect_weights(source: str) -> Inspection:
    with open_weights(source) as file:
        found = identify(file, Hints(settings=file.settings))
        notes = [*file.notes, *(f"left out {name}: {why}" for name, why in found.left_out.items())]
        shape = _inspect_model(source, found.config)
        facts = (("format", found.format_.name), ("tensors", f"{len(file.shapes):,}"), *shape.facts)
        details = {"format": found.format_.name, "notes": notes, **shape.details}
    return Inspection("weights", source, facts, shape.table, tuple(notes), details)


def _inspect_run(path: Path) -> Inspection:
    metadata = read_metadata(find_model(path))
    config = ModelConfig.from_dict(metadata["architecture"])
    shape = _inspect_model(str(path), config)
    classes = metadata.get("classes", ())
    facts = [
        ("data", str(metadata.get("data", "unknown"))),
        ("classes", f"{len(classes)}: {_shortened(classes)}"),
        *((f"{split} accuracy", _accuracy(found)) for split, found in metadata.get("metrics", {}).items()),
        ("recipe", str(metadata.get("recipe", "unknown"))),
        ("steps", f"{metadata.get('steps', 0):,}"),
        *shape.facts,
    ]
    return Inspection("run", str(path), tuple(facts), shape.table, (), metadata)


def _inspect_data(name: str, listener: Listener, root: str | None = None) -> Inspection:
    surveyed = survey(open_source(name, root), progress=lambda done, total: listener(
        "reading", {"what": "reading", "done": done, "total": total}))  # fmt: skip
    found = surveyed.facts
    facts = {
        "images": f"{found.num_train:,} to train, {found.num_val:,} to validate, {found.num_test:,} to test",
        "classes": f"{len(found.classes)}",
        "size": f"median {found.height_px}x{found.width_px} px, {_range(found)}",
        "channels": "1 (all images are gray)" if found.in_chans == 1 else "3",
        "mirroring": f"{'keeps' if found.mirror else 'changes'} the meaning: {found.mirror_reason}",
        "unreadable files": f"{len(found.skipped):,}",
    }
    rows = [(name, f"{count:,}") for name, count in zip(found.classes, found.class_counts, strict=True)]
    unreadable = [f"unreadable, left out: {where} ({reason})" for where, reason in found.skipped]
    return Inspection(
        "data", found.name, tuple(facts.items()), (("class", "training images"), *rows),
        (*found.notes, *unreadable), asdict(found),
    )  # fmt: skip


def _mega(count: int) -> str:
    """Millions, to a tenth, or for less than one to two digits."""
    return f"{count / 1e6:,.1f}" if count >= 1e6 or count == 0 else f"{count / 1e6:.2g}"


def _range(found: DataFacts) -> str:
    low, high = found.min_size_px, found.max_size_px
    return "all alike" if low == high else f"from {low[0]}x{low[1]} to {high[0]}x{high[1]}"


def _accuracy(found: dict[str, Any]) -> str:
    low, high = found["interval_95"]
    return (f"{100 * found['accuracy']:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %, "
            f"{found['num_images']:,} images)")  # fmt: skip


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
