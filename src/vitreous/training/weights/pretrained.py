"""Weights file, requested keys -> the keys that it decides, and a model that starts from its weights."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

import torch

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError, OpenQuestionError, UnknownNameError, VitreousError, nearest
from vitreous.model.change.reshape import change_channels, resize_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.native import METADATA_KEY, fingerprint
from vitreous.model.weights.open import identify, open_model
from vitreous.model.weights.reading import hub
from vitreous.model.weights.reading.files import open_weights
from vitreous.model.weights.reading.kinds import WeightFile
from vitreous.model.weights.subtree import choose_part
from vitreous.model.weights.table import TRAINING_ONLY, Hints
from vitreous.paths import expanded
from vitreous.recipe import keys
from vitreous.recipe.plan import Choice, Plan
from vitreous.recipe.run_config import MODEL_INPUT_KEYS, RunConfig
from vitreous.training.weights.backbones import BACKBONES
from vitreous.training.weights.provenance import Provenance, read_provenance, statistics_for
from vitreous.wording import plural, show

AUTO = "auto"
"""The source that lets the plan choose a backbone."""
_MAY_DIFFER = TRAINING_ONLY | {"patch_size", "pool", "init", "position_resize"}
"""Fields of ModelConfig that may differ from the file: they are resized, or no weight depends on them."""
_ALWAYS_LISTED = ("model.patch_size", "model.embed_dim", "model.depth", "model.num_heads")
"""Keys that a plan lists even if they have their default."""


@dataclass(frozen=True)
class Pretrained:
    """A trained model to start from, or to learn from.

    Attributes:
        source: A path or `hf://organization/name`, as the user gave it.
        model: The model with its weights, on the CPU.
        provenance: The classes, mean and std that it was trained with, as far as known.
        notes: What was assumed about the file, one sentence each.
        parts: Names of all sets of weights in the file, the averaged ones first; empty if it has only one set, or if
            the user has chosen.
    """

    source: str
    model: VisionTransformer
    provenance: Provenance
    notes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


def open_pretrained(source: str, asked: Mapping[str, Any]) -> Pretrained:
    """Read weights of any supported library.

    `source` is a file, a run folder, a folder of transformers or timm, or `hf://organization/name`. Of the keys
    `asked`, those of the model and `train.pretrained_as` supply what the file leaves open.

    Raises:
        NotARunError: The source does not exist.
        DamagedFileError: The file cannot be used.
        ConfigError: The file leaves something open, or a key requests an architecture that differs from the file.
    """
    wanted = {key: asked[f"model.{key}"] for key in _fixed_fields() if f"model.{key}" in asked}
    given = keys.architecture_in(asked.get("train.pretrained_as") or "")
    weights = asked.get("train.pretrained_weights", "auto")
    with open_weights(source) as file:
        provenance, is_ours = read_provenance(file), METADATA_KEY in file.metadata
        hints = Hints(architecture=given if is_ours else wanted | given, weights=weights)
        parts = _parts(file) if weights == "auto" and not is_ours else ()
        size = None if is_ours else _missing_size(file, hints, asked.get("data.img_size"))
    if size is not None:
        hints = replace(hints, architecture={**hints.architecture, "img_size": size})
    opened = open_model(source, hints)
    for key, got in wanted.items():
        theirs = getattr(opened.model.config, key)
        if key == "class_token" and got is not None:  # None leaves it to the pool, which the user may change
            theirs = opened.model.config.has_class_token
        if got != theirs:
            raise ConfigError(f"model.{key}={show(got)}: {source} has {show(theirs)}; remove this key")
    notes = list(opened.notes)
    if size is not None:
        notes.append(
            f"assumes that the file is for images of {show(size)} px, as data.img_size; if wrong, pass "
            "--architecture.img_size HEIGHTxWIDTH"
        )
    if not (is_ours or provenance.mean or {"data.mean", "data.std"} & asked.keys()):
        notes.append("the file does not give mean and std of its images; they are measured on the training images")
    return Pretrained(source, opened.model.float(), provenance, tuple(notes), parts)


def _parts(file: WeightFile) -> tuple[str, ...]:
    """Name the sets of weights in a file, those that `auto` takes first; empty if there is only one."""
    part, rivals = choose_part(file, "auto")
    return (part.shown, *rivals) if rivals else ()


def _missing_size(file: WeightFile, hints: Hints, requested: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the requested image size if the file leaves its own open and has positions for exactly this one."""
    if requested is None or "img_size" in hints.architecture:
        return None
    hints = replace(hints, settings=file.settings)
    try:
        if "img_size" not in identify(file, hints).assumed or requested[0] == requested[1]:
            return None
    except OpenQuestionError as question:
        if question.key != "img_size":
            return None
    try:
        identify(file, replace(hints, architecture={**hints.architecture, "img_size": requested}))
    except VitreousError:
        return None
    return requested


