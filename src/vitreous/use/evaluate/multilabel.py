"""True labels and probabilities of images with several labels -> LabelEvaluation: mAP, F1, and scores per label."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.training.fit.multilabel import LabelScore, map_interval, score_labels
from vitreous.use.evaluate.evaluation import shown
from vitreous.use.evaluate.known import Known
from vitreous.use.evaluate.metrics.costs import decide_labels
from vitreous.use.evaluate.metrics.scores import Interval, as_pair, operating_curves, wilson
from vitreous.wording import listed, plural


@dataclass(frozen=True)
class LabelRow:
    """Scores of one label. A score is None if the images do not determine it.

    Attributes:
        name: The label.
        average_precision: Area under the precision-recall curve; None if no image has the label.
        roc_auc: Area under the ROC curve: the probability that an image with the label gets a higher probability than
            one without it; None if all or none of the images have the label.
        precision: Share of the images with this predicted label that have it; None if it is never predicted.
        recall: Share of the images with this label for which it is predicted; None if no image has the label.
        f1: Harmonic mean of precision and recall; None if no image has the label and it is never predicted.
        threshold: Probability from which the label is predicted.
        num_images: Number of images with the label.
        num_predicted: Number of images for which it is predicted.
        precision_interval_95: Wilson's interval; None if the precision is.
        recall_interval_95: Wilson's interval; None if the recall is.
        curves: The `operating_curves`; None if all or none of the images have the label.
    """

    name: str
    average_precision: float | None
    roc_auc: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    threshold: float
    num_images: int
    num_predicted: int
    precision_interval_95: Interval
    recall_interval_95: Interval
    curves: dict[str, Any] | None


@dataclass(frozen=True)
class LabelEvaluation:
    """Scores of a model on images with several labels.

    Attributes:
        data: Name of the images.
        score: Scores over all labels, and the share of images for which all labels are right.
        classes: One row per label, in the model's order.
        known: Images that the model was trained with; None if that is not known, or none can be among these.
        views: `num_views`, and what averaging over them gives: `accuracy` and `gain`; None if it was not measured.
        decision: What `decide_labels` finds, and `classes`, one row per label for its predictions; None without costs.
    """

    data: str
    score: LabelScore
    classes: tuple[LabelRow, ...]
    known: Known | None = None
    views: Mapping[str, Any] | None = None
    decision: dict[str, Any] | None = None

    @property
    def accuracy(self) -> float:
        """Share of images for which all labels are right, in [0, 1]."""
        return self.score.accuracy

    @property
    def macro_f1(self) -> float:
        """F1 of each label, averaged over the labels that occur."""
        return self.score.macro_f1

    def as_dict(self) -> dict[str, Any]:
        """Return all scores as plain values for JSON."""
        without = {"curves": None}
        has_many = len(self.classes) > 100  # then curves would be most of the JSON
        return {
            "data": self.data,
            **self.score.as_dict(),
            "classes": [vars(row) | (without if has_many else {}) for row in self.classes],
            "cost": self.decision
            and self.decision | {"classes": [vars(row) | without for row in self.decision["classes"]]},
            "known": self.known and self.known.as_dict(),
            "tta": self.views,
        }

    def table(self) -> tuple[tuple[str, ...], ...]:
        """Return the scores per label as text, below a row of headings."""
        headings = ("label", "AP", "ROC AUC", "precision", "recall", "F1", "threshold", "images", "predicted")
        return headings, *(
            (row.name, shown(row.average_precision), shown(row.roc_auc), shown(row.precision), shown(row.recall),
             shown(row.f1), shown(row.threshold), f"{row.num_images:,}", f"{row.num_predicted:,}")
            for row in self.classes
        )  # fmt: skip

    def sentences(self) -> Iterator[str]:
        """Yield the scores in words, most important first."""
        found, (low, high) = self.score, self.score.interval
        yield f"{map_text(found.as_dict())} on {self.data} (average precision, mean over the labels)"
        yield f"F1: micro {found.micro_f1:.3f} (over all decisions), macro {found.macro_f1:.3f} (mean over the labels)"
        yield (
            f"all labels right for {found.num_correct:,} of {plural(found.num_images, 'image')} "
            f"({self.accuracy:.1%}; 95% interval {low:.1%} to {high:.1%})"
        )
        never = [row.name for row in self.classes if row.num_images and not row.num_predicted]
        if never:
            yield f"never predicted, although some images have it: {listed(never, 8)}"


def map_text(found: Mapping[str, Any]) -> str:
    """Return the mean average precision in stored scores, with its interval unless an older version stored them."""
    low, high = found.get("mean_average_precision_interval_95", (None, None))
    interval = "" if low is None else f" (95% interval {low:.3f} to {high:.3f})"
    return f"mAP {found['mean_average_precision']:.3f}{interval}"


def labels_text(found: Mapping[str, Any], split: str) -> str:
    """Return the scores that matter if images have several labels, before others; empty if each image has one."""
    if "mean_average_precision" not in found:
        return ""
    return f"{split} {map_text(found)}, F1 micro {found['micro_f1']:.3f}, macro {found['macro_f1']:.3f}; "


def score_name(found: Mapping[str, Any], split: str) -> str:
    """Return the scores of `labels_text`, and what the accuracy is called: `test accuracy` or `validation accuracy`."""
    name = "test" if split == "test" else "validation"
    return f"{labels_text(found, name)}{name} accuracy"


def score_each_label(
    data: str,
    probabilities: NDArray[np.float32],
    true: NDArray[np.bool_],
    loss: float,
    classes: Sequence[str],
    thresholds: Sequence[float],
    costs: Mapping[tuple[int, int], float] | None = None,
) -> LabelEvaluation:
    """Compute the scores over all labels and per label.

    Probabilities, and which image has which label, are `[n, classes]`; the loss is the binary cross-entropy; a label is
    predicted if its probability reaches its threshold. Costs, if there are any, come from `read_costs`.
    """

    def rows(limits: Sequence[float]) -> tuple[LabelRow, ...]:
        return tuple(map(_row, classes, probabilities.T, true.T, limits))

    decision = None
    if costs:
        likely = probabilities.astype(np.float64)
        found = decide_labels(costs, likely, true, likely >= np.array(thresholds))
        decision = found | {"classes": rows(found["threshold"])}
    return LabelEvaluation(
        data=data,
        score=replace(
            score_labels(probabilities, true, loss, thresholds), map_interval=map_interval(probabilities, true)
        ),
        classes=rows(thresholds),
        decision=decision,
    )


def _row(name: str, probabilities: NDArray[np.float32], true: NDArray[np.bool_], threshold: float) -> LabelRow:
    from sklearn.metrics import average_precision_score

    predicted, curves = probabilities.astype(np.float64) >= threshold, operating_curves(name, probabilities, true)
    num_true, num_predicted, num_both = int(true.sum()), int(predicted.sum()), int((true & predicted).sum())
    return LabelRow(
        name=name,
        average_precision=float(average_precision_score(true, probabilities)) if num_true else None,
        roc_auc=None if curves is None else curves["roc_auc"],
        precision=num_both / num_predicted if num_predicted else None,
        recall=num_both / num_true if num_true else None,
        f1=2 * num_both / (num_true + num_predicted) if num_true + num_predicted else None,
        threshold=threshold,
        num_images=num_true,
        num_predicted=num_predicted,
        precision_interval_95=as_pair(wilson(num_both, num_predicted)),
        recall_interval_95=as_pair(wilson(num_both, num_true)),
        curves=curves,
    )
