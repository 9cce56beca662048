"""TrainRequest -> data that was surveyed, a plan made for it, and decoded images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitreous.data.build import sampling_weights
from vitreous.data.config import DataConfig
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.doctor.examine import brief
from vitreous.data.pixels.store import Store, load_store, measure_mean_std
from vitreous.data.sources import PYTHON_PREFIX, Source, full_name, known_sets, open_source
from vitreous.data.survey.facts import Survey, survey
from vitreous.errors import ConfigError, DataError
from vitreous.model.config.presets import Size, parse_name
from vitreous.recipe import keys
from vitreous.recipe.files import read_values
from vitreous.recipe.plan import Choice, Plan
from vitreous.recipe.planner import MOST_MEMORY, make_plan
from vitreous.recipe.run_config import MODEL_INPUT_KEYS, RunConfig
from vitreous.recipe.shipped import SHIPPED
from vitreous.training.folder.records import Listener, Recorder
from vitreous.training.machine.device import resolve_device, resolve_precision
from vitreous.training.measure.memory import memory_share
from vitreous.training.measure.speed import attention_s, training_images_per_s
from vitreous.training.request import TrainRequest
from vitreous.training.step.compiled import check_compiler
from vitreous.training.weights.pretrained import (
    Pretrained,
    annotated,
    decided_keys,
    fingerprint,
    full_source,
    open_pretrained,
)
from vitreous.training.weights.teacher import check_teacher, open_teacher

_SPLIT_KEYS = ("test_ratio", "val_ratio", "split_seed", "num_folds", "fold")
"""Keys of the data that decide which image is in which split."""


@dataclass(frozen=True)
class Prepared:
    """All that a run needs of its data.

    Attributes:
        config: With the mean and std that were measured.
        survey: Which image belongs to which split.
        preprocess: From any image to what the model sees.
        train: Training images.
        val: Validation images; None where there are none.
        test: Test images; None where there are none.
        teacher: The model to learn from beside the labels; None where there is none.
    """

    config: RunConfig
    survey: Survey
    preprocess: Preprocess
    train: Store
    val: Store | None
    test: Store | None
    teacher: Pretrained | None = None


def plan_run(request: TrainRequest, listener: Listener) -> tuple[Survey, Plan]:
    """Read the data once and decide every key of the run.

    Raises:
        ConfigError: A wish that breaks a rule, or no data.
        DataError: Data that cannot be trained on.
    """
    if request.data is None and request.source is None and request.recipe is None:
        known = ", ".join(known_sets())
        raise ConfigError(f"data=none: nothing to train on; give a folder of class folders, or one of {known}")
    recipe, asked = _asked(request)
    device = resolve_device(asked.get("train.device", "auto"))
    resolve_precision(asked.get("train.precision", "auto"), device)
    source = _open(request, asked)
    pretrained = asked.get("train.pretrained")
    checkpoint = None if pretrained is None else open_pretrained(pretrained, asked)
    teacher = open_teacher(asked.get("objective.teacher"))
    surveyed = _survey(source, asked, listener)
    _check_readable(surveyed.facts.skipped, asked.get("data.on_error", "skip"))
    given = _given(surveyed, asked["data.source"], asked.get("data.num_folds", 0))

    def measure(config: RunConfig) -> float:
        check_teacher(teacher, config, surveyed.facts.classes)
        return training_images_per_s(config, teacher)

    decided = {} if checkpoint is None else decided_keys(checkpoint, surveyed.facts, asked)
    requested = asked | {key: choice.value for key, choice in decided.items()}
    plan = make_plan(surveyed.facts, given, recipe=recipe, asked=requested, measure=measure, memory=memory_share)
    if checkpoint is not None:
        plan = annotated(plan, checkpoint, decided, surveyed.facts.classes)
    check_teacher(teacher, plan.config, surveyed.facts.classes)
    check_compiler(plan.config.train.compile, device)
    plan = _with_measured_attention(plan, teacher)
    plan = replace(plan, choices=tuple(_as_settled(choice, request) for choice in plan.choices))
    # Weights that the data does not bring are told now, not when everything is decoded.
    sampling_weights(plan.config.data, surveyed.source.labels, surveyed.source.weights)
    return surveyed, plan


def survey_again(config: DataConfig, listener: Listener, source: Source | None = None) -> Survey:
    """The survey of a run that exists already: the same shares, the same seed; `source` is what Python gives again."""
    source = open_source(config.source, config.root) if source is None else source
    shares = {f"data.{key}": getattr(config, key) for key in _SPLIT_KEYS}
    return _survey(source, shares, listener)


def load_data(config: RunConfig, surveyed: Survey, recorder: Recorder) -> Prepared:
    """Decode the images and measure what normalises them.

    Raises:
        DataError: No training image decodes, those that do show one class only, or with `data.on_error=error` one does
            not.
    """
    data = config.data
    teacher = open_teacher(config.objective.teacher)
    check_teacher(teacher, config, surveyed.facts.classes)
    if teacher is not None:
        recorder.record("teacher", {"source": teacher.source, "fingerprint": fingerprint(teacher.model),
                                    "distill": config.objective.distill})  # fmt: skip
    unnormalised = Preprocess(data.img_size, data.in_chans, data.fit, data.mean, data.std)
    device = resolve_device(config.train.device)
    loaded = _load_stores(data, surveyed, unnormalised, recorder.show)
    skipped = [*surveyed.facts.skipped, *(entry for store in loaded.values() for entry in store.skipped)]
    _check_readable(skipped, data.on_error)
    stores = {split: store.to(device) for split, store in loaded.items() if len(store)}
    cache = {split: asdict(store.cache_use) for split, store in loaded.items() if store.cache_use}
    if "train" not in stores or len(torch.unique(stores["train"].labels)) < 2:
        left = len(stores["train"]) if "train" in stores else 0
        first = f"; the first that does not is {skipped[0][0]} ({skipped[0][1]})" if skipped else ""
        raise DataError(f"{data.source}: {left} training images decode, and show fewer than two classes{first}")
    recorder.record("data", asdict(surveyed.facts) | {"skipped": skipped, "num_skipped": len(skipped),
                                                      "findings": brief(surveyed, stores),
                                                      "cache": cache})  # fmt: skip
    if data.mean is None:
        mean, std = measure_mean_std(stores["train"])
        config = replace(config, data=replace(data, mean=mean, std=std))
    preprocess = replace(unnormalised, mean=config.data.mean, std=config.data.std)
    return Prepared(config, surveyed, preprocess, stores["train"], stores.get("val"), stores.get("test"), teacher)


def _load_stores(data: DataConfig, surveyed: Survey, preprocess: Preprocess, listener: Listener) -> dict[str, Store]:
    """The images of each split that has any."""
    stores: dict[str, Store] = {}
    for split, indices in surveyed.indices.items():
        if len(indices):
            stores[split] = load_store(
                surveyed.source,
                indices,
                preprocess,
                memory_limit_bytes=data.memory_limit_bytes,
                digests=surveyed.digests[indices],
                cache=data.cache,
                progress=_progress(listener, f"decoding {split}"),
            )
    return stores


def _check_readable(skipped: Sequence[tuple[str, str]], on_error: str) -> None:
    if skipped and on_error == "error":
        (which, why), num = skipped[0], len(skipped)
        raise DataError(
            f"data.on_error=error: {num} {'file is' if num == 1 else 'files are'} no readable image, "
            f"{'' if num == 1 else 'the first is '}{which} ({why}); mend or remove, or set data.on_error=skip"
        )


def _asked(request: TrainRequest) -> tuple[str | None, dict[str, Any]]:
    """Name of the shipped recipe, and the keys that the recipe file, the model's name and the user set."""
    recipe, asked = request.recipe, dict[str, Any]()
    if recipe is not None and recipe not in SHIPPED and Path(recipe).suffix in (".yaml", ".yml"):
        recipe, asked = read_values(Path(recipe))
    if request.model is not None:
        asked |= _model_keys(request.model)
    asked |= keys.checked(request.values) | keys.checked(request.settled)
    if asked.get("train.pretrained") is not None:
        asked["train.pretrained"] = full_source(asked["train.pretrained"])
    if asked.get("objective.teacher") is not None:
        asked["objective.teacher"] = full_source(asked["objective.teacher"])
    return recipe, asked


