"""TrainRequest -> surveyed data and a plan for it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitreous.data.build import sampling_weights
from vitreous.data.config import DataConfig
from vitreous.data.corrections import corrected, open_data
from vitreous.data.sources import PYTHON_PREFIX, Source, check_task, full_name, known_sets, open_source
from vitreous.data.survey.facts import FEW_IMAGES, Survey, survey
from vitreous.errors import ConfigError
from vitreous.model.config.presets import Size, parse_name
from vitreous.recipe import keys
from vitreous.recipe.files import read_values
from vitreous.recipe.pace import Pace
from vitreous.recipe.plan import Choice, Plan
from vitreous.recipe.planner import MOST_MEMORY, make_plan
from vitreous.recipe.run_config import MODEL_INPUT_KEYS, RunConfig
from vitreous.recipe.shipped import SHIPPED
from vitreous.training.folder.records import Listener
from vitreous.training.load import check_readable, progress_to
from vitreous.training.machine.device import resolve_device, resolve_precision
from vitreous.training.measure.instruments import REAL, Instruments
from vitreous.training.measure.speed import attention_paces
from vitreous.training.request import TrainRequest
from vitreous.training.step.compiled import check_compiler
from vitreous.training.weights.choice import KEY, choose_start, choose_teacher
from vitreous.training.weights.leaks import inherited_splits, leak_notes
from vitreous.training.weights.pretrained import AUTO, Pretrained, full_source, open_pretrained, with_revision
from vitreous.training.weights.raw_or_averaged import with_better_weights
from vitreous.training.weights.teacher import open_teacher, with_head
from vitreous.training.weights.teacher_size import plan_teacher
from vitreous.training.weights.transfer import plan_transfer
from vitreous.wording import plural

_SPLIT_KEYS = ("test_ratio", "val_ratio", "split_seed", "num_folds", "fold")
"""Keys of `data` that assign images to splits."""


def plan_run(request: TrainRequest, listener: Listener, instruments: Instruments = REAL) -> tuple[Survey, Plan]:
    """Read the data once and decide every key of the run.

    Raises:
        ConfigError: A setting breaks a rule, or there is no data.
        DataError: Data that cannot be trained on.
    """
    if request.data is None and request.source is None and request.recipe is None:
        known = ", ".join(known_sets())
        raise ConfigError(f"data=none: nothing to train on; give a folder of class folders, or one of {known}")
    recipe, asked = _settings(request)
    device = resolve_device(asked.get("train.device", "auto"))
    resolve_precision(asked.get("train.precision", "auto"), device)
    source = _open(request, asked)
    if asked.get("data.corrections") is not None:
        asked["data.corrections"] = full_name(asked["data.corrections"])
        source = corrected(source, Path(asked["data.corrections"]))
    named = asked.get("train.pretrained")
    checkpoint = None if named in (None, AUTO) else _pretrained(named, asked)
    teacher = _named_teacher(asked)
    inherited = [] if named == AUTO else inherited_splits(asked)
    surveyed = _survey(source, {choice.key: choice.value for choice in inherited} | asked, listener)
    check_readable(surveyed.facts.skipped, asked.get("data.on_error", "skip"))
    start = choose_start(request, asked, surveyed.facts, instruments.memory_share, listener)
    if named == AUTO:
        del asked["train.pretrained"]
    if start.source is not None:
        checkpoint = _pretrained(start.source, asked)
    notes, reasons = start.notes, {KEY: start.reason}
    if asked.get("objective.teacher") == AUTO:
        learned = choose_teacher(asked, surveyed.facts, instruments.memory_share, listener)
        asked["objective.teacher"] = learned.source
        reasons["objective.teacher"] = learned.reason or "auto found no teacher"
        teacher, notes = _named_teacher(asked), (*notes, *learned.notes)
    planned = plan_teacher(teacher, surveyed.facts, asked, instruments.features_per_s)
    given = [*_given(surveyed, asked, inherited), *planned.choices]

    def measure(config: RunConfig) -> Pace:
        pace = instruments.training_pace(config, with_head(planned.model, config, surveyed.facts.classes))
        before_s = 0.0 if config.objective.runs_teacher else planned.pass_s
        return replace(pace, before_s=before_s + config.train.pretrain_ratio * config.train.budget_s)

    def plan_for(requested: Mapping[str, Any]) -> Plan:
        return make_plan(
            surveyed.facts, given, recipe=recipe, asked=requested, measure=measure, memory=instruments.memory_share
        )

    if checkpoint is None:
        plan = plan_for(asked)
    else:
        plan = plan_transfer(checkpoint, surveyed.facts, asked, plan_for)
        plan = with_better_weights(plan, checkpoint, surveyed, asked, progress_to(listener, "comparing weights"))
    check_compiler(plan.config.train.compile, device)
    if plan.config.train.attention_kernel == "measured":
        plan = _with_measured_attention(plan, planned.model, instruments)
    choices = tuple(_with_reason(choice, request, reasons) for choice in plan.choices)
    plan = replace(plan, choices=choices, notes=(*notes, *planned.notes, *leak_notes(asked, surveyed), *plan.notes))
    # Fail now, before decoding, if the sampler needs weights that the data does not have.
    sampling_weights(plan.config.data, surveyed.source.labels, surveyed.source.weights)
    return surveyed, plan


def survey_again(
    config: DataConfig, listener: Listener, source: Source | None = None, classes: Sequence[str] = ()
) -> Survey:
    """Repeat the survey of an existing run, with its splits.

    `source` is the data of a run that got it from Python; None opens the data that the configuration names. `classes`
    are those of the run in its order, if known.
    """
    source = open_data(config, source)
    source.reorder_classes(classes)
    return _survey(source, {f"data.{key}": getattr(config, key) for key in _SPLIT_KEYS}, listener)


def _settings(request: TrainRequest) -> tuple[str | None, dict[str, Any]]:
    """Return the name of the recipe, and all keys that the recipe file, the model's name and the user set."""
    recipe, asked = request.recipe, dict[str, Any]()
    if recipe is not None and recipe not in SHIPPED and Path(recipe).suffix in (".yaml", ".yml"):
        recipe, asked = read_values(Path(recipe))
    if request.model is not None:
        asked |= _model_keys(request.model)
    asked |= keys.checked(request.values) | keys.checked(request.settled)
    if recipe == "pretrain":
        asked.setdefault("objective.loss", "mae")
    for key in ("train.pretrained", "objective.teacher"):
        if asked.get(key) is not None:
            asked[key] = full_source(asked[key])
    return recipe, asked


