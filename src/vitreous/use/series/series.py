"""Series folder -> Series: runs that differ by fold or seed, and their joint accuracy."""

from pathlib import Path
from typing import TYPE_CHECKING

from vitreous.paths import as_path
from vitreous.use.run import Run

if TYPE_CHECKING:
    from vitreous.use.series.summary import Summary


class Series:
    """Runs that differ only by fold or seed.

    Raises:
        NotARunError: The path is not a series.

    Example:
        >>> import vitreous as vt
        >>> series = vt.train("photos/", folds=5)  # doctest: +SKIP
        >>> series.accuracy, [run.accuracy for run in series.runs]  # doctest: +SKIP
        (0.91, [0.9, 0.93, 0.9, 0.91, 0.91])
    """

    def __init__(self, path: str | Path) -> None:
        from vitreous.training.folder.run_folder import SeriesFolder
        from vitreous.training.series import members, read_series

        self.path = as_path("series", path)
        self._folders = [self.path / member.name for member in members(read_series(SeriesFolder(self.path)))]

    def __repr__(self) -> str:
        return f"Series({str(self.path)!r})"

    def _repr_markdown_(self) -> str:
        """Show the results of all runs in a notebook."""
        from vitreous.use.series.page import as_markdown

        return as_markdown(self.summary)

    @property
    def runs(self) -> list[Run]:
        """The finished runs, in the order of training."""
        return [Run(folder) for folder in self._folders if (folder / "model.safetensors").is_file()]

    @property
    def accuracy(self) -> float:
        """Accuracy over all images, each tested once, averaged over seeds; NaN if no seed has all its folds."""
        return self.summary.accuracy

    @property
    def summary(self) -> "Summary":
        """Score of every run, with spread and confidence intervals."""
        from vitreous.training.folder.run_folder import SeriesFolder
        from vitreous.use.series.summary import summarize_series

        return summarize_series(SeriesFolder(self.path))
