"""Training images of each class, other choices -> choices that let rare classes be learned."""

from collections.abc import Iterator, Mapping
from typing import Any

from vitreous.data.doctor.diagnose import VERY_UNEVEN
from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.plan import Choice

_BALANCING = ("data.sampler", "objective.class_weights", "objective.logit_adjustment")


def rare_class_choices(facts: DataFacts, choices: Mapping[str, Choice], asked: Mapping[str, Any]) -> Iterator[Choice]:
    """Yield a sampler for very uneven classes, and no label smoothing with logit adjustment.

    Showing all classes equally often does not always help. With 500 and 15 images of digits, 40 epochs and 2 seeds
    (accuracy at the frequencies of training; balanced accuracy; `benchmarks/rare_classes.py`), it makes no difference
    within the spread of 4 to 9 points between seeds:

        none                                97.9%; 71.9%
        balanced sampler                    97.8%; 70.7%
        class weights                       97.3%; 70.2%
        logit adjustment, no smoothing      95.3%; 74.5%

    It is chosen because it cost no accuracy there, changes no logit, and lets a short run see every class often.

    Label smoothing gives a rare class the same share of each target as any other, and logit adjustment divides by the
    class frequencies; together they favor the rarest classes. With a key in `choices` that balances the classes, no
    sampler is chosen. `asked` has the keys that the user sets.
    """
    if facts.task == "multilabel":  # an image with several labels belongs to no single class
        return
    counts = [count for count in facts.class_counts if count]
    ratio = max(counts) / min(counts)
    if ratio >= VERY_UNEVEN and not any(key in choices for key in _BALANCING):
        yield Choice(
            "data.sampler",
            "balanced",
            f"the largest class has {ratio:,.0f} times the training images of the smallest; all classes are shown "
            "equally often, so that rare ones are predicted too; overall accuracy may fall, and probabilities are for "
            "equally frequent classes; shuffle shows each image once",
        )
    adjustment = choices.get("objective.logit_adjustment")
    if adjustment and adjustment.value and ratio > 1 and "objective.label_smoothing" not in asked:
        reason = "logit adjustment would turn smoothed labels into a preference for the rarest classes"
        yield Choice("objective.label_smoothing", 0.0, reason)
