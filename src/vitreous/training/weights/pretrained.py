"""A file of weights, keys that are asked -> the keys that it decides, and a model that begins with its weights."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.model.change.reshape import change_channels, resize_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import load_model
from vitreous.model.weights.files import open_weights
from vitreous.model.weights.native import METADATA_KEY
from vitreous.recipe.plan import Choice, Plan, show
from vitreous.recipe.run_config import MODEL_INPUT_KEYS, RunConfig
from vitreous.training.fit.checkpoint import checksum
from vitreous.training.weights.provenance import Provenance, read_provenance

_FREE = {
    *("patch_size", "pool", "init", "position_resize", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate"),
    *("attn_drop_rate", "drop_path_rate", "drop_path_schedule"),
}
"""Keys of the model that may differ from the file's: they are resized, hold no weights, or matter in training only."""
_RATES = {key for key in _FREE if key.endswith("_rate") or key == "drop_path_schedule"}
_SAID = ("patch_size", "embed_dim", "depth", "num_heads")
"""Keys of the model that a plan tells even where they have their defaults, or have none."""


@dataclass(frozen=True)
class Pretrained:
    """Weights to begin from.

    Attributes:
        source: As it is called: a path or `hf://organisation/name`.
        model: With its weights, on the CPU.
        provenance: What is known beside them: classes, mean and std.
    """

    source: str
    model: VisionTransformer
    provenance: Provenance


def open_pretrained(source: str, asked: Mapping[str, Any]) -> Pretrained:
    """Read weights, whatever library wrote them.

    Args:
        source: A file, a run folder, a folder of transformers or timm, or `hf://organisation/name`.
        asked: Dotted keys; those of the model answer what the file leaves open.

    Raises:
        NotARunError: Nothing is there.
        DamagedFileError: The file cannot be used.
        ConfigError: It leaves something open, or a key asks for another architecture than it has.
    """
    wanted = {key: asked[f"model.{key}"] for key in _structure() if f"model.{key}" in asked}
    with open_weights(source) as file:
        provenance, is_ours = read_provenance(file), METADATA_KEY in file.metadata
    try:
        model = load_model(source, architecture={} if is_ours else wanted)
    except ConfigError:
        # Where positions are computed, no file tells the size of its images; the one that is asked for will do.
        if is_ours or asked.get("data.img_size") is None:
            raise
        model = load_model(source, architecture=wanted, img_size=asked["data.img_size"])
    for key, got in wanted.items():
        theirs = getattr(model.config, key)
        if got != theirs:
            raise ConfigError(f"model.{key}={show(got)}: {source} has {show(theirs)}; leave it out")
    return Pretrained(source, model, provenance)


def plan_onto(
    checkpoint: Pretrained | None, facts: DataFacts, asked: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Plan]
) -> Plan:
    """A plan whose model is the checkpoint's, which says what comes from there and what becomes of the weights.

    Args:
        checkpoint: None: the plan is made of what is asked alone.
        facts: Of the data.
        asked: Checked keys that the user or a recipe file sets.
        make: Keys that are asked, to a plan.

    Raises:
        ConfigError: As `make`, or the weights cannot be brought to the image size, patch size or channels asked for.
    """
    if checkpoint is None:
        return make(asked)
    taken = {choice.key: choice for choice in _decided(checkpoint, facts, asked) if choice.key not in asked}
    plan = make({**asked, **{key: choice.value for key, choice in taken.items()}})
    defaults = {f"model.{field.name}": field.default for field in dataclasses.fields(ModelConfig)}
    choices = tuple(
        taken.get(choice.key, choice)
        for choice in plan.choices
        if choice.key not in taken or choice.value != defaults.get(choice.key) or choice.key.split(".")[1] in _SAID
    )
    notes = (*changes(checkpoint, plan.config.model, facts.classes), *plan.notes)
    return replace(plan, choices=choices, notes=notes)


def changes(checkpoint: Pretrained, config: ModelConfig, classes: Sequence[str]) -> list[str]:
    """Sentences on what becomes of the weights in a model of this configuration, for these classes."""
    theirs, ours = checkpoint.model.config, config
    num = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    told = [f"training begins with {num:,} weights of {checkpoint.source}"]
    if ours.in_chans != theirs.in_chans:
        told.append(f"the first layer took images of {theirs.in_chans} channels: it is changed to take {ours.in_chans}")
    if ours.patch_size != theirs.patch_size:
        told.append(f"the first layer is resized from patches of {theirs.patch_size} px to {ours.patch_size} px")
    if ours.grid_size != theirs.grid_size and ours.position != "none":
        how = "resized" if ours.position == "learned" else "computed anew"
        told.append(f"positions are {how}: {show(theirs.grid_size)} patches become {show(ours.grid_size)}")
    kept = _same_classes(checkpoint, config, classes)
    if len(kept) == len(classes):
        told.append("the head is kept: it knows these classes by name")
    elif kept:
        told.append(f"the head is new but for {len(kept)} of {len(classes)} classes, which it knows by name")
    else:
        told.append(f"the head is new, for {len(classes)} classes")
    return told


