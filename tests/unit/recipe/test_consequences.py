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


def test_run_without_trouble_has_no_consequences(make_facts: Facts, values: dict[str, Any]) -> None:
    assert list(consequences(config_with(values), make_facts(1_300))) == []


@pytest.mark.parametrize(
    ("img_size", "patch_size", "sentence"),
    [
        ((24, 36), 12, "leaves 6 tokens of a 24x36 px image; accuracy will suffer, 6 gives 24"),
        ((14, 35), 7, "leaves 10 tokens of a 14x35 px image; accuracy will suffer, 1 gives 490"),
        ((15, 15), 5, "leaves 9 tokens of a 15x15 px image; accuracy will suffer, 3 gives 25"),
        ((3, 5), 1, "leaves 15 tokens of a 3x5 px image; accuracy will suffer, a larger data.img_size gives more"),
    ],
)
def test_few_tokens_suggest_a_patch_that_tiles_the_image(
    make_facts: Facts, values: dict[str, Any], img_size: tuple[int, int], patch_size: int, sentence: str
) -> None:
    config = config_with(values, **{"data.img_size": img_size, "model.patch_size": patch_size})
    assert list(consequences(config, make_facts())) == [f"model.patch_size={patch_size} {sentence}"]


def test_few_test_images_say_how_uncertain_the_accuracy_is(make_facts: Facts, values: dict[str, Any]) -> None:
    sentences = list(consequences(config_with(values), make_facts(num_test=12)))
    assert sentences == [
        "the test has 12 images only: its accuracy is uncertain by up to ±28 points; `--folds 5` tests all 1,442 once, "
        "in five runs: ±2.6 points"
    ]


def test_given_test_images_are_none_of_the_folds(make_facts: Facts, values: dict[str, Any]) -> None:
    (sentence,) = consequences(config_with(values), make_facts(70, num_val=30, num_test=50, brings_test=True))
    assert sentence.endswith("±14 points; `--folds 5` tests the 100 others once, in five runs: ±9.8 points")


def test_one_fold_is_told_nothing_of_folds_but_of_a_share_that_has_no_effect(
    make_facts: Facts, values: dict[str, Any]
) -> None:
    one_fold = config_with(values, **{"data.num_folds": 4, "data.test_ratio": 0.25})
    assert list(consequences(one_fold, make_facts(num_test=12, test_ratio=0.25))) == []
    config = config_with(values, **{"data.num_folds": 4, "data.test_ratio": 0.35})
    assert list(consequences(config, make_facts(num_test=12, test_ratio=0.25))) == [
        "data.test_ratio=0.35 holds nothing out: with data.num_folds=4 the test is one fold"
    ]


def test_no_test_images_are_told(make_facts: Facts, values: dict[str, Any]) -> None:
    (sentence,) = consequences(config_with(values), make_facts(num_test=0))
    assert sentence.startswith("there are no test images")


def test_batch_larger_than_the_set_is_told(make_facts: Facts, values: dict[str, Any]) -> None:
    config = config_with(values, **{"data.batch_size": 61})
    (sentence,) = consequences(config, make_facts(60, num_test=500))
    assert sentence == "data.batch_size=61 is more than the 60 images: one step an epoch"
    assert list(consequences(config, make_facts(61, num_test=500))) == []


def test_rare_classes_that_are_made_up_for_twice_are_told(make_facts: Facts, values: dict[str, Any]) -> None:
    (sentence,) = consequences(config_with(values, **{"data.sampler": "balanced"}), make_facts())
    assert sentence.startswith("data.sampler=balanced and objective.class_weights=balanced both make up for rare")
    alone = config_with(values, **{"data.sampler": "balanced", "objective.class_weights": "none"})
    assert list(consequences(alone, make_facts())) == []


def test_mixed_images_are_told(make_facts: Facts, values: dict[str, Any]) -> None:
    (sentence,) = consequences(config_with(values, **{"data.mix_rate": 0.5}), make_facts())
    assert sentence.startswith("images are mixed: accuracy in training counts the label of an image's larger share")


def test_notes_of_the_data_come_first_and_skipped_files_are_counted(make_facts: Facts, values: dict[str, Any]) -> None:
    skipped = (("a.png", "cut short"), ("b.png", "empty"))
    facts = make_facts(notes=("class 'bee' has one image only",), skipped=skipped)
    assert list(consequences(config_with(values), facts)) == [
        "class 'bee' has one image only",
        "2 files could not be read and are left out; records.jsonl names them",
    ]
    (sentence,) = consequences(config_with(values), make_facts(skipped=skipped[:1]))
    assert sentence == "1 file could not be read and is left out; records.jsonl names it"


@pytest.mark.parametrize("num_classes", [2, 7])
def test_head_of_another_number_of_classes_is_refused(
    make_facts: Facts, values: dict[str, Any], num_classes: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_fits(config_with(values, **{"data.num_classes": num_classes}), make_facts())
    assert str(caught.value) == (
        f"data.num_classes={num_classes}: made-up has 3 classes; leave it out, the data decides it"
    )


@pytest.mark.parametrize(
    ("changes", "num_val", "sentence"),
    [
        (
            {"train.freeze": "backbone"},
            9,
            "train.freeze=backbone without train.pretrained keeps weights that nothing trained; give --pretrained FILE",
        ),
        (
            {"train.freeze_blocks": 2},
            9,
            "train.freeze_blocks=2 without train.pretrained keeps weights that nothing trained; give --pretrained FILE",
        ),
        (
            {"train.patience_ratio": 0.25},
            0,
            "train.patience_ratio=0.25: without validation images the run never stops early",
        ),
        (
            {"train.patch_drop_until": 0.75},
            9,
            "train.patch_drop_until=0.75 changes nothing: model.patch_drop_rate is 0",
        ),
    ],
)
def test_what_is_held_back_to_no_end_is_told(
    make_facts: Facts, values: dict[str, Any], changes: dict[str, Any], num_val: int, sentence: str
) -> None:
    assert list(consequences(config_with(values, **changes), make_facts(num_val=num_val))) == [sentence]


def test_weights_that_somebody_trained_may_be_kept(make_facts: Facts, values: dict[str, Any]) -> None:
    kept = config_with(values, **{"train.freeze": "backbone", "train.pretrained": "/w.safetensors"})
    assert list(consequences(kept, make_facts())) == []
