"""Model, labeled images, methods -> Faithfulness: each method and two references by each protocol."""

import copy
import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import one_hot

from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.native import fingerprint
from vitreous.seeding import derive
from vitreous.tensors import Labels
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.machine.device import autocast, describe_software, resolve_precision
from vitreous.use.explain.check import cost
from vitreous.use.explain.check.faithfulness import RANDOM, Faithfulness, Row, compare_scores
from vitreous.use.explain.check.orders import center_maps, random_maps
from vitreous.use.explain.check.protocols import PROTOCOLS, Curves, Subject
from vitreous.use.explain.methods import Method
from vitreous.use.explain.methods.removal import shapley
from vitreous.use.explain.relevance import PatchValues, Relevance
from vitreous.use.explain.removal.agreement import Agreement, agreement
from vitreous.use.explain.removal.exact_shapley import exact_shapley
from vitreous.use.explain.sample import Positions, Sample, batches
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating

_NUM_SHUFFLED = 16
"""Number of images for the maps of shuffled weights."""
_REFERENCES = {RANDOM: "random order", "center": "center first"}

BatchCurves = dict[str, dict[str, Curves]]
"""The curves of a batch of images, by method and protocol."""
Once = Callable[[int, Callable[[], BatchCurves]], BatchCurves]
"""Computes the curves of a batch, given its number, or returns them if they are stored."""
Maps = Callable[[Subject, Positions], PatchValues]
"""Computes the values of the patches of a batch; given are also the positions of its images."""


def compare(
    sample: Sample,
    methods: Mapping[str, Method],
    *,
    coarseness: int = 0,
    seed: int = 0,
    once: Once = lambda _, compute: compute(),
    listener: Listener = ignore,
) -> Faithfulness:
    """Compare methods on the predicted class of each image.

    `coarseness` is 0 for the most steps of each protocol, 1 for fewer, 2 for the fewest. `once` stores the curves of
    each batch, so that a long comparison can be continued.
    """
    with evaluating(sample.model) as model:
        check = _Check(sample, methods, coarseness, seed)
        num_patches, per_image = model.config.num_patches, cost.passes_per_image(model, methods.values(), coarseness)
        work = len(sample) * per_image + cost.passes_of_shapley(model)
        listener("expected", {"text": f"{work:,.0f} forward passes", "seconds": work * check.seconds_per_pass()})
        found = []
        for number, positions in enumerate(batches(model, sample.positions)):
            found.append(once(number, partial(check.curves, positions, listener)))
        agreements, similarity = check.agreements(listener), check.similarity()
        facts = check.facts()
    scores, means = _summed_up(found)
    scores["shapley"] = {name: each.pearson for name, each in agreements.items()}
    measured = compare_scores(scores, list(methods), seed)
    rows = [
        Row(name, method.label, False, method.cost(num_patches), similarity[name], measured[name])
        for name, method in methods.items()
    ]
    rows += [Row(name, label, True, 0.0, None, measured[name]) for name, label in _REFERENCES.items()]
    limit = float(agreements[RANDOM].limit.mean())
    facts |= {"num_images_shapley": len(agreements[RANDOM].pearson), "largest_agreement": limit}
    notes = [f"Shapley values are sampled; the exact ones would have a correlation of {limit:.2f} with them"]
    return Faithfulness(facts, rows, means, notes if limit < 1 else ())


def _summed_up(
    batches_found: list[BatchCurves],
) -> tuple[dict[str, dict[str, NDArray[np.float64]]], dict[str, dict[str, Any]]]:
    """Return the scores of all images by measure and method, and the mean curves by protocol and method."""
    scores: dict[str, dict[str, NDArray[np.float64]]] = {}
    means: dict[str, dict[str, Any]] = {}
    for name in batches_found[0]:
        for protocol, item in PROTOCOLS.items():
            parts = [found[name][protocol] for found in batches_found]
            curves = Curves(parts[0].x, *(torch.cat(both) for both in list(zip(*parts, strict=True))[1:]))
            for measure, values in item.scores(curves).items():
                scores.setdefault(measure, {})[name] = values.numpy()
            of_method = [curve.mean(dim=0).tolist() for curve in curves[1:]]
            means.setdefault(protocol, {"x": curves.x.tolist()})[name] = of_method
    return scores, means


