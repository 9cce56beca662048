"""`vitreous train`: its output, the files that it writes, and its errors."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.cli.conftest import TINY

from vitreous.recipe.keys import rules

Cli = Callable[..., Any]
Trained = tuple[Path, Any]


# Output.


def test_training_ends_with_accuracy_folder_example_and_next_commands(trained: Trained) -> None:
    run, said = trained
    assert (said.code, said.err) == (0, "")
    end = said.out[said.out.index("\ntest accuracy: ") :]
    assert " images correct; 95% interval " in end
    size = f"{(run / 'model.safetensors').stat().st_size / 1e6:.1f} MB"
    assert (
        f"\nrun folder: {run} (model.safetensors of {size}, report.html, plan.md, records.jsonl, config.yaml)\n" in end
    )
    assert f"\nexample: {run / 'example.png'} is predicted as " in end
    for command in ("predict", "evaluate", "inspect"):
        assert f"\n  vitreous {command} '{run}'" in end


def test_training_begins_with_data_model_and_main_choices(trained: Trained) -> None:
    lines = trained[1].out.splitlines()
    assert lines[0].startswith("my photos: ")
    assert lines[1].startswith("model: ")
    assert "  data.img_size = 8x12: you asked for it" in lines
    assert any(line.startswith("  data.flip = ") for line in lines)
    assert any(line.startswith("note: the test set has ") for line in lines)


def test_piped_progress_is_plain_lines(trained: Trained) -> None:
    out = trained[1].out
    assert "\x1b" not in out
    assert "\r" not in out
    assert "100%  epoch 1.0  loss " in out
    assert "validation accuracy" in out


def test_next_commands_run_as_printed(trained: Trained, cli: Cli) -> None:
    lines = trained[1].out.partition("\nnext:\n")[2].splitlines()
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line.rpartition("  ")[0])
        assert words[0] == "vitreous"
        said = cli(*words[1:])
        assert (said.code, said.err) == (0, "")


def test_run_folder_is_complete(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {
        "config.yaml", "plan.md", "records.jsonl", "checkpoints", "model.safetensors", "predictions.csv",
        "example.png", "images.safetensors", "outputs.safetensors", "report.html",
        "report.json", "MODEL_CARD.md", "agreement.json",
    }  # fmt: skip


# Options take effect.


def test_options_and_keys_reach_the_configuration(photos: Path, cli: Cli, tmp_path: Path) -> None:
    words = (
        *("--img-size", "8x12", "--epochs", "0.2", "--device", "cpu", "--precision", "fp32", "--seed", "7"),
        *("--model", "vit_pico_patch4", "--lr=2e-3", "--data.flip", "false", "--batch-size", "16"),
        *("--model.depth", "1", "--train.max_retries", "2", "--out", tmp_path / "new" / "run"),
    )
    assert cli("train", photos, *words).code == 0
    config = yaml.safe_load((tmp_path / "new" / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert config["data"] | {"img_size": [8, 12], "flip": False, "batch_size": 16} == config["data"]
    assert config["model"] | {"embed_dim": 64, "depth": 1, "num_heads": 4, "patch_size": 4} == config["model"]
    assert config["optim"]["lr"] == 2e-3
    wanted = {"epochs": 0.2, "seed": 7, "device": "cpu", "precision": "fp32", "max_retries": 2}
    assert config["train"] | wanted == config["train"]


def test_run_without_out_takes_the_next_number(photos: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "runs" / "my-photos-3").mkdir(parents=True)
    said = cli("train", photos, *TINY, "--epochs", "0.2")
    assert said.code == 0
    assert (tmp_path / "runs" / "my-photos-4" / "model.safetensors").is_file()
    assert "run folder: runs/my-photos-4 " in said.out


def test_home_is_expanded_in_out_and_resume(photos: Path, cli: Cli, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cli("train", photos, *TINY, "--epochs", "0.2", "--out=~/run").code == 0
    assert (tmp_path / "home" / "run" / "model.safetensors").is_file()
    assert cli("train", "--resume=~/run").code == 0
    assert not (tmp_path / "~").exists()


def test_dry_run_shows_every_key_and_writes_nothing(photos: Path, cli: Cli, tmp_path: Path) -> None:
    said = cli("train", photos, *TINY, "--dry-run")
    assert (said.code, said.err) == (0, "")
    shown = yaml.safe_load(said.out.partition("every key, as in config.yaml:\n")[2])
    keys = {f"{room}.{key}" for room, section in shown.items() if room != "recipe" for key in section}
    assert keys == set(rules())
    assert "\ndata.img_size = 8x12: you asked for it\n" in said.out
    assert list(tmp_path.iterdir()) == []


def test_switch_is_named_after_its_key(photos: Path, cli: Cli) -> None:
    said = cli("train", photos, *TINY, "--overfit-one-batch", "--dry-run")
    assert (said.code, said.err) == (0, "")
    assert "\ntrain.overfit_one_batch = true: you asked for it\n" in said.out


def test_resume_of_a_finished_run_shows_its_result(run: Path, cli: Cli, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    said = cli("train", "--resume", copy)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"{copy} is already complete: nothing left to train\n")
    assert "test accuracy: " in said.out


def test_a_budget_that_ended_within_the_first_epoch_is_named(run: Path, cli: Cli, tmp_path: Path) -> None:
    short = shutil.copytree(run, tmp_path / "short")
    sentence = "the budget was enough to see 3% of the training images; use a longer --budget\n"
    records = [json.loads(line) for line in (short / "records.jsonl").read_text().splitlines()]
    shortened = [record | {"epoch": 0.03} if record["kind"] == "step" else record for record in records]
    (short / "records.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in shortened))
    assert sentence not in cli("train", "--resume", short).out
    config = (short / "config.yaml").read_text()
    (short / "config.yaml").write_text(config.replace("budget_s: 0.0", "budget_s: 60.0"))
    assert sentence in cli("train", "--resume", short).out


def test_a_run_that_its_budget_ended_says_what_more_time_would_give(run: Path, cli: Cli, tmp_path: Path) -> None:
    ended = shutil.copytree(run, tmp_path / "ended")
    config = (ended / "config.yaml").read_text()
    assert "\nexpected with" not in cli("train", "--resume", ended).out
    changed = re.sub(r"epochs: [\d.]+", "epochs: 100.0", config).replace("budget_s: 0.0", "budget_s: 60.0")
    (ended / "config.yaml").write_text(changed)
    assert "\nexpected with --budget 10m: about " in cli("train", "--resume", ended).out


def test_resume_finishes_an_unfinished_run(unfinished: Path, cli: Cli) -> None:
    said = cli("train", "--resume", unfinished)
    assert (said.code, said.err) == (0, "")
    assert "resuming from step " in said.out
    assert (unfinished / "model.safetensors").is_file()


def test_config_of_a_run_works_as_a_recipe(run: Path, photos: Path, cli: Cli, tmp_path: Path) -> None:
    said = cli("train", photos, "--recipe", run / "config.yaml", "--out", tmp_path / "again")
    assert (said.code, said.err) == (0, "")
    before, after = (yaml.safe_load((path / "config.yaml").read_text()) for path in (run, tmp_path / "again"))
    assert before == after


def test_accuracy_is_unknown_without_held_out_images(photos: Path, cli: Cli) -> None:
    said = cli("train", photos, *TINY, "--epochs", "0.2", "--data.test_ratio", "0", "--data.val_ratio", "0")
    assert said.code == 0
    assert "\naccuracy unknown: no images were held out\n" in said.out
    assert "  vitreous predict runs/my-photos-1 IMAGE " in said.out


def test_unreadable_files_are_counted_and_recorded(photos: Path, cli: Cli, tmp_path: Path) -> None:
    data = shutil.copytree(photos, tmp_path / "some")
    (data / "Äpfel" / "broken.png").write_bytes(b"no image")
    (data / "two words" / "empty.jpg").touch()
    said = cli("train", data, *TINY, "--epochs", "0.2", "--out", tmp_path / "run")
    assert said.code == 0
    assert "note: 2 unreadable files are left out, such as " in said.out
    lines = (tmp_path / "run" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    skipped = next(record["skipped"] for record in records if record["kind"] == "data")
    assert skipped == [
        [str(data / "two words" / "empty.jpg"), "empty file"],
        [str(data / "Äpfel" / "broken.png"), "not an image that Pillow can read"],
    ]


# Invalid requests: one line, exit code 2, and no files.


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "data=none: nothing to train on; give a folder of class folders, or one of "),
        (["digit"], "data.source=digit: no such set and no such folder; did you mean digits?"),
        (["no/where"], "data.source=no/where: no such set and no such folder; "),
        (["digits", "--optim.lrr", "1"], "optim.lrr=1: no such key; did you mean optim.lr?"),
        (["digits", "--optm.lr=1"], "optm.lr=1: no such key; did you mean optim.lr?"),
        (["digits", "--optim.lr", "fast"], "optim.lr=fast: must be a number in (0, inf); "),
        (["digits", "--data.flip", "maybe"], "data.flip=maybe: must be true or false; "),
        (["digits", "--model", "vit_smal"], "model=vit_smal: no such model; did you mean vit_small?"),
        (["digits", "--recipe", "digit"], "recipe=digit: no such recipe; did you mean digits?"),
        (["digits", "--recipe", "gone.yaml"], "recipe=gone.yaml: no such file; "),
        (["digits", "--precision", "bf61"], "train.precision=bf61: no such precision; did you mean bf16?"),
        (["digits", "--device", "cud"], "device=cud: no such device; did you mean cuda?"),
        (["digits", "--device", "cuda:99"], "device=cuda:99: PyTorch finds "),
        (["digits", "--budget", "ten"], "budget=ten: must be a time or a number of epochs above 0; e.g. 90s, 10m, "),
        (["digits", "--budget", "0s"], "budget=0s: must be a time or a number of epochs above 0; e.g. 90s, 10m, "),
        (["digits", "--budget", "5 parsecs"], "budget=5 parsecs: must be a time or a number of epochs above 0; "),
        (["digits", "--epochs", "-1"], "train.epochs=-1: must be in [0, inf); 20 is a start"),
        (["digits", "--seed", "-1"], "train.seed=-1: must be from 0 to 18,446,744,073,709,551,615; "),
        (["digits", "--img-size", "big"], "data.img_size=big: must be 2 whole numbers, each from 1 to 2,147,483,647; "),
        (
            ["digits", "--model.patch_size", "15", "--img-size", "224"],
            "model.patch_size=15: does not divide data.img_size=224 (remainder 14); use 14, 16, 28, 32 or "
            "data.img_size=225",
        ),
        (
            ["digits", "--model.num_heads", "5", "--model.embed_dim", "64"],
            "model.num_heads=5: does not divide model.embed_dim=64",
        ),
        (
            ["digits", "--img-size", "0"],
            "data.img_size=0: must be 2 whole numbers, each from 1 to 2,147,483,647; give a height",
        ),
        (
            ["digits", "--img-size", "8x0"],
            "data.img_size=8x0: must be 2 whole numbers, each from 1 to 2,147,483,647; give a",
        ),
        (
            ["digits", "--img-size", "nan"],
            "data.img_size=nan: must be 2 whole numbers, each from 1 to 2,147,483,647; give a",
        ),
        (["digits", "--img-size", "223"], "data.img_size=223x223: is tiled only by patches of 1 or 223 px, which are "),
        (
            ["digits", "--batch-size", "1.5"],
            "data.batch_size=1.5: must be a whole number from 1 to 2,147,483,647; use 64, or ",
        ),
        (["digits", "--folds", "1.5"], "--folds=1.5: must be a whole number; see `vitreous train --help`"),
        ([""], "data.source='': must be text that is not blank; name a data set"),
        (["digits", "--dry-run", "--resume", "runs/a"], "resume=runs/a: keeps its plan, in plan.md; leave the dry run"),
        (["digits", "--model.num_classes", "5"], "model.num_classes=5: is decided by the data; set data.num_classes"),
        (
            ["digits", "--lr", "0.1", "--optim.lr", "0.3"],
            "optim.lr=0.3: lr=0.1 sets the same key to another value; give only one",
        ),
        (["digits", "--epochs", "3", "--budget", "5ep"], "train.epochs=3: budget=5ep sets the same key to another "),
        (["digits", "--batch-size", "0"], "data.batch_size=0: must be from 1 to 2,147,483,647; use 64"),
        (["digits", "--set", "abc"], "set=abc: has no value; write --abc VALUE"),
        (["--resume", "no/run"], "run=no/run: does not exist; create one with `vitreous train DATA`"),
        (["--resume", "no/run", "--epochs", "3"], "resume=no/run: a run or series keeps its settings; leave out all "),
        (["--data", "digits", "--resume", "no/run"], "run=no/run: does not exist; create one with `vitreous train"),
    ],
)
def test_invalid_request_is_reported_in_one_line(words: list[str], line: str, cli: Cli, tmp_path: Path) -> None:
    said = cli("train", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_empty_folder_is_rejected(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = cli("train", tmp_path / "empty")
    wanted = (
        f"data.source={tmp_path / 'empty'}: holds no image file; use a folder with one folder of images per class\n"
    )
    assert (said.code, said.err) == (2, wanted)


def test_data_with_one_class_is_rejected(photos: Path, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(photos / "two words", tmp_path / "one" / "two words")
    said = cli("train", tmp_path / "one")
    assert said.code == 2
    assert said.err.startswith(f"data.source={tmp_path / 'one'}: only one class, 'two words'; a classifier needs two; ")


def test_data_without_a_readable_image_is_rejected(cli: Cli, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "x.png").write_bytes(b"no image")
    said = cli("train", tmp_path / "bad")
    assert said.code == 2
    assert said.err.startswith("data.source=bad: none of 2 files is a readable image (the first, ")
    assert not (tmp_path / "runs").exists()


def test_folder_with_content_is_never_overwritten(run: Path, photos: Path, cli: Cli, tmp_path: Path) -> None:
    said = cli("train", photos, "--out", run)
    assert said.code == 2
    assert said.err.startswith(f"out={run}: exists and is not empty; continue it with --resume ")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    said = cli("train", photos, "--out", tmp_path / "notes")
    assert (said.code, said.err) == (2, f"out={tmp_path / 'notes'}: exists and is not empty; choose another folder\n")
