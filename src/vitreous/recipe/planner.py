"""Data facts, wishes, budget -> Plan. Precedence: planner < recipe file < what the user asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.model.config.presets import SIZES
from vitreous.recipe import keys
from vitreous.recipe.check import check_fits, consequences
from vitreous.recipe.plan import ASKED, Choice, Plan
from vitreous.recipe.rules import (
    BY_OPTIMIZER,
    LADDER,
    MAX_STRETCH,
    VARIATION_KEYS,
    VARIED_BY,
    by_num_images,
    learning_rate,
    patch_size_for,
    variation_share,
)
from vitreous.recipe.run_config import RunConfig
from vitreous.recipe.shipped import recipe_for, recipe_named

MeasureSpeed = Callable[[RunConfig], float]
"""Trains a throw-away model for a moment; images per second on this machine."""
MemoryShare = Callable[[RunConfig], float]
"""What a training step takes of this machine's memory."""

_SIZE_KEYS = ("model.embed_dim", "model.depth", "model.num_heads")
_TRAINING_SHARE = 0.85
"""Of a budget; the rest goes to reading data, evaluations and saving."""
MOST_MEMORY = 0.6
"""Share of the memory that a training step may take; images and everything else have the rest."""


def make_plan(
    facts: DataFacts,
    given: Iterable[Choice],
    *,
    recipe: str | None,
    asked: Mapping[str, Any],
    measure: MeasureSpeed,
    memory: MemoryShare,
) -> Plan:
    """Decide every key of a run.

    Args:
        facts: Of the data set.
        given: Choices that were made while the data was read: its name, its splits.
        recipe: Name of a shipped recipe; None takes the one that suits the data.
        asked: Checked keys that the user or a recipe file sets; they always win.
        measure: Called only where a budget has to be met.
        memory: Decides into how many parts a batch is cut.

    Raises:
        UnknownNameError: No such recipe.
        ConfigError: Values that do not go together.
    """
    name = recipe or recipe_for(facts, asked)
    recommended = recipe_named(name)(facts, asked)
    choices = {choice.key: choice for choice in [*given, *recommended]}
    choices |= {key: Choice(key, value, ASKED) for key, value in asked.items() if key != "data.source"}
    _config(name, choices)  # what breaks a rule is refused before anything follows from it
    expected_epochs = choices["train.epochs"].value
    if asked.get("train.budget_s"):
        fitted, expected_epochs = _fit_budget(
            name, choices, facts, asked, lambda config: measure(_in_parts(config, asked, memory))
        )
        choices |= fitted
    choices |= _fit_memory(_config(name, choices), asked, memory)
    choices |= _soften(choices, expected_epochs, asked)
    choices |= _suit_optimizer(choices, recommended, asked)
    config = _config(name, choices)
    check_fits(config, facts)
    ordered = sorted(choices.values(), key=lambda choice: list(keys.known_keys()).index(choice.key))
    return Plan(config, tuple(ordered), (*consequences(config, facts), *_on_memory(memory(config))))


def _fit_budget(
    name: str, choices: dict[str, Choice], facts: DataFacts, asked: Mapping[str, Any], measure: MeasureSpeed
) -> tuple[dict[str, Choice], float]:
    """The largest model of the ladder that sees each image often enough in the time; and how often that is."""
    rule = by_num_images(facts.num_train)
    budget_s = asked["train.budget_s"] * _TRAINING_SHARE
    longest = Choice("train.epochs", MAX_STRETCH * choices["train.epochs"].value, "at most; the budget decides")
    chosen = {} if "train.epochs" in asked else {"train.epochs": longest}
    most_epochs = asked.get("train.epochs", longest.value)
    if any(key in asked for key in _SIZE_KEYS):
        epochs = budget_s * measure(_config(name, choices)) / facts.num_train
        return chosen, min(epochs, most_epochs)
    for row in _affordable_rows(choices, asked):
        config = _config(name, choices | row)
        speed = measure(config)
        epochs = min(budget_s * speed / facts.num_train, most_epochs)
        if epochs >= rule.least_epochs:
            break
    reason = f"{speed:,.0f} images/s on this machine: about {epochs:.3g} epochs in time"
    return chosen | row | {key: Choice(key, row[key].value, reason) for key in _SIZE_KEYS}, epochs


def _in_parts(config: RunConfig, asked: Mapping[str, Any], memory: MemoryShare) -> RunConfig:
    """The same with each batch in as few parts as fit into the memory, by halves, unless their number was asked for."""
    if "train.micro_batches" in asked:
        return config
    while config.train.micro_batches < config.data.batch_size and memory(config) > MOST_MEMORY:
        parts = min(2 * config.train.micro_batches, config.data.batch_size)
        config = replace(config, train=replace(config.train, micro_batches=parts))
    return config