@dataclass(frozen=True, eq=False)
class _Check:
    """Images, their model and methods, and what is computed from them."""

    sample: Sample
    methods: Mapping[str, Method]
    coarseness: int
    seed: int

    @property
    def model(self) -> VisionTransformer:
        """The model that is explained."""
        return self.sample.model

    @cached_property
    def maps(self) -> dict[str, Maps]:
        """The methods, and the two orders that ignore the model."""
        grid_size = self.model.config.grid_size
        maps: dict[str, Maps] = {name: partial(_explained, method) for name, method in self.methods.items()}
        maps[RANDOM] = lambda _, positions: random_maps(positions, grid_size, self.seed)
        maps["center"] = lambda _, positions: center_maps(len(positions), grid_size)
        return maps

    @cached_property
    def classes(self) -> Labels:
        """The predicted class of each image."""
        return self.sample.predicted()

    @property
    def precision(self) -> str:
        """Precision of the forward and backward passes."""
        return resolve_precision("auto", next(self.model.parameters()).device)

    def seconds_per_pass(self) -> float:
        """Return the time of a forward pass for one image, measured on a batch."""
        subject, durations = self.subject(next(batches(self.model, self.sample.positions))), []
        for _ in range(2):  # the first one is slower
            began = time.perf_counter()
            subject.logits(subject.images).cpu()
            durations.append(time.perf_counter() - began)
        return min(durations) / len(subject.pixels)

    def subject(self, positions: Positions, model: VisionTransformer | None = None) -> Subject:
        """Return a batch for the model, or for another one with the same preprocessing."""
        pixels, labels = self.sample.pixels(positions), self.sample.targets(positions)
        return Subject(
            model=model or self.model,
            preprocess=self.sample.predictor.preprocess,
            pixels=pixels,
            classes=self.classes[positions].to(pixels.device),
            truth=(labels if labels.ndim == 2 else one_hot(labels, len(self.sample.classes))).bool(),
            precision=self.precision,
            is_multilabel=self.sample.predictor.thresholds is not None,
            seed=self.seed,
        )

    def curves(self, positions: Positions, listener: Listener) -> BatchCurves:
        """Return the curves of some images, which share what is the same for all methods."""
        subject, found, done = self.subject(positions), BatchCurves(), int(positions[0])
        for number, (name, maps) in enumerate(self.maps.items()):
            step = number * len(positions) // len(self.maps)
            listener("reading", {"what": "checking methods", "done": done + step, "total": len(self.sample)})
            values = maps(subject, positions).to(subject.pixels.device)
            found[name] = {key: protocol.run(subject, values, self.coarseness) for key, protocol in PROTOCOLS.items()}
        return found

    def values(self, name: str, positions: Positions, model: VisionTransformer | None = None) -> PatchValues:
        """Return the values that a method gives to the patches of some images."""
        maps, found = self.maps[name], batches(self.model, positions)
        return torch.cat([maps(self.subject(some, model), some).cpu() for some in found])

    def similarity(self) -> dict[str, float]:
        """Return the mean rank correlation of the maps of each method with those of the model with shuffled weights."""
        shuffled, positions = with_shuffled_weights(self.model, self.seed), self.some(_NUM_SHUFFLED)
        return {
            name: float(agreement(self.values(name, positions), self.values(name, positions, shuffled)).spearman.mean())
            for name in self.methods
        }

    def agreements(self, listener: Listener) -> dict[str, Agreement]:
        """Compare the maps of some images with Shapley values."""
        positions = self.some(cost.num_exact(self.model) or cost.NUM_SAMPLED)

        def progress(done: int, total: int) -> None:
            part = {"done": done * len(positions) // total, "total": len(positions)}
            listener("reading", {"what": "computing Shapley values", **part})

        subject, cells, precision = self.subject(positions), cost.cells_of(self.model), self.precision
        score = self.model, subject.images, Target(subject.classes)
        if cost.num_exact(self.model):
            found = exact_shapley(*score, cells=cells, precision=precision, progress=progress)
            reference = Relevance(found.values)
        else:
            reference = shapley(*score, num_permutations=cost.NUM_ORDERS, cells=cells, precision=precision)
        return {name: agreement(self.values(name, positions), reference.values, reference.errors) for name in self.maps}

    def some(self, count: int) -> Positions:
        """Return the positions of some images, spread over all of them because those of a class are neighbors."""
        return np.unique(np.linspace(0, len(self.sample) - 1, count).round().astype(np.int64))

    def facts(self) -> dict[str, Any]:
        """Return what was checked, and how."""
        return {
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            "data": self.sample.name,
            "num_images": len(self.sample),
            "num_available": self.sample.total,
            "explained": "predicted class",
            "seed": self.seed,
            "steps": {name: protocol.steps[self.coarseness] for name, protocol in PROTOCOLS.items()},
            "precision": self.precision,
            "weights": fingerprint(self.model),
            "software": describe_software(),
        }


def _explained(method: Method, subject: Subject, positions: Positions) -> PatchValues:
    with autocast(subject.images.device, subject.precision):
        return method(subject.model, subject.images, Target(subject.classes)).values.detach()


def with_shuffled_weights(model: VisionTransformer, seed: int = 0) -> VisionTransformer:
    """Return a copy in which the values within each tensor of weights are in random order.

    Source:
        The model parameter randomization test of Adebayo et al. 2018 (1810.03292), for all layers at once. They draw
        new weights. Here each tensor keeps its values, because new weights of some models, such as small LayerScale or
        a head of zeros, would make all maps constant.
    """
    changed = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(derive(seed, "shuffled weights"))
    with torch.no_grad():
        for weights in changed.parameters():
            order = torch.randperm(weights.numel(), generator=draw).to(weights.device)
            weights.copy_(weights.flatten()[order].view_as(weights))
    return changed
