"""How often a changed model predicts the same as the original: on which images, how long it takes, what is stored."""

import copy
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for

from vitreous.data.sources import open_source
from vitreous.errors import DataError
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.outputs import Outputs, outputs_of_run, reported
from vitreous.use.export import agreement as agreement_module
from vitreous.use.export.agreement import NUM_IMAGES, Agreement, agreement_of_run, compare
from vitreous.use.export.page.int8 import with_int8_weights
from vitreous.use.predict.predictor import BATCH_SIZE, Predictor
from vitreous.use.run import Run

PIXELS = torch.randint(256, (70, 3, 8, 12), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)


def test_model_agrees_with_itself() -> None:
    made = predictor_for(models.make_model())
    assert compare(made, made.model, PIXELS) == (70, 0.0)


@pytest.mark.parametrize("thresholds", [None, (0.1, 0.3, 0.5, 0.7, 0.9)])
def test_differences_are_those_of_the_predictions(thresholds: tuple[float, ...] | None) -> None:
    made = predictor_for(models.make_model(), thresholds)
    changed = copy.deepcopy(made.model)
    with torch.no_grad():
        logits = made.logits(PIXELS)
        needed = logits.amax(dim=1) if thresholds is None else torch.tensor(made.temperature * math.log(0.7 / 0.3))
        changed.head.bias[3] += (needed - logits[:, 3]).median()  # half of the predictions change
    num_same, largest = compare(made, changed, PIXELS)
    ours, theirs = (replace(made, model=model).predict(PIXELS.numpy()) for model in (made.model, changed))
    assert num_same == sum(a.label == b.label for a, b in zip(ours, theirs, strict=True))
    assert 0 < num_same < 70
    differences = [np.subtract(a.probabilities, b.probabilities) for a, b in zip(ours, theirs, strict=True)]
    assert largest == pytest.approx(np.abs(differences).max(), abs=1e-6)


def test_sentence_has_the_counts() -> None:
    assert Agreement(1_000, 998, 0, 0, 0.0123).sentence == (
        "predicts the same as the original for 998 of 1,000 held-out images; probabilities differ by at most 0.012"
    )
    assert Agreement(1, 1, 999, 990, 0.25).sentence == (
        "predicts the same as the original for 1 of 1 held-out image and 990 of 999 blends of two of them; "
        "probabilities differ by at most 0.250"
    )


class Case:
    """A run, and a copy of its model with one changed class."""

    def __init__(self, run: Run, change: float = 0.2) -> None:
        self.folder, self.predictor = RunFolder(run.path), Predictor.load(run.path)
        self.folder.agreement.unlink(missing_ok=True)  # the report of the run has stored that of its rounded model
        self.changed = copy.deepcopy(self.predictor.model)
        with torch.no_grad():
            self.changed.head.bias[1] += change
        outputs = reported(outputs_of_run(self.folder))
        assert outputs is not None
        self.outputs = outputs

    def measure(self, outputs: Outputs | None = None, **options: Any) -> Agreement:
        return agreement_of_run(self.folder, self.predictor, self.changed, outputs or self.outputs, **options)


def test_all_held_out_images_and_blends_are_compared(own_run: Run) -> None:
    case = Case(own_run)
    outputs, found = case.outputs, case.measure()
    theirs = outputs.logits + torch.tensor([0.0, 0.2, 0.0])
    assert found.num_images == len(outputs) < NUM_IMAGES
    assert found.num_same == int((theirs.argmax(dim=1) == outputs.logits.argmax(dim=1)).sum())
    assert found.num_images + found.num_generated == NUM_IMAGES
    assert 0 < found.num_same_generated < found.num_generated  # some blends lie between two classes
    ours = torch.stack([logits / case.predictor.temperature for logits in (outputs.logits, theirs)]).softmax(dim=2)
    assert found.largest_difference >= float((ours[0] - ours[1]).abs().max()) - 1e-5


def test_of_more_images_a_thousand_are_compared_and_none_is_generated(
    own_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement_module, "NUM_IMAGES", 7)
    found = Case(own_run).measure()
    assert (found.num_images, found.num_generated, found.is_complete) == (7, 0, True)


def test_result_is_stored_and_read_again(own_run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(own_run)
    found = case.measure(source=open_source(str(photos)))
    stored = json.loads((own_run.path / "agreement.json").read_text(encoding="utf-8"))
    assert stored["agreement"] == vars(found)
    monkeypatch.setattr(agreement_module, "compare", pytest.fail)
    assert case.measure() == found


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"version": 1}', "other weights", "other version", {"num_same": 2_000}, {"largest_difference": "0"},
     {"num_images": None}, {"others": 1}],
    ids=str,
)  # fmt: skip
def test_stored_result_that_is_damaged_or_of_another_model_is_measured_again(
    content: str | dict[str, Any], own_run: Run
) -> None:
    case, file = Case(own_run), own_run.path / "agreement.json"
    found = case.measure()
    text = file.read_text(encoding="utf-8")
    stored = json.loads(text)
    if isinstance(content, dict):
        stored["agreement"] |= content
    if content == "other weights":
        stored |= {"weights": "0" * 32, "agreement": vars(Agreement(1_000, 1_000))}
    if content == "other version":
        stored |= {"version": 2, "agreement": vars(Agreement(1_000, 1_000))}
    is_json = isinstance(content, dict) or content.startswith("other")
    file.write_text(json.dumps(stored) if is_json else str(content), encoding="utf-8")
    assert case.measure() == found
    assert file.read_text(encoding="utf-8") == text


def test_time_limit_ends_after_a_batch_and_a_later_call_completes_the_result(own_run: Run) -> None:
    case = Case(own_run)
    first = case.measure(limit_s=0.0)
    assert (first.num_images, first.num_generated) == (min(BATCH_SIZE, len(case.outputs)), 0)
    assert case.measure(limit_s=5.0) == first
    complete = case.measure()
    assert complete.is_complete
    assert case.measure(limit_s=0.0) == complete


def test_rounded_model_agrees_on_almost_all_images(own_run: Run) -> None:
    case = Case(own_run)
    case.changed = with_int8_weights(case.predictor.model)
    found = case.measure()
    assert found.num_same + found.num_same_generated >= 0.995 * NUM_IMAGES
    assert found.largest_difference < 0.05


def test_images_of_a_run_are_those_that_gave_the_stored_logits(own_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    case, seen = Case(own_run), list[torch.Tensor]()
    monkeypatch.setattr(agreement_module, "NUM_IMAGES", len(case.outputs))
    monkeypatch.setattr(agreement_module, "compare", lambda *args: (seen.append(args[2]) or 1, 0.0))
    case.measure()
    logits = case.predictor.logits(torch.cat(seen))
    torch.testing.assert_close(logits, case.outputs.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("what", ["fewer", "others", "unknown"])
def test_other_images_are_refused(what: str, own_run: Run, photos: Path, tmp_path: Path) -> None:
    case = Case(own_run)
    outputs = case.outputs
    data = Path(shutil.copytree(photos, tmp_path / "changed"))
    if what == "fewer":
        for path in sorted(data.rglob("*.png")):
            if path.stem != "bild 3 ü":
                path.unlink()
    if what == "others":
        outputs = replace(outputs, logits=-outputs.logits)
    if what == "unknown":
        outputs = replace(outputs, indices=None)
    with pytest.raises(DataError, match=r"data\.source=changed: has changed since the run; restore it, or train again"):
        case.measure(outputs, source=open_source(str(data)))
    assert not (own_run.path / "agreement.json").exists()
