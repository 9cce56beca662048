"""What is wrong with a data set -> Findings, ranked, each with what to do about it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitreous.data.doctor.summaries import Looks
from vitreous.data.sources import Source

Severity = Literal["fault", "warning", "note"]

_WEIGHTS: dict[Severity, float] = {"fault": 100.0, "warning": 10.0, "note": 1.0}


@dataclass(frozen=True)
class Sample:
    """One image of a finding.

    Attributes:
        index: Its number in the source.
        where: A path or name, for people.
        label: Its class.
        split: `train`, `val`, `test`, or an empty text.
        remark: What is special about it.
    """

    index: int
    where: str
    label: str
    split: str
    remark: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth a look.

    Attributes:
        kind: For machines, e.g. `near-copies`.
        severity: `fault` makes results wrong, `warning` may harm them, `note` is worth knowing.
        title: What it is and how many.
        detail: One sentence more.
        advice: What to do, one sentence.
        share: Of all images, in (0, 1].
        samples: All of them, in groups that belong together: copies of one image, else one image a group.
    """

    kind: str
    severity: Severity
    title: str
    detail: str
    advice: str
    share: float
    samples: tuple[tuple[Sample, ...], ...] = ()

    @property
    def sentence(self) -> str:
        """Everything in one line."""
        return " ".join(part for part in (f"{self.title}.", self.detail, self.advice) if part)


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Worst first: severity times the square root of the share of images that it concerns."""
    return tuple(sorted(findings, key=lambda found: -_WEIGHTS[found.severity] * sqrt(found.share)))


@dataclass(frozen=True, eq=False)
class Namer:
    """Positions in looks -> samples that people can find."""

    source: Source
    looks: Looks

    def sample(self, position: int, remark: str = "") -> Sample:
        """The image at a position."""
        index, label = int(self.looks.indices[position]), int(self.looks.labels[position])
        split = str(self.looks.splits[position])
        return Sample(index, self.source.describe(index), self.source.classes[label], split, remark)

    def singles(self, positions: Iterable[int]) -> tuple[tuple[Sample, ...], ...]:
        """Each image for itself."""
        return tuple((self.sample(int(position)),) for position in positions)

    def groups(self, groups: Iterable[Sequence[int] | NDArray[np.int64]]) -> tuple[tuple[Sample, ...], ...]:
        """Images that belong together."""
        return tuple(tuple(self.sample(int(position)) for position in group) for group in groups)

    def unread(self) -> tuple[tuple[Sample, ...], ...]:
        """What does not decode, each with its reason."""
        source = self.source
        return tuple(
            (Sample(index, source.describe(index), source.classes[int(source.labels[index])], "", reason),)
            for index, reason in self.looks.unreadable
        )

    def share(self, count: int) -> float:
        """Of all images, those that do not decode included."""
        return count / max(len(self.source), 1)
