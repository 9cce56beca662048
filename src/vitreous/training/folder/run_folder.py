"""Path -> RunFolder: the names of all files of a run, which `training` writes and `use` reads."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Paths of the files of a run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The value of every key; `vitreous train --recipe` repeats the run from this file."""
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        """The choices of the planner, with reasons."""
        return self.path / "plan.md"

    @property
    def records(self) -> Path:
        """The events of the run, one JSON object per line."""
        return self.path / "records.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints from which the run can be resumed."""
        return self.path / "checkpoints"

    @property
    def first(self) -> Path:
        """The pretrained weights with a fitted head, before the first step; it may become the model."""
        return self.checkpoints / "first.safetensors"

    @property
    def best(self) -> Path:
        """The model with the lowest validation loss so far, if it is not the first one."""
        return self.checkpoints / "best.safetensors"

    @property
    def teacher(self) -> Path:
        """What a teacher gave before the first step: probabilities for the training images, or its fitted head."""
        return self.checkpoints / "teacher.safetensors"

    @property
    def model(self) -> Path:
        """The trained model with everything needed to use it; written when the run ends."""
        return self.path / "model.safetensors"

    @property
    def images(self) -> Path:
        """Hashes of the images of the run, by which `evaluate` recognizes them; see `training/folder/images.py`."""
        return self.path / "images.safetensors"

    @property
    def predictions(self) -> Path:
        """Predictions for the held-out images: path, true class, predicted class, probability of that class."""
        return self.path / "predictions.csv"

    @property
    def folds(self) -> "SeriesFolder":
        """The folds that show how certain the accuracy is, if few images tested the run; see `use/series/automatic`."""
        return SeriesFolder(self.path / "folds")

    @property
    def outputs(self) -> Path:
        """Logits and labels of the validation and test images; see `training/folder/outputs.py`."""
        return self.path / "outputs.safetensors"

    @property
    def familiarity(self) -> Path:
        """What training images look like to the model, by which `predict` flags images unlike them."""
        return self.path / "familiarity.safetensors"

    @property
    def example(self) -> Path:
        """One held-out image after preprocessing, as the model gets it; an array if it is neither gray nor color."""
        array = self.path / "example.npy"
        return array if array.is_file() else self.path / "example.png"

    @property
    def corrections(self) -> Path:
        """Copy of the file that corrected the data, if there is one; it is read instead of the original."""
        return self.path / "corrections.csv"

    @property
    def slices(self) -> Path:
        """Groups of held-out images and their accuracy; only if they were looked for."""
        return self.path / "slices.json"

    @property
    def shortcuts(self) -> Path:
        """Places that the model may use instead of the object; only if they were looked for."""
        return self.path / "shortcuts.json"

    @property
    def shortcuts_picture(self) -> Path:
        """Where relevance lies in the images of each class; written with `shortcuts`."""
        return self.path / "shortcuts.jpg"

    @property
    def robustness(self) -> Path:
        """Accuracy on changed photos, written by `vitreous evaluate --robustness`."""
        return self.path / "robustness.json"

    @property
    def report(self) -> Path:
        """The HTML report; its numbers are next to it in `report.json`."""
        return self.path / "report.html"

    @property
    def model_card(self) -> Path:
        """What the model is for, its scores and limits, as hubs of models read it."""
        return self.path / "MODEL_CARD.md"

    @property
    def anatomy(self) -> Path:
        """What the model has learned, written by `vitreous explain --model`; its pictures are next to it."""
        return self.path / "anatomy" / "anatomy.html"

    def find_preliminary(self) -> Path | None:
        """Return the best model of a run that is not finished; None if there is none yet."""
        return next((file for file in (self.best, self.first) if file.is_file()), None)

    def remove_preliminary(self) -> None:
        """Remove what only an unfinished run needs: the models that the final one replaces, and its teacher's part."""
        for file in (self.best, self.first, self.teacher):
            file.unlink(missing_ok=True)

    def clear_unstarted(self) -> None:
        """Remove the files of a process that ended before it wrote the configuration; keep all other files."""
        if self.path.is_dir() and not self.config.exists():
            self.records.unlink(missing_ok=True)
            self.corrections.unlink(missing_ok=True)
            for unfinished in self.path.glob(".*.tmp"):
                unfinished.unlink()
            if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
                self.checkpoints.rmdir()


@dataclass(frozen=True)
class SeriesFolder:
    """Paths of the files of a series of runs; each run has its own folder inside.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def series(self) -> Path:
        """The request; `vitreous train --resume` continues from it."""
        return self.path / "series.json"

    @property
    def recipe(self) -> Path:
        """A copy of the recipe file, if one was given."""
        return self.path / "recipe.yaml"

    @property
    def summary(self) -> Path:
        """The results as JSON."""
        return self.path / "summary.json"

    @property
    def page(self) -> Path:
        """The results as Markdown."""
        return self.path / "summary.md"

    def withdraw(self) -> None:
        """Remove the files of a series in which no run was started, and the folder if it is then empty."""
        self.series.unlink(missing_ok=True)
        self.recipe.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()
