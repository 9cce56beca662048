"""Path -> RunFolder: the names of all files of a run, which `training` writes and `use` reads."""

from dataclasses import dataclass
from pathlib import Path


class Inside:
    """A path inside a run folder or the folder of a series, as an attribute of either class."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "RunFolder | SeriesFolder", owner: type) -> Path:
        return folder.path / self._name


@dataclass(frozen=True)
class RunFolder:
    """Paths of the files of a run."""

    path: Path

    config = Inside("config.yaml")
    """The value of every key; `vitreous train --recipe` repeats the run from this file."""
    plan = Inside("plan.md")
    """The choices of the planner, with reasons."""
    records = Inside("records.jsonl")
    """The events of the run, one JSON object per line."""
    tracker = Inside("tracker-id.txt")
    """Under which id the experiment tracker of `train.logger` knows the run, if it is resumed."""
    checkpoints = Inside("checkpoints")
    """Folder of the checkpoints from which the run can be resumed."""
    first = Inside("checkpoints/first.safetensors")
    """The pretrained weights with a fitted head, before the first step; it may become the model."""
    best = Inside("checkpoints/best.safetensors")
    """The model with the lowest calibrated validation loss so far, if it is not the first one."""
    teacher = Inside("checkpoints/teacher.safetensors")
    """What a teacher gave before the first step: probabilities for the training images, or its fitted head."""
    model = Inside("model.safetensors")
    """The trained model with everything needed to use it; written when the run ends."""
    images = Inside("images.safetensors")
    """Hashes of the images of the run, by which `evaluate` recognizes them; see `training/folder/images.py`."""
    predictions = Inside("predictions.csv")
    """Predictions for the held-out images: path, true class, predicted class, probability of that class."""
    outputs = Inside("outputs.safetensors")
    """Logits and labels of the validation and test images; see `training/folder/outputs.py`."""
    pretraining = Inside("pretraining")
    """Folder of the stage that learns without labels, if the run has one: checkpoints, records, model."""
    reconstructions = Inside("reconstructions.jpg")
    """Images, what a model without labels sees of them, and what it makes of that; for masked images."""
    familiarity = Inside("familiarity.safetensors")
    """What training images look like to the model, by which `predict` flags images unlike them."""
    corrections = Inside("corrections.csv")
    """Copy of the file that corrected the data, if there is one; it is read instead of the original."""
    slices = Inside("slices.json")
    """Groups of held-out images and their accuracy; only if they were looked for."""
    shortcuts = Inside("shortcuts.json")
    """Places that the model may use instead of the object; only if they were looked for."""
    shortcuts_picture = Inside("shortcuts.jpg")
    """Where relevance lies in the images of each class; written with `shortcuts`."""
    robustness = Inside("robustness.json")
    """Accuracy on changed photos, written by `vitreous evaluate --robustness`."""
    agreement = Inside("agreement.json")
    """How close the rounded model in the report is to the original; see `use/export/agreement.py`."""
    exports = Inside("export.json")
    """How exported files compare with Python, by the name of the file; written by `vitreous export`."""
    report = Inside("report.html")
    """The HTML report; its numbers are next to it in `report.json`."""
    model_card = Inside("MODEL_CARD.md")
    """What the model is for, its scores and limits, as hubs of models read it."""
    anatomy = Inside("anatomy/anatomy.html")
    """What the model has learned, written by `vitreous explain --model`; its pictures are next to it."""

    @property
    def example(self) -> Path:
        """One held-out image after preprocessing, as the model gets it; an array if it is neither gray nor color."""
        array = self.path / "example.npy"
        return array if array.is_file() else self.path / "example.png"

    @property
    def folds(self) -> "SeriesFolder":
        """The folds that show how certain the accuracy is, if few images tested the run; see `use/series/automatic`."""
        return SeriesFolder(self.path / "folds")

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
    """Paths of the files of a series of runs; each run has its own folder inside."""

    path: Path

    series = Inside("series.json")
    """The request; `vitreous train --resume` continues from it."""
    recipe = Inside("recipe.yaml")
    """A copy of the recipe file, if one was given."""
    summary = Inside("summary.json")
    """The results as JSON."""
    page = Inside("summary.md")
    """The results as Markdown."""

    def withdraw(self) -> None:
        """Remove the files of a series in which no run was started, and the folder if it is then empty."""
        self.series.unlink(missing_ok=True)
        self.recipe.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()
