"""A folder of runs that differ by fold or seed -> Series: the runs, and what they say together."""

from pathlib import Path
from typing import TYPE_CHECKING

from vitreous.use.run import Run

if TYPE_CHECKING:
    from vitreous.use.series.summary import Summary


class Series:
    """The runs of one request for several folds or seeds.

    Args:
        path: The folder of the series.

    Raises:
        NotARunError: There is no series at that path.

    Example:
        >>> import vitreous as vt
        >>> series = vt.train("photos/", folds=5)  # doctest: +SKIP
        >>> series.accuracy, [run.accuracy for run in series.runs]  # doctest: +SKIP
        (0.91, [0.9, 0.93, 0.9, 0.91, 0.91])
    """

    def __init__(self, path: str | Path) -> None:
        from vitreous.training.folder.run_folder import SeriesFolder
        from vitreous.training.series import members, read_series

        self.path = Path(path).expanduser()
        self._folders = [self.path / member.name for member in members(read_series(SeriesFolder(self.path)))]

    def __repr__(self) -> str:
        return f"Series({str(self.path)!r})"

    @property
    def runs(self) -> list[Run]:
        """The finished ones, in their order."""
        return [Run(folder) for folder in self._folders if (folder / "model.safetensors").is_file()]

    @property
    def accuracy(self) -> float:
        """Of all folds' images, each tested once; mean over seeds; NaN while neither is complete."""
        return self.summary.accuracy

    @property
    def summary(self) -> "Summary":
        """Every run, their spread, and intervals."""
        from vitreous.training.folder.run_folder import SeriesFolder
        from vitreous.use.series.summary import summarise_series

        return summarise_series(SeriesFolder(self.path))
