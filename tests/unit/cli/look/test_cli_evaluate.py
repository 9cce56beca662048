"""`vitreous evaluate`: accuracy with its interval, scores of each class, the confusion matrix."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.cli.look.evaluate import _confusion_rows
from vitreous.model.weights import read_metadata
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.evaluation import count_classes
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.evaluate.sets.measured import measure_rejecting, measure_sets

Cli = Callable[..., Any]
SHARED = (
    *("accuracy", "num_images", "num_correct", "majority_class", "majority_share", "balanced_accuracy"),
    "never_predicted",
)
"""Keys that the metrics of a run and `evaluate --json` have in common."""


def test_screen_shows_accuracy_classes_and_confusion(run: Path, cli: Cli) -> None:
    said = cli("evaluate", run)
    stored = read_metadata(run / "model.safetensors")["metrics"]["test"]
    low, high = stored["interval_95"]
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(
        f"my photos, test split: accuracy {stored['accuracy']:.1%} ({stored['num_correct']} of "
        f"{stored['num_images']} images correct; 95% interval {low:.1%} to {high:.1%})\n"
    )
    lines = said.out.splitlines()
    assert f"always predicting '{stored['majority_class']}'" in lines[1]
    assert f"balanced accuracy (mean recall of the classes) {stored['balanced_accuracy']:.1%}" in lines[1]
    head = "class       precision  95% interval  recall  95% interval     F1     AP  images"
    assert head in lines
    assert len(head) <= 80
    assert any(line.startswith("[red]:cat:  ") for line in lines)  # neither markup nor an emoji
    assert "confusion matrix (rows: true class, columns: predicted class)" in lines


def test_json_output_is_only_the_document_and_complete(run: Path, cli: Cli) -> None:
    said = cli("evaluate", run, "--json")
    found = json.loads(said.out)
    stored = read_metadata(run / "model.safetensors")["metrics"]["test"]
    assert (said.code, said.err) == (0, "")
    assert {key: found[key] for key in SHARED} == {key: stored[key] for key in SHARED}
    assert [row["name"] for row in found["classes"]] == ["[red]:cat:", "two words", "Äpfel"]
    assert sum(map(sum, found["confusion"])) == found["num_images"]


def test_two_lines_say_what_sets_and_rejecting_are_worth(well_measured: Path, photos: Path, cli: Cli) -> None:
    found = json.loads(cli("evaluate", well_measured, "--json").out)
    outputs = outputs_of_run(RunFolder(well_measured))
    assert found["sets"] == json.loads(json.dumps(measure_sets(outputs)))
    assert found["rejecting"] == json.loads(json.dumps(measure_rejecting(outputs)))
    lines = cli("evaluate", well_measured).out.splitlines()
    assert len([line for line in lines if line.startswith("sets for 95% coverage contain ")]) == 1
    assert len([line for line in lines if line.startswith("accuracy ") and "least certain" in line]) == 1
    other = json.loads(cli("evaluate", well_measured, photos, "--json").out)
    assert (other["sets"], other["rejecting"]) == ([], None)


def test_run_of_an_older_version_is_evaluated_without_sets(run: Path, cli: Cli, tmp_path: Path) -> None:
    old = Path(shutil.copytree(run, tmp_path / "old"))
    (old / "outputs.safetensors").unlink()
    assert json.loads(cli("evaluate", old, "--json").out)["sets"] == []
    assert "least certain" not in cli("evaluate", old).out


def test_json_output_is_only_the_document_when_files_are_skipped(
    run: Path, photos: Path, cli: Cli, tmp_path: Path
) -> None:
    data = shutil.copytree(photos, tmp_path / "some")
    (data / "Äpfel" / "broken.png").write_bytes(b"no image")
    said = cli("evaluate", run, data, "--json")
    assert json.loads(said.out)["num_images"] == 61
    assert said.code == 0
    assert said.err.startswith("note: 1 unreadable file skipped, such as ")


def test_model_file_without_its_run_is_scored_on_a_folder(run: Path, photos: Path, cli: Cli, tmp_path: Path) -> None:
    model = shutil.copy(run / "model.safetensors", tmp_path / "m.safetensors")
    said = cli("evaluate", model, photos)
    assert said.code == 0
    assert said.out.startswith("all of my photos (the model comes without a record of its training images, so ")


def test_copy_of_the_training_images_is_recognized_on_the_screen(
    run: Path, photos: Path, cli: Cli, tmp_path: Path
) -> None:
    said = cli("evaluate", run, shutil.copytree(photos, tmp_path / "copy"))
    first, *others = said.out.splitlines()
    assert first.startswith("all of copy: accuracy ")
    (note,) = (line for line in others if line.startswith("note: the model was trained on "))
    assert "so this accuracy is optimistic; accuracy on the others: " in note


def test_most_frequent_mistakes_are_listed_last(run: Path, photos: Path, cli: Cli) -> None:
    found = json.loads(cli("evaluate", run, photos, "--json").out)
    names = [row["name"] for row in found["classes"]]
    mistakes = {
        f"{names[i]} predicted as {names[j]}: {count} image{'' if count == 1 else 's'}"
        for i, row in enumerate(found["confusion"]) for j, count in enumerate(row) if count and i != j
    }  # fmt: skip
    shown = [line for line in cli("evaluate", run, photos).out.splitlines() if " predicted as " in line]
    assert len(shown) == min(3, len(mistakes)) > 0
    assert set(shown) <= mistakes


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["no/run"], "run=no/run: does not exist; train a model with `vitreous train DATA`"),
        (["."], "run=.: contains no model.safetensors; give a run folder that `vitreous train` made"),
        (["RUN", "no/where"], "data.source=no/where: no such set and no such folder; "),
        (["RUN", "digits"], "digits: class 0 is unknown to the model; use one of [red]:cat:, two words, Äpfel"),
        (["RUN", "--device", "cuda:99"], "device=cuda:99: PyTorch finds "),
        (["RUN", "--cost", "Äpfel=2"], "cost='Äpfel=2': must be two classes and a number; write TRUE:PREDICTED=COST"),
        (["RUN", "--cost", "Äpfel:Birnen=2"], "cost='Birnen': no such class; use one of "),
        (["RUN", "--cost", "Äpfel:two words=-1"], "cost=Äpfel:two words=-1: must be a number from 0 to 1e+12, given "),
        (["RUN", "--cost", "Äpfel:two words=nan"], "cost=Äpfel:two words=nan: must be a number from 0 to 1e+12"),
        (["gone.csv"], "data.source=gone.csv: cannot be read (No such file or directory); check the file"),
    ],
)
def test_invalid_request_is_reported_in_one_line(words: list[str], line: str, run: Path, cli: Cli) -> None:
    said = cli("evaluate", *(str(run) if word == "RUN" else word for word in words))
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1


def test_costs_show_the_cost_per_image_and_both_matrices(run: Path, cli: Cli) -> None:
    said = cli("evaluate", run, "--cost", "[red]:cat::Äpfel=20", "--cost", "two words:Äpfel=5")
    assert (said.code, said.err) == (0, "")
    found = json.loads(cli("evaluate", run, "--cost", "[red]:cat::Äpfel=20", "--cost=two words:Äpfel=5", "--json").out)
    cost = found["cost"]
    difference = cost["cost_after"] - cost["cost_before"]
    assert f"least expected cost: {cost['cost_after']:.4g} per image instead of {cost['cost_before']:.4g}" in said.out
    assert f"(difference {difference:+.4g}, 95% interval " in said.out
    assert said.out.count("confusion matrix") == 2
    assert sum(map(sum, cost["confusion"])) == found["num_images"]


def test_table_of_predictions_fits_a_screen_for_ten_classes_and_says_the_threshold_of_two(
    cli: Cli, tmp_path: Path
) -> None:
    draws = random.Random(0)
    rows = [f"{number % 10},{number % 10 if draws.random() < 0.9 else draws.randrange(10)}" for number in range(300)]
    (tmp_path / "ten.csv").write_text("\n".join(["true,predicted", *rows]), encoding="utf-8")
    said = cli("evaluate", "ten.csv")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("ten.csv: accuracy ")
    lines = said.out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines[5:])) <= 80
    two = ["true,predicted,p_good,p_defect", *["good,good,0.9,0.1", "defect,good,0.7,0.3", "defect,defect,0.2,0.8"] * 9]
    (tmp_path / "two.csv").write_text("\n".join(two), encoding="utf-8")
    said = cli("evaluate", "two.csv", "--cost", "defect:good=3")
    assert "predict defect from a probability of 25.0% on" in said.out
    assert "ROC AUC 1.000, average precision of good 1.000" in said.out


def test_unfinished_run_is_reported_with_the_command_that_finishes_it(unfinished: Path, cli: Cli) -> None:
    said = cli("evaluate", unfinished)
    wanted = f"run={unfinished}: is not finished; continue it with `vitreous train --resume '{unfinished}'`\n"
    assert (said.code, said.err) == (2, wanted)


def test_confusion_matrix_of_long_names_is_narrow_and_numbered() -> None:
    classes = ("the first of two very long names, " * 8 + "a", "short", "the first of two very long names, " * 8 + "b")
    found = count_classes("made", Score(3, 2, 0.5), [0, 1, 2], [0, 1, 0], classes)
    heading, *rows = _confusion_rows(found)
    assert heading == ("", "1", "2", "3")
    assert [row[0].split()[0] for row in rows] == ["1", "2", "3"]
    assert all(len(row[0]) <= 42 for row in rows)
    assert rows[0][0].endswith("a")
    assert rows[2][0].endswith("b")


def test_confusion_matrix_of_short_names_has_them_as_headings() -> None:
    found = count_classes("made", Score(2, 2, 0.5), [0, 1], [0, 1], ("cat", "dog"))
    assert _confusion_rows(found) == [("", "cat", "dog"), ("cat", "1", "·"), ("dog", "·", "1")]


# --tta.


def test_gain_of_several_views_is_shown_with_its_cost(run: Path, cli: Cli) -> None:
    said = cli("evaluate", run, "--tta", "3")
    (line,) = (line for line in said.out.splitlines() if line.startswith("averaged over"))
    found = json.loads(cli("evaluate", run, "--tta", "3", "--json").out)["tta"]
    gain, low, high = (100 * part for part in found["gain"])
    assert line == (
        f"averaged over 3 views: accuracy {found['accuracy']:.1%}, a gain of {gain:.1f} points (95% interval {low:.1f} "
        f"to {high:.1f}); 3 forward passes per image instead of 1"
    )
    assert json.loads(cli("evaluate", run, "--json").out)["tta"] is None


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--tta", "0"], "tta=0: this model has "),
        (["--tta", "99"], "tta=99: this model has "),
        (["--tta", "1.5"], "--tta=1.5: must be a whole number; see `vitreous evaluate --help`"),
        (
            ["--robustness", "--tta", "2"],
            "tta=2: has no use for --robustness, which measures other things; omit one",
        ),
    ],
)
def test_number_of_views_is_checked(run: Path, cli: Cli, words: list[str], line: str) -> None:
    said = cli("evaluate", run, *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line)


# --robustness.


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A run folder that a test may modify."""
    return Path(shutil.copytree(run, tmp_path / "own"))


