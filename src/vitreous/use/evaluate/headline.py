"""Metrics of a set of images -> sentences: the accuracy, and what it is worth if some classes are rare."""

from collections.abc import Mapping
from typing import Any

from vitreous.wording import duration, listed, plural, printable

_LONGEST_NAME = 60


def accuracy_text(found: Mapping[str, Any]) -> str:
    """Return an accuracy with its confidence interval and the number of images."""
    low, high = found["interval_95"]
    return (
        f"{found['accuracy']:.1%} ({found['num_correct']:,} of {plural(found['num_images'], 'image')} correct; "
        f"95% interval {low:.1%} to {high:.1%})"
    )


def first_model_text(record: Mapping[str, Any]) -> str:
    """Describe the model that a run had before its first step, from the record of it."""
    scores = {"validation accuracy": record["val"], "cross-validated on training images": record["cross_validated"]}
    texts = [f"{name} {accuracy_text(found)}" for name, found in scores.items() if found is not None]
    if record["neighbors_accuracy"] is not None:
        texts.append(f"nearest neighbors {record['neighbors_accuracy']:.1%}")
    pools = {"mean": "the mean of the patches", "token_mean": "class token and mean of the patches"}
    block = f" after block {record['depth']}" if "depth" in record else ""  # older versions always took the last one
    where = f"{pools.get(record.get('pool', ''), 'the features')}{block} of the pretrained weights"
    text = ", ".join(texts) or "not validated"
    return f"first model after {duration(record['seconds'])}, {record['method']} on {where}: {text}"


def baseline_text(found: Mapping[str, Any]) -> str:
    """Compare an accuracy with always predicting the largest class; empty for a run of an older version."""
    if "majority_share" not in found:
        return ""
    always = f"always predicting {_quoted(found['majority_class'])}"
    share, is_better = f"{found['majority_share']:.1%}", found["accuracy"] > found["majority_share"]
    compared = f"{always} would reach {share}" if is_better else f"no better than {always}, which reaches {share}"
    low, high = found.get("balanced_accuracy_interval_95") or (None, None)
    interval = "" if low is None else f" (95% interval {low:.1%} to {high:.1%})"
    return f"{compared}; balanced accuracy (mean recall of the classes) {found['balanced_accuracy']:.1%}{interval}"


def never_predicted_text(found: Mapping[str, Any], most: int = 20) -> str:
    """Name up to `most` classes that have images but are never predicted; empty if there are none."""
    names = [_quoted(name) for name in found.get("never_predicted", ())]
    if not names:
        return ""
    return f"{plural(len(names), 'class is', 'classes are')} never predicted: {listed(names, most)}"


def _quoted(name: str) -> str:
    return printable(repr(name), _LONGEST_NAME)
