"""Model, labeled images, methods -> Faithfulness: each method and two references by each protocol."""

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Labels
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.machine.device import describe_software, resolve_precision
from vitreous.use.explain.check.faithfulness import RANDOM, Faithfulness, Row, compare_scores
from vitreous.use.explain.check.orders import center_maps, random_maps
from vitreous.use.explain.check.protocols import PROTOCOLS, Curves, Subject
from vitreous.use.explain.check.randomized import with_shuffled_weights
from vitreous.use.explain.check.sample import Sample
from vitreous.use.explain.check.shapley_values import NUM_SAMPLED, affordable_exact, reference_values
from vitreous.use.explain.methods import Method
from vitreous.use.explain.relevance import PatchValues
from vitreous.use.explain.removal.agreement import Agreement, agreement
from vitreous.use.explain.removal.patch_removal import BATCH_TOKENS
from vitreous.use.explain.removal.stored_scores import fingerprint
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating
from vitreous.use.predict.predictor import Predictor

_BATCH_SIZE = 64
_NUM_SHUFFLED = 16
"""Number of images for the maps of shuffled weights."""
_REFERENCES = {RANDOM: "random order", "center": "center first"}

Numbers = NDArray[np.int64]
Maps = Callable[[Subject, Numbers], PatchValues]
"""Computes the values of the patches of a batch; given are also the numbers of its images."""


def compare(
    predictor: Predictor,
    sample: Sample,
    methods: Mapping[str, Method],
    *,
    passes: Mapping[str, float],
    seed: int = 0,
    notes: Sequence[str] = (),
    listener: Listener = ignore,
) -> Faithfulness:
    """Compare methods on the predicted class of each image.

    Args:
        predictor: The model and its preprocessing.
        sample: The images.
        methods: The methods by name.
        passes: Cost of each method in forward passes.
        seed: Decides random orders and intervals.
        notes: What was left out, and why.
        listener: Receives the progress.
    """
    with evaluating(predictor.model) as model:
        grid_size = model.config.grid_size
        maps: dict[str, Maps] = {name: _maps_of(method) for name, method in methods.items()}
        maps[RANDOM] = lambda _, numbers: random_maps(numbers, grid_size, seed)
        maps["center"] = lambda _, numbers: center_maps(len(numbers), grid_size)
        labels = {name: method.label for name, method in methods.items()} | _REFERENCES
        images = _Images(model, predictor, sample, seed)
        curves = {name: images.curves(labels[name], maps[name], listener) for name in maps}
        shuffled = with_shuffled_weights(model, seed)
        similarity = {name: images.similarity(maps[name], shuffled) for name in methods}
        agreements = images.agreements(maps, listener)
        weights = fingerprint(model)
    scores, means = _summed_up(curves)
    scores["shapley"] = {name: found.pearson for name, found in agreements.items()}
    measured = compare_scores(scores, list(methods), seed)
    rows = [
        Row(name, label, name in _REFERENCES, passes.get(name, 0.0), similarity.get(name), measured[name])
        for name, label in labels.items()
    ]
    limit = float(agreements[RANDOM].limit.mean())
    facts = {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "data": sample.name,
        "num_images": len(sample),
        "num_available": sample.num_available,
        "num_images_shapley": len(agreements[RANDOM].pearson),
        "largest_agreement": limit,
        "explained": "predicted class",
        "seed": seed,
        "precision": images.precision,
        "weights": weights,
        "software": describe_software(),
    }
    if limit < 1:
        notes = [
            *notes,
            f"Shapley values are sampled; the exact ones would have a correlation of {limit:.2f} with them",
        ]
    return Faithfulness(facts, rows, means, notes)


