"""Problems of a data set -> Findings, ranked by severity, each with advice."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vitreous.data.doctor.summaries import ImageSummaries
from vitreous.data.sources import Source

Severity = Literal["fault", "warning", "note"]
"""How bad a finding is, worst first."""


@dataclass(frozen=True)
class Sample:
    """One image that a finding is about: its index in the source, its path or name, its class and its split.

    The split may be empty; the remark says what is special about the image, e.g. its size.
    """

    index: int
    where: str
    label: str
    split: str
    remark: str = ""


@dataclass(frozen=True)
class Finding:
    """One problem of a data set.

    Attributes:
        kind: Identifier for programs, e.g. `near-copies`.
        severity: `fault` makes results wrong, `warning` may harm them, `note` is worth knowing.
        title: What was found, with numbers.
        detail: One sentence that explains it; may be empty.
        advice: One sentence that says what to do.
        share: Share of all images that it concerns, in (0, 1].
        samples: The images, in groups: copies of one image form a group, and every other image its own group.
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
        """Title, detail and advice in one line."""
        return " ".join(part for part in (f"{self.title}.", self.detail, self.advice) if part)


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings by severity, and those of equal severity by the share of images that they concern."""
    order = get_args(Severity)
    return tuple(sorted(findings, key=lambda finding: (order.index(finding.severity), -finding.share)))


@dataclass(frozen=True, eq=False)
class Namer:
    """Positions in the summaries -> samples with the path, class and split of each image."""

    source: Source
    summaries: ImageSummaries

    def sample(self, position: int, remark: str = "") -> Sample:
        """Return the image at a position."""
        index, label = int(self.summaries.indices[position]), int(self.summaries.labels[position])
        split = str(self.summaries.splits[position])
        return Sample(index, self.source.describe(index), self.source.classes[label], split, remark)

    def singles(self, positions: Iterable[int]) -> tuple[tuple[Sample, ...], ...]:
        """Return the images at these positions, each as its own group."""
        return tuple((self.sample(int(position)),) for position in positions)

    def groups(self, groups: Iterable[Sequence[int] | NDArray[np.int64]]) -> tuple[tuple[Sample, ...], ...]:
        """Return the images at these positions, grouped as given."""
        return tuple(tuple(self.sample(int(position)) for position in group) for group in groups)

    def unreadable(self) -> tuple[tuple[Sample, ...], ...]:
        """Return the images that cannot be decoded, with the reason as remark."""
        source = self.source
        return tuple(
            (Sample(index, source.describe(index), source.classes[int(source.labels[index])], "", reason),)
            for index, reason in self.summaries.unreadable
        )

    def share(self, count: int) -> float:
        """Return `count` as a share of all images, including those that cannot be decoded."""
        return count / max(len(self.source), 1)
