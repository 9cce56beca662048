"""Data facts, user settings, budget -> Plan. Precedence: planner < recipe file < user settings."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.model.config.presets import SIZES
from vitreous.recipe import keys
from vitreous.recipe.check import check_fits, consequences
from vitreous.recipe.implied import implied
from vitreous.recipe.pace import EVALUATION_SPEEDUP, STEP_OVERHEAD, Pace, time_limit
from vitreous.recipe.plan import ASKED, Choice, Plan
from vitreous.recipe.rare_classes import rare_class_choices
from vitreous.recipe.rules import BY_OPTIMIZER, LADDER, MAX_STRETCH, by_num_images, learning_rate, patch_size_for
from vitreous.recipe.run_config import RunConfig
from vitreous.recipe.shipped import recipe_for, recipe_named
from vitreous.recipe.short_runs import longer_warmup, softened
from vitreous.wording import show

MeasurePace = Callable[[RunConfig], Pace]
"""Trains a temporary model for a moment and returns the time of its steps on this machine."""
MemoryShare = Callable[[RunConfig], float]
"""Returns the share of this machine's memory that a training step needs."""

_SIZE_KEYS = ("model.embed_dim", "model.depth", "model.num_heads")
MOST_MEMORY = 0.6
"""Share of the memory that a training step may take; the rest is for images and everything else."""
HOPELESS = 10.0
"""Share of the memory from which a run is refused. Below it, the estimate may be wrong or swap space may do."""
_MEMORY_KEYS = (
    "data.img_size", "data.batch_size", "model.patch_size", *_SIZE_KEYS, "model.head_dim", "model.mlp_ratio",
    "model.num_registers", "train.freeze_blocks", "train.micro_batches",
)  # fmt: skip


def make_plan(
    facts: DataFacts,
    given: Iterable[Choice],
    *,
    recipe: str | None,
    asked: Mapping[str, Any],
    measure: MeasurePace,
    memory: MemoryShare,
) -> Plan:
    """Decide every key of a run.

    Args:
        facts: Facts of the data set.
        given: Choices that were made while the data was read: its name, its splits.
        recipe: Name of a recipe; None chooses one that suits the data.
        asked: Checked keys that the user or a recipe file sets; they override all other choices.
        measure: Called only with a budget.
        memory: Decides the number of micro-batches.

    Raises:
        UnknownNameError: There is no such recipe.
        ConfigError: Some values contradict each other.
    """
    name = recipe or recipe_for(facts, asked)
    recommend = recipe_named(name)
    recommended = recommend(facts, asked)
    choices = {choice.key: choice for choice in [*given, *recommended]}
    fixed, reasons = dict(asked), dict[str, Choice]()
    while adapted := implied(_values(choices) | fixed, fixed):
        fixed |= {choice.key: choice.value for choice in adapted}
        if "data.img_size" in fixed and "data.img_size" not in asked:  # it was adapted to this patch size
            fixed.setdefault("model.patch_size", choices["model.patch_size"].value)
        # What the recipe derives, such as the learning rate, must follow from the adapted values.
        recommended = recommend(facts, fixed)
        reasons = {choice.key: choice for choice in adapted} | reasons
        choices |= {choice.key: choice for choice in recommended} | reasons
    choices |= {key: Choice(key, value, ASKED) for key, value in asked.items() if key != "data.source"}
    has_labels = keys.has_labels(_values(choices))
    if facts.task == "multilabel" and has_labels:
        choices |= {choice.key: choice for choice in _multilabel_choices(choices) if choice.key not in asked}
    _config(name, choices)  # raises ConfigError for invalid values before anything is derived from them
    epochs, pace = choices["train.epochs"].value, None
    if asked.get("train.budget_s") and epochs:
        found, epochs, pace = _fit_budget(
            name, choices, facts, asked, lambda config: measure(_fitting_memory(config, asked, memory))
        )
        choices |= {choice.key: choice for choice in found}
    _update(choices, _memory_choices(_config(name, choices), asked, memory))
    if has_labels:
        _update(choices, rare_class_choices(facts, choices, asked))
        _update(choices, softened(choices, epochs, asked, facts))
    _update(choices, longer_warmup(choices, epochs, asked, facts))
    _update(choices, _suiting_optimizer(choices, recommended, asked))
    config = _config(name, choices)
    check_fits(config, facts)
    ordered = sorted(choices.values(), key=lambda choice: list(keys.rules()).index(choice.key))
    notes = (*consequences(config, facts), *_memory_notes(memory(config)))
    return Plan(config, tuple(ordered), notes, pace)