def load_into(model: VisionTransformer, checkpoint: Pretrained, classes: Sequence[str]) -> None:
    """Put the weights into a fresh model, in place, changed as `changes` tells; what of the head is new stays as drawn.

    Raises:
        ConfigError: The model is none that `plan_onto` plans for this checkpoint.
    """
    config = model.config
    source = change_channels(checkpoint.model, config.in_chans)
    source = resize_model(source, config.img_size, patch_size=config.patch_size, interpolation=config.position_resize)
    ours, theirs = model.state_dict(), source.state_dict()
    different = sorted(
        name
        for name in ours.keys() | theirs.keys()
        if not name.startswith("head.")
        and (name not in ours or name not in theirs or ours[name].shape != theirs[name].shape)
    )
    if different:
        raise ConfigError(
            f"train.pretrained={checkpoint.source}: does not fit this model, first at {different[0]}; leave the keys "
            "of the model out"
        )
    kept = _same_classes(checkpoint, config, classes)
    with torch.no_grad():
        for name, tensor in ours.items():
            if not name.startswith("head."):
                tensor.copy_(theirs[name])
            elif kept:
                tensor[list(kept)] = theirs[name][list(kept.values())].to(tensor)


def fingerprint(model: VisionTransformer) -> str:
    """Of the weights, whatever file they are in."""
    return checksum(model.state_dict())


def begin_from(config: RunConfig, model: VisionTransformer, classes: Sequence[str]) -> dict[str, Any]:
    """Put the weights of `train.pretrained` into a fresh model, in place.

    Returns:
        What the records keep of it: source, fingerprint, and a sentence for each change.

    Raises:
        VitreousError: As `open_pretrained` and `load_into`: the file is no longer what it was when the run was planned.
    """
    asked = {f"model.{key}": getattr(config.model, key) for key in _structure()}
    checkpoint = open_pretrained(str(config.train.pretrained), asked | {"data.img_size": config.data.img_size})
    load_into(model, checkpoint, classes)
    return {
        "source": checkpoint.source,
        "fingerprint": fingerprint(checkpoint.model),
        "changes": changes(checkpoint, config.model, classes),
    }


def full_source(source: str) -> str:
    """The path in full, which holds wherever the run goes on; other names as they are."""
    return source if source.startswith("hf://") else str(Path(source).expanduser().resolve())


def _decided(checkpoint: Pretrained, facts: DataFacts, asked: Mapping[str, Any]) -> list[Choice]:
    """The keys that the checkpoint decides where the user does not."""
    config, provenance = checkpoint.model.config, checkpoint.provenance
    reason = f"as in {checkpoint.source}"
    names = [field.name for field in dataclasses.fields(ModelConfig)]
    values = {key: getattr(config, key) for key in names if key not in MODEL_INPUT_KEYS and key not in _RATES}
    if asked.get("model.pool", config.pool) != config.pool:
        values["class_token"] = config.has_class_token
    choices = [Choice(f"model.{key}", value, reason) for key, value in values.items()]
    choices.append(Choice("data.img_size", config.img_size, reason))
    adapts = config.stem == "linear" and config.in_chans == 1
    in_chans = asked.get("data.in_chans") or (facts.in_chans if adapts else config.in_chans)
    why = reason if in_chans == config.in_chans else "there are colour images"
    choices.append(Choice("data.in_chans", in_chans, why))
    if provenance.mean is not None and not {"data.mean", "data.std"} & asked.keys():
        for key, statistics in (("data.mean", provenance.mean), ("data.std", provenance.std)):
            choices.append(Choice(key, _for_channels(statistics or (), in_chans), reason))
    return choices


def _for_channels(statistics: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    """The same for every channel where their number is another: their mean."""
    return statistics if len(statistics) == in_chans else (sum(statistics) / len(statistics),) * in_chans


def _same_classes(checkpoint: Pretrained, config: ModelConfig, classes: Sequence[str]) -> dict[int, int]:
    """Our class -> theirs, where the head knows a class of the same name."""
    theirs = checkpoint.model.config
    known = checkpoint.provenance.classes
    if len(known) != theirs.num_classes or theirs.num_features != config.num_features or len(set(known)) < len(known):
        return {}
    places = {name: number for number, name in enumerate(known)}
    return {number: places[name] for number, name in enumerate(classes) if name in places}


def _structure() -> list[str]:
    """Keys of the model that say what its weights are."""
    return [
        field.name
        for field in dataclasses.fields(ModelConfig)
        if field.name not in _FREE and field.name not in MODEL_INPUT_KEYS
    ]