def decided_keys(checkpoint: Pretrained, facts: DataFacts, asked: Mapping[str, Any]) -> dict[str, Choice]:
    """Return the keys that the weights decide because the user did not set them, by key."""
    config, provenance = checkpoint.model.config, checkpoint.provenance
    reason = f"as in {checkpoint.source}"
    left_out = TRAINING_ONLY.union(MODEL_INPUT_KEYS)
    values = {key: value for key, value in vars(config).items() if key not in left_out}
    if asked.get("model.pool", config.pool) != config.pool:
        values["class_token"] = config.has_class_token
    choices = [Choice(f"model.{key}", value, reason) for key, value in values.items()]
    adapts = config.stem == "linear" and (config.in_chans == 1 or facts.in_chans not in (1, 3))
    in_chans = asked.get("data.in_chans") or (facts.in_chans if adapts else config.in_chans)
    has = "color images" if facts.in_chans == 3 else f"images of {facts.in_chans} channels"
    why = reason if in_chans == config.in_chans else f"the data has {has}"
    choices.append(Choice("data.in_chans", in_chans, why))
    if provenance.mean and provenance.std and not {"data.mean", "data.std"} & asked.keys():
        choices.append(Choice("data.mean", statistics_for(provenance.mean, in_chans), reason))
        choices.append(Choice("data.std", statistics_for(provenance.std, in_chans), reason))
    return {choice.key: choice for choice in choices if choice.key not in asked}


def annotated(plan: Plan, checkpoint: Pretrained, decided: Mapping[str, Choice], classes: Sequence[str]) -> Plan:
    """Return the plan with the reasons for the decided keys, and with notes on how the weights are adapted.

    Keys of the model that the weights set to their default are not listed, except for its size. The plan was made with
    the keys that `decided_keys` returned.
    """
    defaults = keys.defaults()
    choices = tuple(
        decided.get(choice.key, choice)
        for choice in plan.choices
        if choice.key not in decided or choice.value != defaults.get(choice.key) or choice.key in _ALWAYS_LISTED
    )
    classes = classes if plan.config.objective.uses_labels else ()
    notes = (*changes(checkpoint, plan.config.model, classes), *checkpoint.notes, *plan.notes)
    return replace(plan, choices=choices, notes=notes)


def changes(checkpoint: Pretrained, config: ModelConfig, classes: Sequence[str]) -> list[str]:
    """List how the weights are adapted to a model for these classes, one sentence each."""
    theirs, ours = checkpoint.model.config, config
    num = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    sentences = [f"training starts from {num:,} weights of {checkpoint.source}"]
    if ours.in_chans != theirs.in_chans:
        before, after = plural(theirs.in_chans, "channel"), plural(ours.in_chans, "channel")
        sentences.append(f"the first layer is converted from {before} to {after}")
    if ours.patch_size != theirs.patch_size:
        sentences.append(f"the first layer is resized from patches of {theirs.patch_size} px to {ours.patch_size} px")
    if ours.grid_size != theirs.grid_size and ours.position != "none":
        how = "resized" if ours.position == "learned" else "computed"
        sentences.append(f"positions are {how} for {show(ours.grid_size)} patches instead of {show(theirs.grid_size)}")
    kept = _same_classes(checkpoint, config, classes)
    if not classes:
        sentences.append("the head is left out, as there are no labels")
    elif len(kept) == len(classes):
        sentences.append("the head is kept, because it was trained on classes of the same names")
    elif kept:
        sentences.append(f"the head is new, except for {len(kept)} of {len(classes)} classes with a known name")
    else:
        sentences.append(f"the head is new, for {plural(len(classes), 'class', 'classes')}")
    return sentences


