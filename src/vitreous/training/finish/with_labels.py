"""Trained state -> model.safetensors: choose the weights and calibrate them on validation images, then test once."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from vitreous import atomic
from vitreous.data.label_sets import join_labels
from vitreous.data.loader import EvalLoader
from vitreous.data.pixels.store import Store
from vitreous.model.change.lora import merge_lora
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import load_model, save_model
from vitreous.training.fit.evaluate import (
    Score,
    calibrated_loss,
    cross_fitted_temperatures,
    fit_temperature,
    gather_logits,
)
from vitreous.training.fit.familiarity import write_familiarity
from vitreous.training.fit.multilabel import fit_thresholds, predicted_labels, score_task
from vitreous.training.fit.probe import fit_familiarity
from vitreous.training.folder.images import write_images
from vitreous.training.folder.outputs import SplitOutputs, write_outputs
from vitreous.training.folder.records import Recorder
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import Prepared
from vitreous.training.machine.distributed import SINGLE, Group
from vitreous.training.preliminary import candidates, describe_model
from vitreous.training.step.state import TrainState

EVALUATION_BATCH = 256
MOST_PROBABILITIES = 1_000_000
"""Images times classes up to which `predictions.csv` has the probability of each class, in about 10 MB."""
LEAST_FOR_TEMPERATURE = 20
"""Number of validation images below which no temperature is fitted, because it would be fitted to noise."""


def evaluate_state(state: TrainState, prepared: Prepared, group: Group) -> dict[str, Score]:
    """Score the trained weights and their average on the validation images; each process scores its share of them."""
    return evaluate_models(_models(state), prepared, group)


def evaluate_models(models: Mapping[str, VisionTransformer], prepared: Prepared, group: Group) -> dict[str, Score]:
    """Score models on the validation images, by name; each process scores its share of them."""
    classes, outputs = prepared.survey.facts.classes, _val_logits(models, prepared, prepared.precision, group)
    return {
        name: replace(score_task(*pair, classes), calibrated_loss=calibrated_loss(*pair))
        for name, pair in outputs.items()
    }


def finish(
    state: TrainState, prepared: Prepared, folder: RunFolder, recorder: Recorder, group: Group = SINGLE, part: float = 1
) -> None:
    """Choose the weights; then calibrate, test and save them in float32, like `evaluate` and `predict`.

    The candidates are the last weights, their average, the pretrained weights with a fitted head if the run began with
    them, and the best model so far if the run may stop early. Without any step, the fitted head is taken. The ones with
    the lowest calibrated loss on the validation images are chosen, computed in the precision of the run; the test
    images do not influence the choice. Without validation images, the average is chosen.

    With `train.choose_weights=false` the validation images choose nothing: the average is saved, so that accuracy and
    loss on them are those of new images. Averaging needs no held-out image, and all images outside the validation split
    are trained on. Only the temperature is fitted on the validation images, which changes no predicted class; the
    probabilities in `predictions.csv` are cross-fitted. Training images are predicted with too much confidence to fit a
    temperature (`benchmarks/small_calibration.py`).

    Raises:
        SaveError: A file could not be written; the checkpoints are complete, so the run can be resumed from here.
    """
    temperature, thresholds = 1.0, None
    facts, outputs = prepared.survey.facts, dict[str, SplitOutputs]()
    if facts.task == "multilabel":
        thresholds = (0.5,) * len(facts.classes)
    models = _last_models(state, folder, can_choose=prepared.config.train.choose_weights)
    chosen = "average" if "average" in models else "first"
    if prepared.val is not None:
        models, chosen, (logits, labels) = _choose(models, state, prepared, folder, group)
        outputs["val"] = SplitOutputs(logits, labels, prepared.val.source_indices)
        if len(labels) >= LEAST_FOR_TEMPERATURE:
            temperature = fit_temperature(logits, labels)
            if thresholds is not None and prepared.config.train.choose_weights:
                thresholds = fit_thresholds((logits / temperature).sigmoid(), labels)
    model = merge_lora(models[chosen])
    if prepared.test is not None:
        logits, labels = gather_logits(model, _share(prepared.test, prepared, group), "fp32", group)
        outputs["test"] = SplitOutputs(logits, labels, prepared.test.source_indices)
    held_out = outputs.get("test", outputs.get("val"))
    metrics = {}
    for split, found in outputs.items():
        scored = score_task(found.logits, found.labels, facts.classes, thresholds, temperature, with_interval=True)
        metrics[split] = scored.as_dict()
    group.from_first(lambda: _write_familiarity(model, prepared, folder, recorder, part))
    metadata = describe_model(state, prepared) | {
        "weights": chosen, "temperature": temperature, "metrics": metrics,
        "example_class": "" if held_out is None else _names(held_out.labels[0], facts.classes),
        "chosen_on_val": len(models) > 1 and "val" in metrics,
    } | ({} if thresholds is None else {"task": facts.task, "thresholds": thresholds})  # fmt: skip
    end = {"step": state.step, "elapsed_s": state.elapsed_s, "refused": state.refused}
    recorded = ("weights", "temperature", "metrics", "chosen_on_val")
    recorder.record("end", end | {key: metadata[key] for key in recorded})

    def write() -> None:
        if held_out is not None:
            _write_held_out(prepared, folder, held_out, temperature, thresholds)
        write_images(folder.images, prepared.survey)
        write_outputs(folder.outputs, outputs)
        save_model(folder.model, model, metadata)
        folder.remove_preliminary()

    group.from_first(write)


def _write_familiarity(
    model: VisionTransformer, prepared: Prepared, folder: RunFolder, recorder: Recorder, part: float
) -> None:
    """Write what `predict` needs to flag images unlike the training images; `part` of the images may be looked at."""
    stores = {"train": prepared.train, "val": prepared.val, "test": prepared.test}
    there = {split: store for split, store in stores.items() if store is not None}
    classes, seed = prepared.survey.facts.classes, prepared.config.train.seed
    if (found := fit_familiarity(model, prepared.preprocess, there, classes, seed, part)) is not None:
        write_familiarity(folder.familiarity, found[0], model)
        recorder.record("familiarity", found[1])


def _choose(
    models: dict[str, VisionTransformer], state: TrainState, prepared: Prepared, folder: RunFolder, group: Group
) -> tuple[dict[str, VisionTransformer], str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the candidates, the name of the chosen one, and its logits (float32) and labels on validation images."""
    train, precision = prepared.config.train, prepared.precision
    if "first" in models:
        return models, "first", _val_logits(models, prepared, "fp32", group)["first"]
    outputs = _val_logits(models, prepared, precision, group)
    losses = {name: calibrated_loss(*pair) for name, pair in outputs.items()}
    if train.choose_weights:
        others = candidates(state, folder, min(losses.values()), stops_early=train.patience_ratio > 0)
        found = _val_logits(others, prepared, precision, group)
        models, outputs = models | others, outputs | found
        losses |= {name: calibrated_loss(*pair) for name, pair in found.items()}
    chosen = min(losses, key=losses.__getitem__)
    if precision != "fp32":
        outputs = _val_logits({chosen: models[chosen]}, prepared, "fp32", group)
    return models, chosen, outputs[chosen]


