"""Pretrained weights, data facts -> Plan: image size and trainable layers that the budget allows."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.cost.count import count_flops
from vitreous.recipe import keys
from vitreous.recipe.pace import EVALUATION_SPEEDUP, FEATURE_SHARE, FOLD_S, HEAD_SHARE, STEP_OVERHEAD, time_limit
from vitreous.recipe.plan import ASKED, Choice, Plan
from vitreous.recipe.run_config import RunConfig
from vitreous.training.machine.device import precision_of
from vitreous.training.step.features import MOST_OUTPUT_BYTES, output_bytes
from vitreous.training.weights.advice import advice
from vitreous.training.weights.pretrained import Pretrained, annotated, decided_keys
from vitreous.wording import plural

MOST_TOKENS = 256
"""Images are not cut into more patches than this, whatever the size of the position table: 224 px for 14 px patches."""
LEAST_TOKENS = 49
"""A budget does not choose fewer patches than this."""
LEAST_EPOCHS = 3.0
"""More patches are worth their time only from this many epochs on; below it, the first half of the blocks is frozen."""
LEAST_HALF_FROZEN_EPOCHS = 1.5
"""With fewer epochs even then, three quarters of the blocks are frozen, and compute their outputs once per image."""
LEAST_MOSTLY_FROZEN_EPOCHS = 0.75
"""With fewer epochs after the pass over the images, the last blocks do not get better than a head that is fitted to
larger images."""
FEW_TESTED = 200
"""With fewer images to test on, the accuracy is uncertain, and folds show how much."""
NUM_FOLDS = {600.0: 5, 0.0: 3}
"""Least seconds of a budget -> folds. Fewer folds leave more time for each, but train on fewer of the images."""
FEW_EPOCHS = 20.0
"""Epochs for which a few images are trained; the rest of the budget is for the folds."""
START_S, SECONDS_PER_IMAGE = 8.0, 0.002
"""Seconds that a run needs to plan, and for each image to read it and to fit and evaluate the first model."""
_FLOAT32_SPEEDUP = 1.5
"""Images per second in the final evaluation, which is in float32, relative to training in bf16."""
_DEEPEST = 5 / 6
"""Share of the blocks that most images pass if no step follows: the best view is rarely later (`step/views.py`)."""
TOO_SHORT = "the budget is too short to train blocks, so only a head is fitted to features of the pretrained weights"
_UNAUGMENTED: Mapping[str, Any] = {
    "data.min_crop_area": 1.0, "data.flip": False, "data.max_shift": 0.0, "data.max_scale": 0.0,
    "model.drop_path_rate": 0.0,
}  # fmt: skip
PlanFor = Callable[[Mapping[str, Any]], Plan]
"""Requested keys -> Plan, with the speed of its steps measured on this machine if there is a budget."""


def plan_transfer(checkpoint: Pretrained, facts: DataFacts, asked: Mapping[str, Any], plan_for: PlanFor) -> Plan:
    """Plan a run that starts from pretrained weights.

    Without a budget, images get the size of the weights' own, up to `MOST_TOKENS`. With one, they get the largest size
    at which the budget allows `LEAST_EPOCHS`, judged by measured steps. A user's own size is kept.
    """
    decided = decided_keys(checkpoint, facts, asked)

    def plan_with(*choices: Choice) -> Plan:
        made = decided | {choice.key: choice for choice in choices}
        plan = plan_for({**asked, **{key: choice.value for key, choice in made.items()}})
        return annotated(plan, checkpoint, made, facts.classes)

    if "data.img_size" in asked:
        return plan_with()
    config = checkpoint.model.config
    sizes = list(image_sizes(config, asked.get("model.patch_size", config.patch_size)))
    if asked.get("train.budget_s") and keys.has_labels(asked):
        measured = [Choice("train.epochs", 1.0, "to measure a step")] if asked.get("train.epochs") == 0 else []
        whole = plan_with(Choice("data.img_size", sizes[-1], "the smallest size"), *measured)
        search = _Search(whole, sizes, facts, asked, plan_with)
        plan = search.with_folds() or search.within_budget()
        return replace(plan, advice=tuple(advice(plan, whole, sizes, facts, LEAST_EPOCHS)))
    reason = f"as in {checkpoint.source}"
    if sizes[0] != config.img_size:
        reason = f"{MOST_TOKENS} patches are enough for most photos; {checkpoint.source} has {config.num_patches:,}"
    return plan_with(Choice("data.img_size", sizes[0], reason))


@dataclass(frozen=True)
class _Search:
    """The plans that a time budget allows, from which one is chosen.

    Attributes:
        whole: The plan with the smallest images and no frozen block; its steps show how fast a pass over images is.
        sizes: The image sizes that the weights allow, the largest first.
        facts: The data.
        asked: The keys that the user sets.
        plan_with: Choices -> the plan with them, whose steps are measured.
    """

    whole: Plan
    sizes: Sequence[tuple[int, int]]
    facts: DataFacts
    asked: Mapping[str, Any]
    plan_with: Callable[..., Plan]

    def with_folds(self) -> Plan | None:
        """Return a plan for few images that leaves time for folds; None if there are enough to test on, or no time.

        The run and each fold get an equal share of the time for training. The largest image size is taken at which a
        share suffices for `FEW_EPOCHS`.
        """
        facts, number = self.facts, num_folds(self.asked)
        is_fixed = bool({"train.epochs", "data.num_folds", "train.freeze"} & self.asked.keys())
        is_few = facts.num_tested < FEW_TESTED and not facts.brings_test
        if is_fixed or not is_few or self._epochs(self.whole, number) < FEW_EPOCHS:
            return None
        reason = f"{FEW_EPOCHS:g} epochs suffice for {plural(facts.num_train, 'image')}"
        others = f"the rest of the budget is for {number} folds, which test each image once"
        epochs = Choice("train.epochs", FEW_EPOCHS, f"{reason}; {others}")
        why = "the largest size that leaves time for folds"
        found = self._largest(self.whole, why, [epochs], FEW_EPOCHS, number)
        return found or self.plan_with(Choice("data.img_size", self.sizes[-1], why), epochs)

    def within_budget(self) -> Plan:
        """Return the plan with the largest image size that reaches `LEAST_EPOCHS`, if need be with frozen blocks.

        At first, half of the blocks. If that is not enough, three quarters are frozen, and compute their outputs once
        for each image. On 3,068 photos of clothes at 98 px, half of the blocks frozen: 83% after half an epoch; three
        quarters: 87% after 1.6 epochs, which take less time. If not even that is possible, all blocks keep their
        weights, and the time is for larger images.
        """
        if self.asked.get("train.epochs") == 0:
            return self._only_head(ASKED)
        smallest, config, frozen = self.whole, self.whole.config, list[Choice]()
        is_fixed = bool({"train.freeze", "train.freeze_blocks", "train.lora_rank"} & self.asked.keys())
        if self._epochs(smallest) < LEAST_EPOCHS and not is_fixed:
            few, depth = f"{self._epochs(smallest):.2g} epochs", config.model.depth
            can_fit = config.train.head_init == "fitted" and "train.epochs" not in self.asked
            # Steps of a quarter of the blocks are four times as fast at most.
            reusing = replace(smallest, config=replace(config, train=replace(config.train, reuse_frozen=True)))
            if can_fit and 4 * self._epochs(reusing) < LEAST_MOSTLY_FROZEN_EPOCHS:
                return self._only_head(TOO_SHORT)
            at_smallest = Choice("data.img_size", self.sizes[-1], "the smallest size")
            reason = f"all blocks would be trained for only {few}; the first blocks need the least change"
            frozen.append(Choice("train.freeze_blocks", depth // 2, reason))
            smallest = self.plan_with(at_smallest, *frozen)
            is_short = self._epochs(smallest) < LEAST_HALF_FROZEN_EPOCHS and not _UNAUGMENTED.keys() & self.asked.keys()
            if is_short and output_bytes(config, self.facts.num_train, "fp32") <= MOST_OUTPUT_BYTES:
                plan = self.plan_with(at_smallest, *_mostly_frozen(depth, few))
                if self._epochs(plan) >= LEAST_MOSTLY_FROZEN_EPOCHS:
                    return self._with_speed(plan)
                if can_fit:
                    return self._only_head(TOO_SHORT)
        why = f"the largest size that gets {LEAST_EPOCHS:g} epochs"
        return self._with_speed(self._largest(smallest, why, frozen, LEAST_EPOCHS) or smallest)

    def _only_head(self, why: str) -> Plan:
        """Return the plan that only fits a head, at the largest image size at which all images can be seen."""
        config, facts, rate = self.whole.config, self.facts, _images_per_s(self.whole)

        def fits(size: tuple[int, int]) -> bool:
            images_per_s = rate * count_flops(config.model) / count_flops(replace(config.model, img_size=size))
            evaluated_per_s = images_per_s * _evaluation_speedup(config)
            limit = time_limit(config.train.budget_s, facts, evaluated_per_s, is_trained=False)
            pass_s = _DEEPEST * (facts.num_train + facts.num_val) / (EVALUATION_SPEEDUP * images_per_s)
            return pass_s <= limit.training_s(_before_s(facts) + HEAD_SHARE * config.train.budget_s)

        size = next((size for size in self.sizes if fits(size)), self.sizes[-1])
        reason = "the largest size at which the budget suffices for the features of all images"
        if not fits(size):
            reason = "the smallest size, at which the budget suffices for the features of some images"
        return self.plan_with(Choice("data.img_size", size, reason), Choice("train.epochs", 0.0, why))

    def _largest(
        self, smallest: Plan, why: str, choices: Sequence[Choice], least_epochs: float, num_folds: int = 0
    ) -> Plan | None:
        """Return the plan with the largest image size, above the smallest one, that gets the epochs; None for no size.

        The speed at the smallest size and the operations per image show which sizes may fit; these are measured.
        """
        model, most_epochs = smallest.config.model, self._epochs(smallest, num_folds)
        for size in self.sizes[:-1]:
            if most_epochs * count_flops(model) >= least_epochs * count_flops(replace(model, img_size=size)):
                plan = self.plan_with(Choice("data.img_size", size, why), *choices)
                if self._epochs(plan, num_folds) >= least_epochs:
                    return plan
        return None

    def _epochs(self, plan: Plan, num_folds: int = 0) -> float:
        """Return the epochs that fit into the budget after everything else; 0 if nothing was measured.

        The `num_folds` runs that follow take as long as this one.
        """
        if plan.pace is None or self.whole.pace is None:
            return 0.0
        data, train, facts = plan.config.data, plan.config.train, self.facts
        whole_flops, before_s = count_flops(self.whole.config.model), _before_s(facts)
        images_per_s = _images_per_s(self.whole) * whole_flops / count_flops(plan.config.model)
        limit = time_limit(train.budget_s, facts, images_per_s * _evaluation_speedup(plan.config))
        if train.reuse_frozen:
            before_s += facts.num_train / (EVALUATION_SPEEDUP * images_per_s)
        elif train.head_init == "fitted":
            before_s += min(FEATURE_SHARE * train.budget_s, facts.num_train / (EVALUATION_SPEEDUP * images_per_s))
        training_s = (limit.training_s(before_s) - num_folds * FOLD_S) / (num_folds + 1)
        return max(0.0, training_s) / STEP_OVERHEAD / plan.pace.mean_s() * data.batch_size / facts.num_train

    def _with_speed(self, plan: Plan) -> Plan:
        """Return the plan with the measured speed in the reason of the image size."""
        if plan.pace is None:
            return plan
        measured = f"; {_images_per_s(plan):,.3g} images/s on this machine give {self._epochs(plan):.2g} epochs"
        choices = tuple(
            replace(choice, reason=choice.reason + measured) if choice.key == "data.img_size" else choice
            for choice in plan.choices
        )
        return replace(plan, choices=choices)


def num_folds(asked: Mapping[str, Any]) -> int:
    """Return the number of folds that may follow a run with these keys, one of which is its budget."""
    return next(number for least_s, number in NUM_FOLDS.items() if asked["train.budget_s"] >= least_s)


def _mostly_frozen(depth: int, few: str) -> Iterator[Choice]:
    """Yield the choices with which three quarters of the blocks compute their outputs once for each image."""
    reason = f"all blocks would be trained for only {few}, and the second half for hardly more"
    yield Choice("train.freeze_blocks", min(depth - 1, math.ceil(0.75 * depth)), reason)
    yield Choice("train.reuse_frozen", True, "computes their outputs once for each image, which leaves time to train")
    for key, value in _UNAUGMENTED.items():
        yield Choice(key, value, "the outputs of the frozen blocks are computed once, so images do not vary")


def _images_per_s(plan: Plan) -> float:
    """Return the measured speed of the plan's training steps; 0 if there is none."""
    return 0.0 if plan.pace is None else plan.config.data.batch_size / plan.pace.mean_s()


