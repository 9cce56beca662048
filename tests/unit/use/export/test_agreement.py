"""How often a changed model predicts the same as the original, on the held-out images of a run."""

import copy
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for

from vitreous.errors import DataError
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.outputs import Outputs, outputs_of_run, reported
from vitreous.use.export.agreement import Agreement, held_out_pixels, measure_agreement
from vitreous.use.predict.predictor import Predictor
from vitreous.use.run import Run

PIXELS = torch.randint(256, (70, 3, 8, 12), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)


def test_model_agrees_with_itself() -> None:
    made = predictor_for(models.make_model())
    assert measure_agreement(made, made.model, PIXELS) == Agreement(70, 70, 0.0)


@pytest.mark.parametrize("thresholds", [None, (0.1, 0.3, 0.5, 0.7, 0.9)])
def test_differences_are_those_of_the_predictions(thresholds: tuple[float, ...] | None) -> None:
    made = predictor_for(models.make_model(), thresholds)
    changed = copy.deepcopy(made.model)
    with torch.no_grad():
        logits = made.logits(PIXELS)
        needed = logits.amax(dim=1) if thresholds is None else torch.tensor(made.temperature * math.log(0.7 / 0.3))
        changed.head.bias[3] += (needed - logits[:, 3]).median()  # half of the predictions change
    found = measure_agreement(made, changed, PIXELS)
    ours, theirs = (replace(made, model=model).predict(PIXELS.numpy()) for model in (made.model, changed))
    assert found.num_same == sum(a.label == b.label for a, b in zip(ours, theirs, strict=True))
    assert 0 < found.num_same < 70
    differences = [np.subtract(a.probabilities, b.probabilities) for a, b in zip(ours, theirs, strict=True)]
    assert found.largest_difference == pytest.approx(np.abs(differences).max(), abs=1e-6)


def test_sentence_has_the_counts() -> None:
    assert Agreement(1_000, 998, 0.0123).sentence == (
        "predicts the same as the original for 998 of 1,000 held-out images; probabilities differ by at most 0.012"
    )


def held_out(run: Run) -> Outputs:
    found = reported(outputs_of_run(RunFolder(run.path)))
    assert found is not None
    return found


def test_held_out_images_give_the_stored_logits_again(run: Run) -> None:
    predictor, outputs = Predictor.load(run.path), held_out(run)
    pixels = held_out_pixels(predictor, read_config(RunFolder(run.path).config), outputs)
    torch.testing.assert_close(predictor.logits(pixels), outputs.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("what", ["fewer", "others", "unknown"])
def test_other_images_are_refused(what: str, run: Run, photos: Path, tmp_path: Path) -> None:
    predictor, outputs, config = Predictor.load(run.path), held_out(run), read_config(RunFolder(run.path).config)
    data = Path(shutil.copytree(photos, tmp_path / "changed"))
    if what == "fewer":
        for path in sorted(data.rglob("*.png")):
            if path.stem != "bild 3 ü":
                path.unlink()
    config = replace(config, data=replace(config.data, source=str(data)))
    if what == "others":
        outputs = replace(outputs, logits=-outputs.logits)
    if what == "unknown":
        outputs = replace(outputs, indices=None)
    with pytest.raises(
        DataError, match=r"data\.source=.*changed: has changed since the run; restore it, or train again"
    ):
        held_out_pixels(predictor, config, outputs)