def _with_measured_attention(plan: Plan, teacher: Pretrained | None) -> Plan:
    """The plan with the faster kernel on this machine, where that is what was asked for."""
    key, config = "train.attention_kernel", plan.config
    if config.train.attention_kernel != "measured":
        return plan
    explicit = replace(config, train=replace(config.train, attention_kernel="explicit"))
    if (share := memory_share(explicit)) > MOST_MEMORY:
        return _with(plan, Choice(key, "sdpa", f"written out it would take {100 * share:.0f} % of the memory"))
    seconds = attention_s(config, teacher)
    faster, slower = sorted(seconds, key=lambda kernel: seconds[kernel])
    reason = f"{seconds[faster]:.3g} s a step, measured; {seconds[slower]:.3g} s with {slower}"
    return _with(plan, Choice(key, faster, reason))


def _with(plan: Plan, attention: Choice) -> Plan:
    """The plan with this kernel."""
    train = replace(plan.config.train, attention_kernel=attention.value)
    others = tuple(choice for choice in plan.choices if choice.key != attention.key)
    return replace(plan, config=replace(plan.config, train=train), choices=(*others, attention))


def _as_settled(choice: Choice, request: TrainRequest) -> Choice:
    """Nobody asked for what the first run of a series decided."""
    is_settled = choice.key in request.settled and choice.key not in request.values
    return replace(choice, reason="as the first run of the series") if is_settled else choice