def _multilabel_choices(choices: Mapping[str, Choice]) -> Iterator[Choice]:
    """Yield what replaces the loss of any recipe if images have several labels."""
    yield Choice("objective.loss", "multilabel", "a separate decision for each label")
    yield Choice("objective.label_smoothing", 0.0, "would raise the probability of every label that is absent")
    for key in ("objective.bce_threshold", "objective.logit_adjustment"):
        if key in choices:
            yield Choice(key, keys.defaults()[key], "applies to images with one label")


def _update(choices: dict[str, Choice], new: Iterable[Choice]) -> None:
    """Replace choices in place. A choice that keeps its value keeps its reason, which explains it better."""
    defaults = keys.defaults()
    for choice in new:
        value = choices[choice.key].value if choice.key in choices else defaults.get(choice.key)
        if choice.value != value:
            choices[choice.key] = choice


def _fit_budget(
    name: str, choices: Mapping[str, Choice], facts: DataFacts, asked: Mapping[str, Any], measure: MeasurePace
) -> tuple[list[Choice], float, Pace]:
    """Choose the largest model of the ladder that reaches enough epochs within the budget.

    Returns:
        The choices, the expected number of epochs, and the measured time of the model's training steps.
    """
    found, most_epochs = [], asked.get("train.epochs", MAX_STRETCH * choices["train.epochs"].value)
    if "train.epochs" not in asked:
        usual = f"{MAX_STRETCH:g} times the usual {choices['train.epochs'].value:g}"
        found.append(Choice("train.epochs", most_epochs, f"upper limit, {usual}; the budget ends the run"))
    if "model.embed_dim" in asked or "model.depth" in asked:
        config = _config(name, choices)
        pace = measure(config)
        return found, min(most_epochs, epochs_within_budget(config, facts, pace)), pace
    rule = by_num_images(facts.num_train)
    for row in _affordable_rows(choices, asked):
        candidate = dict(choices)
        _update(candidate, row)
        # The size of the images is decided: a smaller model has larger patches.
        _update(candidate, implied(_values(candidate), {**asked, "data.img_size": candidate["data.img_size"].value}))
        config = _config(name, candidate)
        pace = measure(config)
        epochs = min(most_epochs, epochs_within_budget(config, facts, pace))
        least_epochs = rule.enough_epochs(config.model.num_patches)
        if epochs >= least_epochs:
            break
    if all(candidate[key] == choices[key] for key in _SIZE_KEYS):
        why = choices["model.depth"].reason
    elif epochs >= least_epochs:
        why = f"the largest model that reaches {least_epochs:g} epochs"
    else:
        why = "the smallest model, as the budget is short"
    speed = f"{config.data.batch_size / pace.mean_s():,.0f} images/s on this machine"
    why += f"; {speed} give {epochs:.3g} epochs in the budget"
    decided = [candidate[choice.key] for choice in row]
    found += [replace(choice, reason=why) if choice.key in _SIZE_KEYS else choice for choice in decided]
    return found, epochs, pace


def epochs_within_budget(config: RunConfig, facts: DataFacts, pace: Pace) -> float:
    """Return the number of epochs for which the training time of the budget suffices."""
    images_per_s = config.data.batch_size / pace.mean_s()
    limit = time_limit(config.train.budget_s, facts, EVALUATION_SPEEDUP * images_per_s)
    return limit.training_s(pace.before_s) / STEP_OVERHEAD * images_per_s / facts.num_train