def test_robustness_is_shown_and_stored_with_the_run(own: Path, cli: Cli) -> None:
    said = cli("evaluate", own, "--robustness")
    assert (said.code, said.err) == (0, "")
    stored = json.loads((own / "robustness.json").read_text("utf-8"))
    lines = said.out.splitlines()
    assert lines[0] == f"{stored['num_images']} images, {len(stored['effects'])} changes: about 1 minute"
    assert lines[1].split() == ["change", "strengths", "accuracy,", "%", "mean", "loss,", "points", "95%", "interval"]
    assert all(any(line.startswith(effect["name"]) for line in lines) for effect in stored["effects"])
    assert lines[-len(stored["sentences"]) :] == stored["sentences"]


def test_robustness_as_json_is_only_the_document(own: Path, cli: Cli) -> None:
    said = cli("evaluate", own, "--robustness", "--json")
    assert json.loads(said.out) == json.loads((own / "robustness.json").read_text("utf-8"))
    assert said.err.count("\n") == 1


def test_robustness_on_other_data_is_not_stored(own: Path, photos: Path, cli: Cli) -> None:
    said = cli("evaluate", own, photos, "--robustness")
    assert said.code == 0
    assert "61 of 61 images of all of my photos" in said.out
    assert not (own / "robustness.json").exists()


def test_interrupted_measurement_writes_nothing(own: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(own.rglob("*"))

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vitreous.use.evaluate.robustness.robustness._show", interrupt)
    said = cli("evaluate", own, "--robustness")
    assert (said.code, said.err) == (130, "interrupted\n")
    assert sorted(own.rglob("*")) == before
