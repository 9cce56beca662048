"""RunConfig, data facts -> errors and notes about keys that do not suit each other or the data, before training starts.

Values that can never work raise an error where the configuration is made (`ModelConfig`, `DataConfig`, ...). This file
finds values that cannot work, or work badly, with these data.
"""

from collections.abc import Iterator

from vitreous.data.build import build_mix
from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.extensions import find_extension
from vitreous.model.config.divisibility import patch_sizes
from vitreous.recipe.run_config import RunConfig
from vitreous.recipe.without_labels import check_without_labels
from vitreous.wording import listed, plural, show

FEW_TOKENS = 16
FEW_TEST_IMAGES = 384
"""With fewer test images, the 95% interval of an accuracy may be wider than ±5 points: 0.98 / √384."""


def check_fits(config: RunConfig, facts: DataFacts) -> None:
    """Raise ConfigError if the number of classes or channels, wherever it comes from, cannot be that of the data.

    Also raise it for keys that learning without labels cannot use; see `check_without_labels`. Raise UnknownNameError
    if the extension of the model is not registered.
    """
    check_without_labels(config)
    find_extension(config.model.extension)
    if config.data.num_classes != len(facts.classes):
        raise ConfigError(
            f"data.num_classes={config.data.num_classes}: {facts.name} has {len(facts.classes)} classes; "
            "leave the key out, since the data decides it"
        )
    wanted, found = config.data.in_chans, facts.in_chans
    # Images with opacity have 2 or 4 channels if they are asked for as they are stored.
    if wanted != found and (found not in (1, 3) or wanted not in (1, 2, 3, 4)):
        others = f"{found}, with weights for {found} or none" if config.train.pretrained else str(found)
        raise ConfigError(
            f"data.in_chans={wanted}: the images of {facts.name} have {plural(found, 'channel')}; use {others}"
        )


def consequences(config: RunConfig, facts: DataFacts) -> Iterator[str]:
    """Yield sentences on what to expect of a run, most important first."""
    has_labels = config.objective.uses_labels
    if facts.task == "multilabel" and has_labels:
        yield "accuracy counts the images for which all labels are right; judge the model by mAP and F1"
    yield from facts.notes
    yield from _depth_and_channels(config, facts)
    if facts.skipped:
        where, reason = facts.skipped[0]
        yield (
            f"{plural(len(facts.skipped), 'unreadable file is', 'unreadable files are')} left out, such as {where}: "
            f"{reason}; records.jsonl lists all files that are left out"
        )
    tokens = config.model.num_patches
    if tokens < FEW_TOKENS:
        yield _few_tokens(config, tokens)
    if has_labels:
        yield from _test_set(config, facts)
        yield from _objective(config, facts)
    if build_mix(config.data):
        yield (
            "training images are mixed (mixup or CutMix): training accuracy counts only the label with the larger "
            "share, so it stays below validation accuracy"
        )
    if config.data.batch_size > facts.num_train:
        yield (
            f"data.batch_size={config.data.batch_size} is larger than the training set of "
            f"{plural(facts.num_train, 'image')}: an epoch is one step"
        )
    yield from _without_effect(config, facts)


def _depth_and_channels(config: RunConfig, facts: DataFacts) -> Iterator[str]:
    """Yield sentences on how images of more than 8 bits are scaled, and on augmentation that needs color."""
    data = config.data
    if facts.value_range and data.value_range is not None:
        one = f"; data.value_range={show(data.value_range)} is black to white in all of them"
        yield facts.value_range_reason + (one if len(data.value_range) == 2 else "")
    needing = {"randaugment": "saturation", "trivialaugment": "saturation", "3-augment": "grayscale"}
    left_out = [f"{needing[data.policy]} of data.policy"] if data.policy in needing else []
    left_out += ["saturation of data.color_jitter"] if data.color_jitter else []
    if data.in_chans not in (1, 3) and left_out:
        yield f"images of {data.in_chans} channels have no colors: augmentation goes without {' and '.join(left_out)}"


def _few_tokens(config: RunConfig, tokens: int) -> str:
    height, width = config.data.img_size
    smaller = [side for side in patch_sizes(config.model.stem, height, width) if side < config.model.patch_size]
    way_out = "use a larger data.img_size"
    if smaller:
        way_out = f"use {smaller[-1]}, for {(height // smaller[-1]) * (width // smaller[-1])} tokens"
    return (
        f"model.patch_size={config.model.patch_size}: cuts an image of {height}x{width} px into only "
        f"{plural(tokens, 'token')}, which costs accuracy; {way_out}"
    )