def _open(request: TrainRequest, asked: dict[str, Any]) -> Source:
    """The data; `asked` names it from then on, and its root in full."""
    if (request.data is not None or request.source is not None) and "data.root" not in request.values:
        asked.pop("data.root", None)  # a recipe file's root is that of its own data
    root = asked.get("data.root")
    if request.source is not None:
        if root is not None:
            raise ConfigError(f"data.root={root}: is for the paths of a table; leave it out")
        asked["data.source"] = PYTHON_PREFIX + request.source.name
        return request.source
    if request.data is not None:
        asked["data.source"] = request.data
    elif "data.source" not in asked:
        raise ConfigError(f"data=none: recipe {request.recipe} names none either; give a folder or the name of a set")
    if root is not None:
        asked["data.root"] = full_name(root)
    return open_source(asked["data.source"], root)


def _model_keys(name: str) -> dict[str, Any]:
    parsed = parse_name(name)
    found: dict[str, Any] = {
        "model.embed_dim": parsed.size.embed_dim,
        "model.depth": parsed.size.depth,
        "model.num_heads": parsed.size.num_heads,
    }
    if parsed.size.mlp_ratio != Size.mlp_ratio:
        found["model.mlp_ratio"] = parsed.size.mlp_ratio
    if parsed.patch_size:
        found["model.patch_size"] = parsed.patch_size
    if parsed.img_size:
        found["data.img_size"] = (parsed.img_size, parsed.img_size)
    if parsed.changes:
        changes = {"pool": "token", **parsed.changes}
        found |= {f"model.{key}": value for key, value in changes.items() if key not in MODEL_INPUT_KEYS}
    return found


def _given(surveyed: Survey, source: str, num_folds: int) -> list[Choice]:
    wish = surveyed.source.test_ratio
    reason = "held out where the data brings no test split" if wish is None else "held out, as this set is known with"
    reason = f"one fold of {num_folds}" if num_folds else reason
    weighted = [] if surveyed.source.weights is None else [
        Choice("data.sampler", "weighted", "the data says how much each image counts")
    ]  # fmt: skip
    return [
        Choice("data.source", full_name(source), "the data"),
        Choice("data.test_ratio", surveyed.facts.test_ratio, reason),
        *weighted,
    ]


def _survey(source: Source, values: Mapping[str, Any], listener: Listener) -> Survey:
    defaults = keys.defaults() | {"data.test_ratio": None}
    splits = {key: values.get(f"data.{key}", defaults[f"data.{key}"]) for key in _SPLIT_KEYS}
    return survey(source, **splits, progress=_progress(listener, "reading"))


def _progress(show: Listener, what: str) -> Callable[[int, int], None]:
    return lambda done, total: show("reading", {"what": what, "done": done, "total": total})
