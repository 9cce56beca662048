from collections.abc import Callable
from typing import Any

import pytest

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.recipe import keys
from vitreous.recipe.check import check_fits, consequences
from vitreous.recipe.run_config import RunConfig

Facts = Callable[..., DataFacts]


def config_with(values: dict[str, Any], **changes: Any) -> RunConfig:
    quiet = {"data.num_classes": 3, "data.sampler": "shuffle", "data.mix_rate": 0.0}
    return keys.assemble("by-hand", values | quiet | changes)


def test_sound_run_has_no_notes(make_facts: Facts, values: dict[str, Any]) -> None:
    assert list(consequences(config_with(values), make_facts(1_300))) == []


@pytest.mark.parametrize(
    ("img_size", "patch_size", "sentence"),
    [
        ((24, 36), 12, ": cuts an image of 24x36 px into only 6 tokens, which costs accuracy; use 6, for 24 tokens"),
        ((14, 35), 7, ": cuts an image of 14x35 px into only 10 tokens, which costs accuracy; use 1, for 490 tokens"),
        ((15, 15), 5, ": cuts an image of 15x15 px into only 9 tokens, which costs accuracy; use 3, for 25 tokens"),
        ((3, 5), 1, ": cuts an image of 3x5 px into only 15 tokens, which costs accuracy; use a larger data.img_size"),
        ((8, 8), 8, ": cuts an image of 8x8 px into only 1 token, which costs accuracy; use 4, for 4 tokens"),
    ],
)
def test_few_tokens_suggest_a_patch_that_tiles_the_image(
    make_facts: Facts, values: dict[str, Any], img_size: tuple[int, int], patch_size: int, sentence: str
) -> None:
    config = config_with(values, **{"data.img_size": img_size, "model.patch_size": patch_size})
    assert list(consequences(config, make_facts())) == [f"model.patch_size={patch_size}{sentence}"]


def test_few_tokens_suggest_a_patch_that_the_stem_can_make(make_facts: Facts, values: dict[str, Any]) -> None:
    stem = {"model.stem": "conv", "data.img_size": (48, 48)}
    (note,) = consequences(config_with(values, **stem, **{"model.patch_size": 16}), make_facts())
    assert note.endswith("; use 8, for 36 tokens")
    assert not list(consequences(config_with(values, **stem, **{"model.patch_size": 8}), make_facts()))


def test_small_test_set_is_reported_with_the_uncertainty_of_its_accuracy(
    make_facts: Facts, values: dict[str, Any]
) -> None:
    sentences = list(consequences(config_with(values), make_facts(num_test=12)))
    assert sentences == [
        "the test set has only 12 images: test accuracy is uncertain by up to ±28 points; `--folds 5` tests all 1,442 "
        "images in five runs, for ±2.6 points"
    ]


def test_validation_images_that_report_the_accuracy_are_not_called_optimistic(
    make_facts: Facts, values: dict[str, Any]
) -> None:
    facts = make_facts(100, num_val=150, num_test=0, brings_val=True)
    (sentence,) = consequences(config_with(values, **{"train.choose_weights": False}), facts)
    assert sentence == (
        "the validation set has only 150 images: validation accuracy is uncertain by up to ±8 points; `--folds 5` "
        "tests the other 100 images in five runs, for ±9.8 points"
    )
    (sentence,) = consequences(config_with(values), facts)
    assert sentence.endswith("is measured on validation images, and is optimistic")


def test_folds_do_not_include_a_given_test_split(make_facts: Facts, values: dict[str, Any]) -> None:
    (sentence,) = consequences(config_with(values), make_facts(70, num_val=30, num_test=50, brings_test=True))
    assert sentence.endswith("±14 points; `--folds 5` tests the other 100 images in five runs, for ±9.8 points")


def test_run_on_one_fold_has_no_note_on_folds_but_one_on_a_test_ratio_without_effect(
    make_facts: Facts, values: dict[str, Any]
) -> None:
    one_fold = config_with(values, **{"data.num_folds": 4, "data.test_ratio": 0.25})
    assert list(consequences(one_fold, make_facts(num_test=12, test_ratio=0.25))) == []
    config = config_with(values, **{"data.num_folds": 4, "data.test_ratio": 0.35})
    assert list(consequences(config, make_facts(num_test=12, test_ratio=0.25))) == [
        "data.test_ratio=0.35 has no effect: with data.num_folds=4, one fold is the test set"
    ]


