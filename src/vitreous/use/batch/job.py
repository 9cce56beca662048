"""What to do with each image -> Job, which can be sent to any process; some images -> Part, the table of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from vitreous.data.decoding.depth import Clipped
from vitreous.errors import ConfigError
from vitreous.processes import limit_cores
from vitreous.use.evaluate.sets.decide import Decisions
from vitreous.use.predict.inputs import MOST_LISTED
from vitreous.use.predict.listing import Named
from vitreous.use.predict.predictor import Predictor
from vitreous.use.predict.table import table_bytes
from vitreous.version import __version__


@dataclass(frozen=True)
class Part:
    """A finished table.

    Attributes:
        content: The bytes of its file.
        num_images: Number of its rows.
        num_unreadable: Number of images that could not be read.
        reasons: Why, for the first of them.
        clipped: Counts of values beyond the range of values.
    """

    content: bytes
    num_images: int
    num_unreadable: int
    reasons: tuple[str, ...]
    clipped: Clipped


@dataclass(frozen=True, eq=False)
class Job:
    """A model, and what to write about each image; complete in itself, so that other machines do not need the run.

    Attributes:
        predictor: The model, on the CPU until `begin`.
        decide: Adds sets and rejections to predictions.
        suffix: Suffix of the tables: .csv, .jsonl or .parquet.
        extra: Optional columns of the tables, the same for each part.
        version: The version of this package that made the job.
    """

    predictor: Predictor
    decide: Decisions
    suffix: str
    extra: tuple[str, ...]
    version: str = __version__

    @classmethod
    def of(cls, predictor: Predictor, decide: Decisions, suffix: str) -> Self:
        """Return a job, with all that the model needs from its run folder."""
        known = {
            "unfamiliar": predictor.familiarity is not None,
            "set": decide.limits is not None,
            "rejected": decide.confidence is not None,
        }
        return cls(predictor, decide, suffix, tuple(name for name, is_known in known.items() if is_known))

    def begin(self, device: str, cores: int) -> None:
        """Prepare this process: it computes on a device, and reads images with this number of cores.

        Raises:
            ConfigError: Another version of this package made the job.
        """
        if self.version != __version__:
            raise ConfigError(
                f"engine=ray: a worker has vitreous {__version__}, but this is {self.version}; install the same "
                "version on all machines"
            )
        limit_cores(cores)
        torch.set_num_threads(cores)
        self.predictor.model.to(device)

    def part(self, named: Sequence[Named]) -> Part:
        """Classify images, the same ones in the same batches as `Predictor.stream` would."""
        predictions = list(map(self.decide, self.predictor.stream_named(named)))
        reasons = [prediction.error for prediction in predictions if prediction.error]
        return Part(
            content=table_bytes(self.suffix, predictions, self.predictor.classes, self.extra),
            num_images=len(predictions),
            num_unreadable=len(reasons),
            reasons=tuple(reasons[:MOST_LISTED]),
            clipped=self.predictor.preprocess.scale.clipped.take(),
        )