def _summed_up(
    curves: Mapping[str, Mapping[str, Curves]],
) -> tuple[dict[str, dict[str, NDArray[np.float64]]], dict[str, dict[str, Any]]]:
    """Return the scores of all images by measure and method, and the mean curves by protocol and method."""
    scores: dict[str, dict[str, NDArray[np.float64]]] = {}
    means: dict[str, dict[str, Any]] = {}
    for name, found in curves.items():
        for protocol, (x, first, second) in found.items():
            for measure, values in PROTOCOLS[protocol].scores(found[protocol]).items():
                scores.setdefault(measure, {})[name] = values.numpy()
            of_method = [curve.mean(dim=0).tolist() for curve in (first, second)]
            means.setdefault(protocol, {"x": x.tolist()})[name] = of_method
    return scores, means


@dataclass(frozen=True)
class _Images:
    """The images of a check in batches."""

    model: VisionTransformer
    predictor: Predictor
    sample: Sample
    seed: int

    @cached_property
    def classes(self) -> Labels:
        """The predicted class of each image."""
        logits = [self.predictor.logits(self.sample.store.take(numbers)) for numbers in self.numbers()]
        return torch.cat(logits).argmax(dim=1)

    @property
    def precision(self) -> str:
        """Precision of the forward passes."""
        return resolve_precision("auto", next(self.model.parameters()).device)

    def numbers(self) -> Iterator[Numbers]:
        """Yield the numbers of the images of each batch."""
        size = max(1, min(_BATCH_SIZE, BATCH_TOKENS // self.model.config.num_tokens))
        for start in range(0, len(self.sample), size):
            yield np.arange(start, min(start + size, len(self.sample)))

    def subject(self, numbers: Numbers, model: VisionTransformer) -> Subject:
        """Return a batch for the model, or for another one with the same preprocessing."""
        device = next(model.parameters()).device
        return Subject(
            model=model,
            preprocess=self.predictor.preprocess,
            pixels=self.sample.store.take(numbers).to(device),
            classes=self.classes[numbers].to(device),
            truth=self.sample.truth[numbers].to(device),
            precision=self.precision,
            is_multilabel=self.predictor.thresholds is not None,
            seed=self.seed,
        )

    def curves(self, label: str, maps: Maps, listener: Listener) -> dict[str, Curves]:
        """Return the curves of all images by each protocol."""
        found: dict[str, list[Curves]] = {protocol: [] for protocol in PROTOCOLS}
        for numbers in self.numbers():
            listener("reading", {"what": f"checking {label}", "done": int(numbers[0]), "total": len(self.sample)})
            subject = self.subject(numbers, self.model)
            values = maps(subject, numbers).to(subject.pixels.device)
            for protocol, item in PROTOCOLS.items():
                found[protocol].append(item.run(subject, values))
        return {
            protocol: Curves(parts[0].x, *(torch.cat(curves) for curves in list(zip(*parts, strict=True))[1:]))
            for protocol, parts in found.items()
        }

    def similarity(self, maps: Maps, shuffled: VisionTransformer) -> float:
        """Return the mean rank correlation of maps with those of the model with shuffled weights."""
        numbers = self.some(_NUM_SHUFFLED)
        values, changed = (maps(self.subject(numbers, model), numbers) for model in (self.model, shuffled))
        return float(agreement(values, changed).spearman.mean())

    def agreements(self, maps: Mapping[str, Maps], listener: Listener) -> dict[str, Agreement]:
        """Compare the maps of some images with Shapley values."""
        numbers = self.some(affordable_exact(self.model) or NUM_SAMPLED)
        subject = self.subject(numbers, self.model)

        def progress(done: int, total: int) -> None:
            part = {"done": done * len(numbers) // total, "total": len(numbers)}
            listener("reading", {"what": "computing Shapley values", **part})

        target = Target(subject.classes)
        reference = reference_values(self.model, subject.images, target, self.precision, progress)
        values = {name: function(subject, numbers) for name, function in maps.items()}
        return {name: agreement(found, reference.values, reference.errors) for name, found in values.items()}

    def some(self, count: int) -> Numbers:
        """Return the numbers of some images, spread over all of them because those of a class are neighbors."""
        return np.unique(np.linspace(0, len(self.sample) - 1, count).round().astype(np.int64))


def _maps_of(method: Method) -> Maps:
    return lambda subject, _: method(subject.model, subject.images, Target(subject.classes)).values.detach()
