"""RunConfig, data facts -> consequences that no single room can see, before any tensor exists.

What cannot work by itself is an error where the config is made (`ModelConfig`, `DataConfig` …); here is what cannot
work with these data, and what works badly.
"""

from collections.abc import Iterator

from vitreous.data.build import build_mix
from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.recipe.run_config import RunConfig

FEW_TOKENS = 16
FEW_TEST_IMAGES = 384
"""Below this many, the 95 % interval of an accuracy may be wider than ±5 points: 0.98 / √384."""


def check_fits(config: RunConfig, facts: DataFacts) -> None:
    """Raise ConfigError where a wish, or a recipe file made for other data, does not fit these."""
    if config.data.num_classes != len(facts.classes):
        raise ConfigError(
            f"data.num_classes={config.data.num_classes}: {facts.name} has {len(facts.classes)} classes; "
            f"leave it out, the data decides it"
        )


def consequences(config: RunConfig, facts: DataFacts) -> Iterator[str]:
    """Sentences on what the user should expect, most important first."""
    yield from facts.notes
    if facts.skipped:
        which = "1 file could not be read and is" if len(facts.skipped) == 1 else (
            f"{len(facts.skipped)} files could not be read and are")  # fmt: skip
        yield f"{which} left out; records.jsonl names {'it' if len(facts.skipped) == 1 else 'them'}"
    tokens = config.model.num_patches
    if tokens < FEW_TOKENS:
        height, width = config.data.img_size
        smaller = [side for side in range(1, config.model.patch_size) if height % side == 0 == width % side]
        better = f"{smaller[-1]} gives {(height // smaller[-1]) * (width // smaller[-1])}" if smaller else (
            "a larger data.img_size gives more")  # fmt: skip
        yield (
            f"model.patch_size={config.model.patch_size} leaves {tokens} tokens of a {height}x{width} px image; "
            f"accuracy will suffer, {better}"
        )
    yield from _on_the_test(config, facts)
    yield from _on_the_objective(config, facts)
    if build_mix(config.data):
        yield (
            "images are mixed: accuracy in training counts the label of an image's larger share, and stays below that "
            "on validation images"
        )
    if config.data.batch_size > facts.num_train:
        yield f"data.batch_size={config.data.batch_size} is more than the {facts.num_train} images: one step an epoch"
    yield from _on_what_changes(config, facts)


def _on_the_objective(config: RunConfig, facts: DataFacts) -> Iterator[str]:
    """What the loss does to classes, and what it cannot be compared with."""
    data, objective = config.data, config.objective
    tau = f"objective.logit_adjustment={objective.logit_adjustment:g}"
    making_up = {
        "data.sampler=balanced": data.sampler == "balanced",
        "objective.class_weights=balanced": objective.class_weights == "balanced",
        tau: objective.logit_adjustment > 0,
    }
    named = [name for name, is_asked in making_up.items() if is_asked]
    if len(named) > 1:
        yield (
            f"{' and '.join(named)} {'both' if len(named) == 2 else 'all'} make up for rare classes, which then count "
            "more than the others; one of them is enough"
        )
    if objective.logit_adjustment and len(set(facts.class_counts)) == 1:
        yield f"{tau} changes nothing: all classes have {facts.class_counts[0]:,} training images"
    elif objective.logit_adjustment:
        yield (
            f"{tau}: rare classes are called as readily as others; accuracy may fall where images are as uneven as in "
            "training, and the mean accuracy of the classes rises"
        )
    if objective.loss == "bce":
        yield (
            "objective.loss=bce: the loss in training is that of a yes or no for each class, and on validation images "
            "it is cross-entropy; compare accuracies"
        )


def _on_what_changes(config: RunConfig, facts: DataFacts) -> Iterator[str]:
    """What parts of the model or of the run that are held back will do."""
    train = config.train
    frozen = {"train.freeze=backbone": train.freeze == "backbone", "train.lora_rank": train.lora_rank > 0,
              f"train.freeze_blocks={train.freeze_blocks}": train.freeze_blocks > 0}  # fmt: skip
    for wish in (wish for wish, is_asked in frozen.items() if is_asked and train.pretrained is None):
        yield f"{wish} without train.pretrained keeps weights that nothing trained; give --pretrained FILE"
    if train.patience_ratio and facts.num_val == 0:
        yield f"train.patience_ratio={train.patience_ratio:g}: without validation images the run never stops early"
    if train.patch_drop_until < 1 and config.model.patch_drop_rate == 0:
        yield f"train.patch_drop_until={train.patch_drop_until:g} changes nothing: model.patch_drop_rate is 0"


def _on_the_test(config: RunConfig, facts: DataFacts) -> Iterator[str]:
    """What the accuracy will be worth."""
    num_folds, test_ratio = config.data.num_folds, config.data.test_ratio
    if num_folds and test_ratio != facts.test_ratio:
        yield f"data.test_ratio={test_ratio:g} holds nothing out: with data.num_folds={num_folds} the test is one fold"
    if facts.num_test == 0:
        yield "there are no test images: the final accuracy is that of the validation images, or unknown"
    elif facts.num_test < FEW_TEST_IMAGES and not num_folds:
        num_foldable = facts.num_train + facts.num_val + (0 if facts.brings_test else facts.num_test)
        which = f"the {num_foldable:,} others" if facts.brings_test else f"all {num_foldable:,}"
        yield (
            f"the test has {facts.num_test} images only: its accuracy is uncertain by up to "
            f"±{_uncertainty(facts.num_test):.0f} points; `--folds 5` tests {which} once, in five runs: "
            f"±{_uncertainty(num_foldable):.1f} points"
        )


def _uncertainty(num_images: int) -> float:
    """Half the width of the 95 % interval of an accuracy of a half, the widest, in points."""
    return 100 * 0.98 / num_images**0.5