def test_missing_test_images_are_reported(make_facts: Facts, values: dict[str, Any]) -> None:
    (sentence,) = consequences(config_with(values), make_facts(num_test=0))
    assert sentence.startswith("there are no test images: the final accuracy is measured on validation images")
    (sentence,) = consequences(config_with(values), make_facts(num_test=0, num_val=0))
    assert sentence == "there are no test or validation images: the accuracy will be unknown"


def test_batch_larger_than_the_training_set_is_reported(make_facts: Facts, values: dict[str, Any]) -> None:
    config = config_with(values, **{"data.batch_size": 61})
    (sentence,) = consequences(config, make_facts(60, num_test=500))
    assert sentence == "data.batch_size=61 is larger than the training set of 60 images: an epoch is one step"
    assert list(consequences(config, make_facts(61, num_test=500))) == []


def test_compensating_twice_for_rare_classes_is_reported(make_facts: Facts, values: dict[str, Any]) -> None:
    (sentence,) = consequences(config_with(values, **{"data.sampler": "balanced"}), make_facts())
    assert sentence.startswith("data.sampler=balanced and objective.class_weights=balanced both compensate for rare")
    once = config_with(values, **{"data.sampler": "balanced", "objective.class_weights": "none"})
    assert list(consequences(once, make_facts())) == []


def test_mixed_images_are_reported(make_facts: Facts, values: dict[str, Any]) -> None:
    (sentence,) = consequences(config_with(values, **{"data.mix_rate": 0.5}), make_facts())
    assert sentence.startswith(
        "training images are mixed (mixup or CutMix): training accuracy counts only the label with"
    )


def test_notes_on_the_data_come_first_and_skipped_files_are_counted(make_facts: Facts, values: dict[str, Any]) -> None:
    skipped = (("a.png", "cut short"), ("b.png", "empty"))
    facts = make_facts(notes=("class 'bee' has a single image",), skipped=skipped)
    assert list(consequences(config_with(values), facts)) == [
        "class 'bee' has a single image",
        "2 unreadable files are left out, such as a.png: cut short; records.jsonl lists all files that are left out",
    ]
    (sentence,) = consequences(config_with(values), make_facts(skipped=skipped[:1]))
    assert sentence == (
        "1 unreadable file is left out, such as a.png: cut short; records.jsonl lists all files that are left out"
    )


@pytest.mark.parametrize("num_classes", [2, 7])
def test_num_classes_other_than_that_of_the_data_is_refused(
    make_facts: Facts, values: dict[str, Any], num_classes: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_fits(config_with(values, **{"data.num_classes": num_classes}), make_facts())
    assert str(caught.value) == (
        f"data.num_classes={num_classes}: made-up has 3 classes; leave the key out, since the data decides it"
    )


@pytest.mark.parametrize(
    ("changes", "num_val", "sentence"),
    [
        (
            {"train.freeze": "backbone"},
            9,
            "train.freeze=backbone without train.pretrained freezes random weights; give --pretrained FILE",
        ),
        (
            {"train.freeze_blocks": 2},
            9,
            "train.freeze_blocks=2 without train.pretrained freezes random weights; give --pretrained FILE",
        ),
        (
            {"train.patience_ratio": 0.25},
            0,
            "train.patience_ratio=0.25 has no effect: there are no validation images",
        ),
        (
            {"train.patch_drop_until": 0.75},
            9,
            "train.patch_drop_until=0.75 has no effect: model.patch_drop_rate is 0",
        ),
    ],
)
def test_keys_without_effect_are_reported(
    make_facts: Facts, values: dict[str, Any], changes: dict[str, Any], num_val: int, sentence: str
) -> None:
    assert list(consequences(config_with(values, **changes), make_facts(num_val=num_val))) == [sentence]


def test_freezing_pretrained_weights_needs_no_note(make_facts: Facts, values: dict[str, Any]) -> None:
    kept = config_with(values, **{"train.freeze": "backbone", "train.pretrained": "/w.safetensors"})
    assert list(consequences(kept, make_facts())) == []