def _fit_memory(config: RunConfig, asked: Mapping[str, Any], memory: MemoryShare) -> dict[str, Choice]:
    """Parts for a batch that is too large for the memory at once: the same step."""
    parts = _in_parts(config, asked, memory).train.micro_batches
    if parts == config.train.micro_batches:
        return {}
    reason = f"all {config.data.batch_size} images at once take about {memory(config):.0%} of the memory"
    return {"train.micro_batches": Choice("train.micro_batches", parts, reason)}


def _on_memory(share: float) -> Iterator[str]:
    if share > MOST_MEMORY:
        yield (
            f"a training step takes about {share:.0%} of the memory, and the system may end the run: more "
            "train.micro_batches, train.grad_checkpointing true, a smaller model or data.batch_size takes less"
        )


def _soften(choices: Mapping[str, Choice], epochs: float, asked: Mapping[str, Any]) -> dict[str, Choice]:
    """A run that sees each image a few times only has no use for varied images and a hindered model: less of both."""
    share = variation_share(epochs)
    if share == 1:
        return {}
    reason = f"{share:.0%} of the usual: each image is seen about {epochs:.2g} times only"
    # Only what the recipe itself asks for is done less often; what the user asked for stays.
    rates = {rate: 1.0 for rate, keys_of in VARIED_BY.items() if any(k in choices and k not in asked for k in keys_of)}
    varied = rates | {key: choice.value for key, choice in choices.items() if key in VARIATION_KEYS}
    softened = {key: value * share for key, value in varied.items()}
    smoothing = choices.get("objective.label_smoothing")
    usual = keys.defaults()["objective.label_smoothing"] if smoothing is None else smoothing.value
    softened["objective.label_smoothing"] = usual * share
    if "data.min_crop_area" in choices:
        softened["data.min_crop_area"] = 1 - share * (1 - choices["data.min_crop_area"].value)
    if share == 0:
        softened["data.flip"] = False
    return {key: Choice(key, value, reason) for key, value in softened.items() if key not in asked}


def _suit_optimizer(
    choices: Mapping[str, Choice], recommended: Iterable[Choice], asked: Mapping[str, Any]
) -> dict[str, Choice]:
    """Another optimiser than the recipe's gets the rate, the decay and the schedule that suit it."""
    usual = next((choice.value for choice in recommended if choice.key == "optim.name"), "adamw")
    wanted = asked.get("optim.name", usual)
    if wanted == usual:
        return {}
    rule, of_recipe = BY_OPTIMIZER[wanted], BY_OPTIMIZER[usual]
    ratios = {
        "optim.lr": rule.lr_ratio / of_recipe.lr_ratio,
        "optim.weight_decay": rule.decay_ratio / of_recipe.decay_ratio,
    }
    values = keys.defaults() | {key: choice.value for key, choice in choices.items()}
    suited = dict(rule.values) | {
        key: float(f"{ratio * values[key]:.2g}") for key, ratio in ratios.items() if ratio != 1
    }
    return {key: Choice(key, value, rule.reason) for key, value in suited.items() if key not in asked}


def _affordable_rows(choices: Mapping[str, Choice], asked: Mapping[str, Any]) -> Iterator[dict[str, Choice]]:
    """Choices for each rung of the ladder, from the recipe's own model down."""
    img_size = choices["data.img_size"].value
    most_parameters = (choices["model.embed_dim"].value, choices["model.depth"].value)
    least_patch_size = choices["model.patch_size"].value
    seen = set()
    for rung in reversed(LADDER):
        row = SIZES[rung.size]
        patch_size = max(least_patch_size, patch_size_for(img_size, rung.num_tokens))
        if (row.embed_dim, row.depth) > most_parameters or (row, patch_size) in seen:
            continue
        seen.add((row, patch_size))
        values = zip(_SIZE_KEYS, (row.embed_dim, row.depth, row.num_heads), strict=True)
        found = {key: Choice(key, value, rung.size) for key, value in values}
        if "model.patch_size" not in asked:
            num_tokens = (img_size[0] // patch_size) * (img_size[1] // patch_size)
            found["model.patch_size"] = Choice("model.patch_size", patch_size, f"{num_tokens} tokens fit the time")
        if "optim.lr" not in asked:
            batch_size = choices["data.batch_size"].value
            reason = f"for batch {batch_size} and width {row.embed_dim}"
            found["optim.lr"] = Choice("optim.lr", learning_rate(batch_size, row.embed_dim), reason)
        yield found


def _config(name: str, choices: Mapping[str, Choice]) -> RunConfig:
    return keys.assemble(name, {key: choice.value for key, choice in choices.items()})