def _evaluation_speedup(config: RunConfig) -> float:
    """Return how much faster the final evaluation, in float32, is than training in the precision of the run."""
    precision = precision_of(config.train)
    return EVALUATION_SPEEDUP if precision == "fp32" else _FLOAT32_SPEEDUP


def _before_s(facts: DataFacts) -> float:
    """Return the seconds that planning and reading take."""
    return START_S + SECONDS_PER_IMAGE * (facts.num_train + facts.num_val + facts.num_test)


def image_sizes(config: ModelConfig, patch_size: int) -> Iterator[tuple[int, int]]:
    """Yield the image sizes for weights, from their own size or `MOST_TOKENS` patches down to `LEAST_TOKENS`.

    All have the aspect ratio of the weights' own size, as far as whole patches allow. A table of relative positions
    cannot be resized, so models with one keep their size.
    """
    if config.relative_bias:
        yield config.img_size
        return
    rows, columns = config.grid_size
    scale = min(1.0, (MOST_TOKENS / (rows * columns)) ** 0.5)
    longest = round(max(rows, columns) * scale)
    for side in range(longest, 0, -1):
        grid = tuple(max(1, round(length * side / max(rows, columns))) for length in (rows, columns))
        if side < longest and grid[0] * grid[1] < LEAST_TOKENS:
            return
        yield grid[0] * patch_size, grid[1] * patch_size