def _write_held_out(
    prepared: Prepared,
    folder: RunFolder,
    held_out: SplitOutputs,
    temperature: float,
    thresholds: tuple[float, ...] | None,
) -> None:
    """Write `predictions.csv`, one row per held-out image, and the first of these images as `example.png`.

    Columns: `path` of the image, its `true` class, the `predicted` class, and the calibrated `probability` of the
    predicted class. `p_CLASS` is the probability of each class; with one label per image, it is left out if there are
    over `MOST_PROBABILITIES`. With several labels, classes are joined by `;`. `vitreous predict --out` gives columns of
    these names the same meaning.
    """
    logits, labels = held_out.logits, held_out.labels
    store = prepared.test if prepared.test is not None else prepared.val
    if store is None:
        return
    classes, source = prepared.survey.facts.classes, prepared.survey.source
    true = [_names(label, classes) for label in labels]
    if thresholds is None:
        temperatures = torch.tensor(temperature)
        if prepared.test is None and temperature != 1:  # then these images have fitted the temperature
            temperatures = cross_fitted_temperatures(logits, labels)
        calibrated = (logits / temperatures).softmax(dim=1)
        probabilities, best = calibrated.max(dim=1)
        predicted = [classes[i] for i in best.tolist()]
    else:
        # The thresholds are for the one temperature that the model keeps.
        calibrated = (logits / temperature).sigmoid()
        probabilities = calibrated.max(dim=1).values
        labels_of = (predicted_labels(row, thresholds) for row in calibrated.tolist())
        predicted = [join_labels(classes[i] for i in sorted(found)) for found in labels_of]
    is_whole = thresholds is not None or calibrated.numel() <= MOST_PROBABILITIES
    num_shown = len(classes) if is_whole else 0
    paths = [source.describe(int(index)) for index in held_out.indices]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "true", "predicted", "probability", *(f"p_{name}" for name in classes[:num_shown])))
    rows = zip(paths, true, predicted, probabilities.tolist(), calibrated[:, :num_shown].tolist(), strict=True)
    writer.writerows((path, t, label, f"{p:.6f}", *(f"{q:.9g}" for q in row)) for path, t, label, p, row in rows)
    atomic.write_text(folder.predictions, text.getvalue())

    pixels = store.take(np.zeros(1, dtype=np.int64))[0].cpu().permute(1, 2, 0).numpy()
    example = io.BytesIO()
    if pixels.shape[2] not in (1, 3):
        np.save(example, pixels, allow_pickle=False)
        atomic.write_bytes(folder.path / "example.npy", example.getvalue())
        return
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(example, format="png")
    atomic.write_bytes(folder.example, example.getvalue())


def _names(label: torch.Tensor, classes: Sequence[str]) -> str:
    """Return the class of an image, or all its labels."""
    if label.ndim == 0:
        return classes[int(label)]
    return join_labels(classes[number] for number in label.nonzero().flatten().tolist())


def _last_models(state: TrainState, folder: RunFolder, *, can_choose: bool) -> dict[str, VisionTransformer]:
    """Return the weights and their average, or the only model that there is to take."""
    if not state.step and folder.first.is_file():
        return {"first": load_model(folder.first).to(next(state.model.parameters()).device)}
    models = _models(state)
    return models if can_choose else {"average": models["average"]}


def _models(state: TrainState) -> dict[str, VisionTransformer]:
    """Return the weights and their average, which are equal before the first step."""
    return {"trained": state.model, "average": state.ema.model} if state.step else {"average": state.model}


def _val_logits(
    models: Mapping[str, VisionTransformer], prepared: Prepared, precision: str, group: Group
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    if prepared.val is None:
        return {}
    loader = _share(prepared.val, prepared, group)
    return {name: gather_logits(model, loader, precision, group) for name, model in models.items()}


def _share(store: Store, prepared: Prepared, group: Group) -> EvalLoader:
    """Return a loader of the images of a split that this process evaluates."""
    return EvalLoader(store, prepared.preprocess, EVALUATION_BATCH, (group.rank, group.size))
