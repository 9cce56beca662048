"""Cases of configuration keys, recipes, and options of the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.advice.walk import Refusals, case

from vitreous.cli.main import _check_command
from vitreous.cli.options import architecture_of
from vitreous.cli.train.train import TrainOptions, _request
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.recipe import keys
from vitreous.recipe.files import as_yaml, read_config, read_values
from vitreous.recipe.run_config import RunConfig
from vitreous.recipe.shipped import recipe_named
from vitreous.recipe.shipped.fine_tune import check_pretrained
from vitreous.training.request import TrainRequest, parse_budget, with_options

BASE: Mapping[str, Any] = {
    **keys.defaults(),
    "data.source": "photos", "data.img_size": (24, 24), "data.in_chans": 3, "data.num_classes": 3,
    "model.depth": 2, "model.embed_dim": 16, "model.num_heads": 2, "model.patch_size": 4,
}  # fmt: skip

CONTRADICTIONS: tuple[tuple[dict[str, Any], str, dict[str, Any]], ...] = (
    ({"data.repeats": 9, "data.batch_size": 8}, "use fewer repeats", {"data.repeats": 8}),
    ({"data.repeats": 9, "data.batch_size": 8}, "or a larger batch", {"data.batch_size": 9}),
    ({"data.num_folds": 1}, "use 5, or 0 for a single split", {"data.num_folds": 5}),
    ({"data.num_folds": 1}, "use 5, or 0 for a single split", {"data.num_folds": 0}),
    ({"data.num_folds": 3, "data.fold": 3}, "use 0 to 2", {"data.fold": 2}),
    ({"data.fold": 1}, "set data.num_folds as well, or leave it out", {"data.num_folds": 2}),
    ({"data.mean": (0.5,) * 3}, "give both or neither", {"data.std": (0.5,) * 3}),
    ({"data.mean": (0.5,) * 3}, "give both or neither", {"data.mean": None}),
    ({"data.mean": (0.5,), "data.std": (0.5,)}, "add or remove numbers",
     {"data.mean": (0.5,) * 3, "data.std": (0.5,) * 3}),
    ({"objective.loss": "bce", "objective.logit_adjustment": 1.0}, "set it to 0", {"objective.logit_adjustment": 0.0}),
    ({"objective.loss": "bce", "objective.logit_adjustment": 1.0}, "use objective.loss=cross_entropy",
     {"objective.loss": "cross_entropy"}),
    ({"objective.bce_threshold": 0.2}, "use objective.loss=bce", {"objective.loss": "bce"}),
    ({"objective.bce_threshold": 0.2}, "or leave it out", {"objective.bce_threshold": None}),
    ({"objective.loss": "cross_entropy", "objective.bce_threshold": 0.2, "objective.logit_adjustment": 1.0},
     "leave one of them out", {"objective.bce_threshold": None}),
    ({"objective.loss": "bce", "objective.bce_threshold": 0.2, "objective.logit_adjustment": 1.0},
     "leave one of them out", {"objective.logit_adjustment": 0.0}),
    ({"data.task": "multilabel", "objective.loss": "multilabel", "objective.logit_adjustment": 1.0},
     "use objective.class_weights=balanced",
     {"objective.logit_adjustment": 0.0, "objective.class_weights": "balanced"}),
    ({"data.task": "multilabel", "objective.loss": "multilabel", "objective.teacher": "run"},
     "use objective.distill=feature", {"objective.distill": "feature"}),
    ({"data.task": "multilabel", "objective.loss": "bce"}, "leave it out", {"objective.loss": "multilabel"}),
    ({"data.task": "single", "objective.loss": "multilabel"}, "leave it out", {"objective.loss": "cross_entropy"}),
    ({"train.patience_ratio": 0.5, "train.choose_weights": False}, "leave it out", {"train.patience_ratio": 0.0}),
    ({"train.patience_ratio": 0.5, "train.choose_weights": False}, "or set train.choose_weights=true",
     {"train.choose_weights": True}),
    ({"objective.distill": "hard", "objective.teacher": "run", "objective.teacher_views": "fixed"},
     "use objective.teacher_views=consistent", {"objective.teacher_views": "consistent"}),
    ({"objective.bce_threshold": 0.2, "objective.loss": "bce", "objective.teacher_views": "fixed"},
     "use objective.teacher_views=consistent", {"objective.teacher_views": "consistent"}),
    ({"objective.distill": "hard"}, "set objective.teacher to a trained model", {"objective.teacher": "run"}),
    ({"objective.distill": "token_soft", "objective.teacher": "run"},
     "leave model.distill_token, model.pool and model.class_token out", {"model.distill_token": True}),
    ({"objective.distill": "token_soft", "objective.teacher": "run"}, "use objective.distill=soft",
     {"objective.distill": "soft"}),
    ({"objective.distill": "feature", "objective.teacher": "run", "model.patch_drop_rate": 0.5}, "set it to 0",
     {"model.patch_drop_rate": 0.0}),
    ({"objective.distill": "feature", "objective.teacher": "run", "train.compile": "default"}, "use train.compile=none",
     {"train.compile": "none"}),
    ({"optim.schedule": "wsd", "optim.warmup_ratio": 0.9}, "reduce one of them", {"optim.warmup_ratio": 0.8}),
    ({"optim.name": "schedule_free", "optim.beta1": 0.0}, "0.9 is usual", {"optim.beta1": 0.9}),
    ({"train.freeze": "backbone", "train.freeze_blocks": 1}, "leave one of the two out", {"train.freeze_blocks": 0}),
    ({"train.lora_rank": 4, "train.freeze_blocks": 1}, "leave out train.freeze and train.freeze_blocks",
     {"train.freeze_blocks": 0}),
    ({"train.parallel": "fsdp", "optim.name": "lion"}, "use train.parallel=ddp", {"train.parallel": "ddp"}),
    ({"train.parallel": "fsdp", "optim.name": "lion"}, "or optim.name=adamw", {"optim.name": "adamw"}),
    ({"train.parallel": "fsdp", "train.compile": "default"}, "use train.compile=none", {"train.compile": "none"}),
    ({"train.epochs": 0.0}, "set both", {"train.pretrained": "run", "train.head_init": "fitted"}),
    ({"train.epochs": 0.0}, "or use more epochs", {"train.epochs": 1.0}),
    ({"train.freeze_blocks": 3}, "use fewer", {"train.freeze_blocks": 2}),
    ({"train.freeze_blocks": 3}, "or train.freeze=backbone", {"train.freeze": "backbone", "train.freeze_blocks": 0}),
    ({"train.freeze_blocks": 1, "train.reuse_frozen": True, "data.max_shift": 0.1}, "leave that out",
     {"data.max_shift": 0.0}),
    ({"train.freeze_blocks": 1, "train.reuse_frozen": True, "data.max_shift": 0.1}, "or train.reuse_frozen",
     {"train.reuse_frozen": False}),
    ({"train.start_img_size": (48, 48)}, "half of that is usual", {"train.start_img_size": (12, 12)}),
    ({"train.start_img_size": (10, 12)}, "use multiples of it", {"train.start_img_size": (8, 12)}),
    ({"train.start_img_size": (12, 12), "model.relative_bias": True}, "use model.rotary instead",
     {"model.relative_bias": False, "model.rotary": "axial"}),
)  # fmt: skip


def config(changes: Mapping[str, Any]) -> RunConfig:
    return keys.assemble("x", {**BASE, **changes})


@case
def keys_that_contradict_each_other(folder: Path) -> Refusals:
    for wrong, advice, change in CONTRADICTIONS:
        yield lambda wrong=wrong: config(wrong), advice
        config({**wrong, **change})


@case
def keys_that_do_not_exist(folder: Path) -> Refusals:
    yield lambda: keys.checked({"optim.lrr": 1}), "did you mean optim.lr?"
    yield lambda: keys.checked({"lr": 1}), "did you mean optim.lr?"
    yield lambda: keys.checked({"learning_rate": 1}), "did you mean optim.lr?"
    assert keys.checked({"optim.lr": "1"}) == {"optim.lr": 1.0}
    yield lambda: keys.checked({"train.patience": 0.5}), "use train.patience_ratio"
    assert keys.checked({"train.patience_ratio": 0.5})
    yield lambda: keys.checked({"model.in_chans": 3}), "set data.in_chans"
    assert keys.checked({"data.in_chans": 3})
    values = {key: value for key, value in BASE.items() if key != "model.depth"}
    yield lambda: keys.assemble("x", values), "set each in the file or as --section.key value"
    assert keys.assemble("x", {**values, "model.depth": 2})


@case
def values_out_of_range(folder: Path) -> Refusals:
    yield lambda: keys.checked({"optim.name": "adam"}), "did you mean adamw?"
    assert keys.checked({"optim.name": "adamw"})
    yield lambda: keys.checked({"objective.label_smoothing": 2}), "0.1 is usual"
    assert keys.checked({"objective.label_smoothing": 0.1})


@case
def recipe_files(folder: Path) -> Refusals:
    path = folder / "recipe.yaml"
    yield lambda: read_values(path), "name a shipped recipe or an existing YAML file"
    broken = {
        "optim: [": "compare it with a config.yaml",
        "- 1": "compare it with a config.yaml",
        "optimm:\n  lr: 1": "did you mean optim?",
        "lr: 1": "did you mean optim.lr?",
        "optim: 1": "write them indented below it",
        "a: 1\n" * 300_000: "check that it is a recipe",
    }
    for text, advice in broken.items():
        path.write_text(text)
        yield lambda: read_values(path), advice
        path.write_text(as_yaml(config({"optim.lr": 1.0})))
        assert read_config(path).optim.lr == 1.0
    yield lambda: recipe_named("digit"), "did you mean digits?"
    assert recipe_named("digits")
    yield lambda: check_pretrained("fine-tune", {}), "give --pretrained auto or FILE"
    check_pretrained("fine-tune", {"train.pretrained": "FILE"})


@case
def options_of_the_command_line(folder: Path) -> Refusals:
    yield lambda: _check_command(["trian"]), "did you mean train?"
    _check_command(["train"])
    yield lambda: architecture_of(("optim.lr=1",)), "use --architecture.key, e.g. --architecture.num_heads 4"
    assert architecture_of(("architecture.num_heads=4",)) == {"num_heads": 4}
    yield lambda: _request("x", TrainOptions(set=("optim.lr",))), "write --optim.lr VALUE"
    assert _request("x", TrainOptions(set=("optim.lr=1",))).values == {"optim.lr": "1"}
    for text in ("10 parsecs", "0m", "soon"):
        yield lambda text=text: parse_budget(text), "e.g. 90s, 10m, 1h30m or 30ep"
    assert parse_budget("1h30m") == {"train.budget_s": 5400.0}
    request = TrainRequest(values={"train.epochs": 3})
    yield lambda: with_options(request, {}, "4ep"), "give only one"
    assert with_options(request, {}, "3ep")


@case
def preprocessing_from_a_file(folder: Path) -> Refusals:
    valid: dict[str, Any] = {"img_size": [4, 4], "in_chans": 3, "fit": "crop", "mean": [0.5] * 3, "std": [0.5] * 3}
    yield lambda: Preprocess.from_dict({**valid, "fitt": 1}), "did you mean fit?"
    yield lambda: Preprocess.from_dict({key: valid[key] for key in valid if key != "img_size"}), "it must be given"
    assert Preprocess.from_dict(valid).fit == "crop"