def load_into(model: VisionTransformer, checkpoint: Pretrained, classes: Sequence[str]) -> None:
    """Copy the weights into a fresh model, in place, adapted as `changes` says. New rows of the head stay random.

    Raises:
        ConfigError: The model was not planned with the keys that `decided_keys` returns.
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
            f"train.pretrained={checkpoint.source}: does not fit this model, first at {different[0]}; remove all "
            "model.* keys"
        )
    kept = _same_classes(checkpoint, config, classes)
    with torch.no_grad():
        for name, tensor in ours.items():
            if not name.startswith("head."):
                tensor.copy_(theirs[name])
            elif kept:
                tensor[list(kept)] = theirs[name][list(kept.values())].to(tensor)


def begin_from(config: RunConfig, model: VisionTransformer, classes: Sequence[str]) -> dict[str, Any]:
    """Copy the weights of `train.pretrained` into a new model, in place.

    Rows of the head without a class in the file become zero, so that the loss starts near ln(classes).

    Returns:
        Fields for the records: source, fingerprint, and one sentence for each change.

    Raises:
        VitreousError: The file is missing, or has changed since the run was planned.
    """
    classes = classes if config.objective.uses_labels else ()
    asked = {f"model.{key}": getattr(config.model, key) for key in _fixed_fields()}
    asked |= {f"train.{key}": getattr(config.train, key) for key in ("pretrained_weights", "pretrained_as")}
    checkpoint = open_pretrained(str(config.train.pretrained), asked | {"data.img_size": config.data.img_size})
    for parameter in model.head.parameters():
        torch.nn.init.zeros_(parameter)
    load_into(model, checkpoint, classes)
    return {
        "source": checkpoint.source,
        "fingerprint": fingerprint(checkpoint.model),
        "changes": changes(checkpoint, config.model, classes),
    }


def full_source(source: str) -> str:
    """Return an absolute path, which stays valid if the run is resumed elsewhere, or a name of the hub.

    A backbone gets its name on the hub; `auto` and names of the hub are unchanged.

    Raises:
        UnknownNameError: No file has this name, but a backbone has a similar one.
    """
    if source in BACKBONES and not expanded(source).exists():
        return hub.PREFIX + BACKBONES[source].repo
    if source == AUTO or source.startswith(hub.PREFIX):
        return source
    if get_close_matches(source, BACKBONES) and not os.path.exists(expanded(source)):  # noqa: PTH110  Path raises errors
        raise UnknownNameError(f"weights={source}: no such file or backbone; {nearest(source, BACKBONES)}")
    return str(expanded(source).resolve())


def with_revision(source: str) -> str:
    """Return the name that always opens the same files, for weights from the hub; a path is unchanged."""
    found = hub.stored(source.removeprefix(hub.PREFIX)) if source.startswith(hub.PREFIX) else None
    return source if found is None else found.source


def _same_classes(checkpoint: Pretrained, config: ModelConfig, classes: Sequence[str]) -> dict[int, int]:
    """Map our class numbers to theirs, for classes of the same name."""
    theirs = checkpoint.model.config
    known = checkpoint.provenance.classes
    if len(known) != theirs.num_classes or theirs.num_features != config.num_features or len(set(known)) < len(known):
        return {}
    numbers = {name: number for number, name in enumerate(known)}
    return {number: numbers[name] for number, name in enumerate(classes) if name in numbers}


def _fixed_fields() -> list[str]:
    """Return the fields of ModelConfig that must equal those of the file."""
    may_differ = _MAY_DIFFER.union(MODEL_INPUT_KEYS)
    return [field.name for field in fields(ModelConfig) if field.name not in may_differ]
