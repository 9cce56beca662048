"""Model, labeled images, methods -> Faithfulness: each method and two references by each protocol."""

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Labels
from vitreous.training.fit.checkpoint import checksum
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.machine.device import describe_software, resolve_precision
from vitreous.use.explain.check.faithfulness import RANDOM, Faithfulness, Row, compare_methods
from vitreous.use.explain.check.orders import center_maps, random_maps
from vitreous.use.explain.check.protocols import PROTOCOLS, Curves, Subject
from vitreous.use.explain.check.randomized import rank_correlations, with_shuffled_weights
from vitreous.use.explain.check.sample import Sample
from vitreous.use.explain.methods import Method
from vitreous.use.explain.relevance import PatchValues
from vitreous.use.explain.removal import BATCH_TOKENS
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating
from vitreous.use.predict.predictor import Predictor

_BATCH_SIZE = 64
_NUM_SHUFFLED = 16
"""Number of images for the maps of shuffled weights."""
_REFERENCES = {RANDOM: "random order", "center": "center first"}

Maps = Callable[[Subject, NDArray[np.int64]], PatchValues]
"""Values of the patches of a batch, and the numbers of its images."""


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
        images = _Images.of(model, predictor, sample, seed)
        shuffled = with_shuffled_weights(model, seed)
        scores: dict[str, dict[str, NDArray[np.float64]]] = {}
        curves: dict[str, dict[str, object]] = {}
        similarity: dict[str, float] = {}
        maps: dict[str, Maps] = {name: _maps_of(method) for name, method in methods.items()} | {
            RANDOM: lambda subject, part: random_maps(part, model.config.grid_size, seed),
            "center": lambda subject, part: center_maps(len(part), model.config.grid_size),
        }
        labels = {name: method.label for name, method in methods.items()} | _REFERENCES
        for name, function in maps.items():
            images.run(name, labels[name], function, scores, curves, listener)
            if name in methods:
                similarity[name] = images.similarity(function, shuffled)
        weights = checksum({key: value.cpu() for key, value in model.state_dict().items()})
    measured = compare_methods(scores, list(methods), seed)
    facts = {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "data": sample.name,
        "num_images": len(sample),
        "num_available": sample.num_available,
        "explained": "predicted class",
        "seed": seed,
        "precision": images.precision,
        "weights": weights,
        "software": describe_software(),
    }
    rows = [
        Row(name, label, name in _REFERENCES, passes.get(name, 0.0), similarity.get(name), measured[name])
        for name, label in labels.items()
    ]
    return Faithfulness(facts, rows, curves, notes)


@dataclass(frozen=True)
class _Images:
    """The images of a check in batches.

    Attributes:
        model: The model, in evaluation mode.
        predictor: Its preprocessing.
        sample: The images.
        classes: The predicted class of each image.
        precision: Precision of the forward passes.
        seed: Decides random orders.
    """

    model: VisionTransformer
    predictor: Predictor
    sample: Sample
    classes: Labels
    precision: str
    seed: int

    @classmethod
    def of(cls, model: VisionTransformer, predictor: Predictor, sample: Sample, seed: int) -> "_Images":
        """Classify the images."""
        precision = resolve_precision("auto", next(model.parameters()).device)
        unclassified = cls(model, predictor, sample, torch.zeros(0, dtype=torch.int64), precision, seed)
        logits = [predictor.logits(sample.store.take(part)) for part in unclassified.parts()]
        return cls(model, predictor, sample, torch.cat(logits).argmax(dim=1), precision, seed)

    def parts(self) -> Iterator[NDArray[np.int64]]:
        """Yield the numbers of the images of each batch."""
        size = max(1, min(_BATCH_SIZE, BATCH_TOKENS // self.model.config.num_tokens))
        for start in range(0, len(self.sample), size):
            yield np.arange(start, min(start + size, len(self.sample)))

    def subject(self, part: NDArray[np.int64], model: VisionTransformer) -> Subject:
        """Return a batch."""
        device = next(model.parameters()).device
        return Subject(
            model=model,
            preprocess=self.predictor.preprocess,
            pixels=self.sample.store.take(part).to(device),
            classes=self.classes[part].to(device),
            truth=self.sample.truth[part].to(device),
            precision=self.precision,
            is_multilabel=self.predictor.thresholds is not None,
            seed=self.seed,
        )

    def run(
        self,
        name: str,
        label: str,
        maps: Maps,
        scores: dict[str, dict[str, NDArray[np.float64]]],
        curves: dict[str, dict[str, object]],
        listener: Listener,
    ) -> None:
        """Add the scores and curves of a method."""
        found: dict[str, list[Curves]] = {protocol: [] for protocol in PROTOCOLS}
        for part in self.parts():
            progress = {"what": f"checking {label}", "done": int(part[0]), "total": len(self.sample)}
            listener("reading", progress)
            subject = self.subject(part, self.model)
            values = maps(subject, part).to(subject.pixels.device)
            for protocol, item in PROTOCOLS.items():
                found[protocol].append(item.run(subject, values))
        for protocol, item in PROTOCOLS.items():
            x, first, second = (
                found[protocol][0].x,
                *(torch.cat([getattr(each, which) for each in found[protocol]]) for which in ("first", "second")),
            )
            for measure, values in item.scores(Curves(x, first, second)).items():
                scores.setdefault(measure, {})[name] = values.numpy()
            means = [curve.mean(dim=0).tolist() for curve in (first, second)]
            curves.setdefault(protocol, {"x": x.tolist()})[name] = means

    def similarity(self, maps: Maps, shuffled: VisionTransformer) -> float:
        """Return the mean rank correlation of maps with those of the model with shuffled weights."""
        part = next(self.parts())[:_NUM_SHUFFLED]
        values = [maps(self.subject(part, model), part).flatten(1) for model in (self.model, shuffled)]
        return float(rank_correlations(*values).mean())


def _maps_of(method: Method) -> Maps:
    return lambda subject, _: method(subject.model, subject.images, Target(subject.classes)).values.detach()