def _with_measured_attention(plan: Plan, teacher: Pretrained | None, instruments: Instruments) -> Plan:
    """Return the plan with the attention kernel that is faster on this machine."""
    key, config = "train.attention_kernel", plan.config
    share = instruments.memory_share(replace(config, train=replace(config.train, attention_kernel="explicit")))
    if share > MOST_MEMORY:
        choice, pace = Choice(key, "sdpa", f"the explicit kernel would take {share:.0%} of the memory"), None
    else:
        paces = attention_paces(config, teacher, instruments.training_pace)
        faster, slower = sorted(paces, key=lambda kernel: paces[kernel].mean_s())
        pace = paces[faster]
        reason = f"measured: {pace.mean_s():.3g} s per step, {paces[slower].mean_s():.3g} s with {slower}"
        choice = Choice(key, faster, reason)
    train = replace(config.train, attention_kernel=choice.value)
    others = tuple(other for other in plan.choices if other.key != key)
    return replace(plan, config=replace(config, train=train), choices=(*others, choice), pace=pace)


def _with_reason(choice: Choice, request: TrainRequest, reasons: Mapping[str, str]) -> Choice:
    """Return the choice with the reason for a chosen backbone, and for keys taken over from a series' first run."""
    if reasons.get(choice.key):
        return replace(choice, reason=reasons[choice.key])
    is_settled = choice.key in request.settled and choice.key not in request.values
    return replace(choice, reason="taken over from the first run") if is_settled else choice


