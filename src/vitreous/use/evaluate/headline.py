"""Metrics of a set of images -> sentences: the accuracy, and what it is worth if some classes are rare."""

from collections.abc import Mapping
from typing import Any

from vitreous.printable import printable
from vitreous.wording import listed, plural

_LONGEST_NAME = 60


def accuracy_text(found: Mapping[str, Any]) -> str:
    """Return an accuracy with its confidence interval and the number of images."""
    low, high = found["interval_95"]
    return (
        f"{found['accuracy']:.1%} ({found['num_correct']:,} of {plural(found['num_images'], 'image')} correct; "
        f"95% interval {low:.1%} to {high:.1%})"
    )


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