def _objective(config: RunConfig, facts: DataFacts) -> Iterator[str]:
    """Yield sentences on how the loss treats rare classes, and on losses that cannot be compared."""
    data, objective = config.data, config.objective
    tau = f"objective.logit_adjustment={objective.logit_adjustment:g}"
    balancing = {
        "data.sampler=balanced": data.sampler == "balanced",
        "objective.class_weights=balanced": objective.class_weights == "balanced",
        tau: objective.logit_adjustment > 0,
    }
    active = [name for name, is_active in balancing.items() if is_active]
    if len(active) > 1:
        yield (
            f"{listed(active)} {'both' if len(active) == 2 else 'all'} compensate for rare classes, which then "
            "outweigh the others; use only one"
        )
    if objective.logit_adjustment and len(set(facts.class_counts)) == 1:
        yield f"{tau} has no effect: every class has {plural(facts.class_counts[0], 'training image')}"
    elif objective.logit_adjustment:
        yield (
            f"{tau}: rare classes are predicted as readily as common ones; the mean accuracy per class rises, and the "
            "overall accuracy may fall if the test images are as imbalanced as the training images"
        )
    if objective.logit_adjustment and objective.label_smoothing and len(set(facts.class_counts)) > 1:
        yield (
            f"{tau} with objective.label_smoothing={objective.label_smoothing:g}: smoothed labels become a preference "
            "for the rarest classes, which may be predicted for every image; set objective.label_smoothing=0"
        )
    if objective.loss == "bce":
        yield (
            "objective.loss=bce: the training loss is binary cross-entropy for each class, the validation loss is "
            "cross-entropy over all classes; compare accuracies, not losses"
        )


def _without_effect(config: RunConfig, facts: DataFacts) -> Iterator[str]:
    """Yield sentences on keys of `train` that have no effect, or a harmful one, in this run."""
    train = config.train
    freezing = {
        "train.freeze=backbone": train.freeze == "backbone",
        f"train.lora_rank={train.lora_rank}": train.lora_rank > 0,
        f"train.freeze_blocks={train.freeze_blocks}": train.freeze_blocks > 0,
    }
    for name in (name for name, is_active in freezing.items() if is_active and train.pretrained is None):
        yield f"{name} without train.pretrained freezes random weights; give --pretrained FILE"
    if train.patience_ratio and facts.num_val == 0:
        yield f"train.patience_ratio={train.patience_ratio:g} has no effect: there are no validation images"
    if train.patch_drop_until < 1 and config.model.patch_drop_rate == 0:
        yield f"train.patch_drop_until={train.patch_drop_until:g} has no effect: model.patch_drop_rate is 0"


def _test_set(config: RunConfig, facts: DataFacts) -> Iterator[str]:
    """Yield sentences on how reliable the reported accuracy will be."""
    num_folds, test_ratio = config.data.num_folds, config.data.test_ratio
    if num_folds and test_ratio != facts.test_ratio:
        yield f"data.test_ratio={test_ratio:g} has no effect: with data.num_folds={num_folds}, one fold is the test set"
    if facts.num_test == 0 and facts.num_val == 0:
        yield "there are no test or validation images: the accuracy will be unknown"
    elif facts.num_test == 0 and config.train.choose_weights:
        yield "there are no test images: the final accuracy is measured on validation images, and is optimistic"
    elif not num_folds:
        yield from _uncertain(facts)


def _uncertain(facts: DataFacts) -> Iterator[str]:
    """Yield a sentence if the accuracy is reported on few images."""
    name, num = ("test", facts.num_test) if facts.num_test else ("validation", facts.num_val)
    if num >= FEW_TEST_IMAGES:
        return
    num_foldable, which = facts.num_train, "the other" if facts.brings_test or facts.brings_val else "all"
    num_foldable += (0 if facts.brings_val else facts.num_val) + (0 if facts.brings_test else facts.num_test)
    yield (
        f"the {name} set has only {plural(num, 'image')}: {name} accuracy is uncertain by up to "
        f"±{_uncertainty(num):.0f} points; `--folds 5` tests {which} {num_foldable:,} images in five runs, for "
        f"±{_uncertainty(num_foldable):.1f} points"
    )


def _uncertainty(num_images: int) -> float:
    """Return half the width of the 95% interval of an accuracy of 50%, where it is widest, in points."""
    return 100 * 0.98 / num_images**0.5