def _affordable_rows(choices: Mapping[str, Choice], asked: Mapping[str, Any]) -> Iterator[list[Choice]]:
    """Yield the choices for each model of the ladder, from the recipe's own model to the smallest."""
    img_size = choices["data.img_size"].value
    largest = (choices["model.embed_dim"].value, choices["model.depth"].value)
    least_patch_size, stem = choices["model.patch_size"].value, _values(choices)["model.stem"]
    seen = set()
    for size, num_tokens in reversed(LADDER):
        row = SIZES[size]
        patch_size = max(least_patch_size, patch_size_for(img_size, num_tokens, stem))
        num_heads = asked.get("model.num_heads", row.num_heads)
        values = _values(choices) | {"model.embed_dim": row.embed_dim, "model.num_heads": num_heads}
        adapted = {choice.key: choice.value for choice in implied(values, asked)}
        width = adapted.get("model.embed_dim", row.embed_dim)
        if (width, row.depth) > largest or (row, patch_size) in seen:
            continue
        seen.add((row, patch_size))
        sizes = zip(_SIZE_KEYS, (width, row.depth, num_heads), strict=True)
        found = [Choice(key, value, f"`vit_{size}`") for key, value in sizes if key not in asked]
        if "model.patch_size" not in asked:
            num = (img_size[0] // patch_size) * (img_size[1] // patch_size)
            reason = f"cuts an image into {num} tokens, few enough for the budget"
            found.append(Choice("model.patch_size", patch_size, reason))
        if "optim.lr" not in asked:
            batch_size = choices["data.batch_size"].value
            reason = f"for batch size {batch_size} and width {width}"
            found.append(Choice("optim.lr", learning_rate(batch_size, width), reason))
        yield found


def _fitting_memory(config: RunConfig, asked: Mapping[str, Any], memory: MemoryShare) -> RunConfig:
    """Double the number of micro-batches until a step fits the memory, unless the user sets their number.

    Raises:
        ConfigError: A step would still take many times the memory.
    """
    if "train.micro_batches" not in asked:
        while config.train.micro_batches < config.data.batch_size and memory(config) > MOST_MEMORY:
            num = min(2 * config.train.micro_batches, config.data.batch_size)
            config = replace(config, train=replace(config.train, micro_batches=num))
    if memory(config) > HOPELESS:
        given = [f"{key}={show(asked[key])}" for key in _MEMORY_KEYS if key in asked]
        raise ConfigError(
            f"{', '.join(given) or 'model'}: a training step would take {memory(config):,.0f} times the memory; "
            "use a smaller model, smaller images, larger patches or more train.micro_batches"
        )
    return config


def _memory_choices(config: RunConfig, asked: Mapping[str, Any], memory: MemoryShare) -> Iterator[Choice]:
    num = _fitting_memory(config, asked, memory).train.micro_batches
    reason = f"a whole batch of {config.data.batch_size} images would take about {memory(config):.0%} of the memory"
    yield Choice("train.micro_batches", num, reason)


def _memory_notes(share: float) -> Iterator[str]:
    if share > MOST_MEMORY:
        yield (
            f"a training step takes about {share:.0%} of the memory, so the system may kill the run: use more "
            "train.micro_batches, train.grad_checkpointing=true, a smaller model or a smaller data.batch_size"
        )


def _suiting_optimizer(
    choices: Mapping[str, Choice], recommended: Iterable[Choice], asked: Mapping[str, Any]
) -> Iterator[Choice]:
    """Yield learning rate, weight decay and schedule for an optimizer other than the recipe's."""
    usual = {choice.key: choice.value for choice in recommended}.get("optim.name", "adamw")
    wanted = asked.get("optim.name", usual)
    if wanted == usual:
        return
    rule, of_recipe = BY_OPTIMIZER[wanted], BY_OPTIMIZER[usual]
    ratios = {
        "optim.lr": rule.lr_ratio / of_recipe.lr_ratio,
        "optim.weight_decay": rule.decay_ratio / of_recipe.decay_ratio,
    }
    values = _values(choices)
    scaled = {key: float(f"{ratio * values[key]:.2g}") for key, ratio in ratios.items() if ratio != 1}
    for key, value in (dict(rule.values) | scaled).items():
        if key not in asked:
            yield Choice(key, value, rule.reason)


def _values(choices: Mapping[str, Choice]) -> dict[str, Any]:
    return keys.defaults() | {key: choice.value for key, choice in choices.items()}


def _config(name: str, choices: Mapping[str, Choice]) -> RunConfig:
    return keys.assemble(name, {key: choice.value for key, choice in choices.items()})