def _pretrained(source: str, asked: dict[str, Any]) -> Pretrained:
    """Open weights, and set the name in `asked` that will always open the same files."""
    checkpoint = open_pretrained(source, asked)
    asked["train.pretrained"] = with_revision(source)
    return checkpoint


def _named_teacher(asked: dict[str, Any]) -> Pretrained | None:
    """Open the teacher, and set the name in `asked` that will always open the same files; None if it is not named."""
    source = asked.get("objective.teacher")
    if source in (None, AUTO):
        return None
    teacher = open_teacher(source)
    asked["objective.teacher"] = with_revision(source)
    return teacher


def _open(request: TrainRequest, asked: dict[str, Any]) -> Source:
    """Open the data, and set its name and the absolute path of its root in `asked`."""
    if (request.data is not None or request.source is not None) and "data.root" not in request.values:
        asked.pop("data.root", None)  # the root of a recipe file is for the recipe's own data
    if asked.get("data.task") == "auto":
        del asked["data.task"]  # the data decides it
    root = asked.get("data.root")
    if request.source is not None:
        if root is not None:
            raise ConfigError(f"data.root={root}: applies only to the paths in a table or an export; leave it out")
        asked["data.source"] = PYTHON_PREFIX + request.source.name
        check_task(request.source, asked.get("data.task", "auto"))
        return request.source
    if request.data is not None:
        asked |= keys.checked({"data.source": request.data})
    elif "data.source" not in asked:
        raise ConfigError(
            f"data=none: recipe {request.recipe} names no data either; give a folder or the name of a data set"
        )
    if root is not None:
        asked["data.root"] = full_name(root)
    needs_labels = keys.has_labels(asked) or "data.task" in asked
    return open_source(asked["data.source"], root, asked.get("data.task", "auto"), needs_labels=needs_labels)


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


def _given(surveyed: Survey, asked: Mapping[str, Any], inherited: Sequence[Choice]) -> list[Choice]:
    """Return the choices that were made while the data was read; `inherited` are the splits of an earlier run."""
    facts, num_folds = surveyed.facts, asked.get("data.num_folds", 0)
    if num_folds:
        reason = f"one of {num_folds} folds"
    elif facts.brings_test:
        reason = "not used: the data has a test split"
    elif facts.reports_on_val:
        reason = f"with fewer than {FEW_IMAGES:,} images, the data's own validation split reports the accuracy"
    elif surveyed.source.test_ratio is None:
        together = "" if surveyed.source.groups is None else ", all of a group together"
        reason = f"the data has no test split, so images are held out{together}"
    else:
        reason = "the usual split for this data set"
    choices = [
        Choice("data.source", full_name(asked["data.source"]), "the data to train on"),
        Choice("data.task", facts.task, facts.task_reason or "each image has one label"),
        Choice("data.test_ratio", facts.test_ratio, reason),
        *(choice for choice in inherited if choice.value == facts.test_ratio or choice.key != "data.test_ratio"),
    ]
    if facts.reports_on_val and keys.has_labels(asked) and not asked.get("train.patience_ratio"):
        reason = (
            f"{plural(facts.num_val, 'validation image')} report the accuracy, so they must not choose the weights; at "
            "most, they fit the temperature of the probabilities, which changes no predicted class"
        )
        choices.append(Choice("train.choose_weights", False, reason))
    if surveyed.source.weights is not None:
        choices.append(Choice("data.sampler", "weighted", "the data gives each image a weight"))
    return choices


def _survey(source: Source, values: Mapping[str, Any], listener: Listener) -> Survey:
    defaults = keys.defaults() | {"data.test_ratio": None}
    splits = {key: values.get(f"data.{key}", defaults[f"data.{key}"]) for key in _SPLIT_KEYS}
    return survey(source, **splits, progress=progress_to(listener, "reading"))
