"""Finished run -> Evaluation of its held-out images, from the files that the run wrote."""

from typing import Any

from vitreous.errors import DamagedFileError
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.evaluation import Evaluation, count_classes
from vitreous.use.predict.table import read_held_out
from vitreous.wording import plural


def stored_evaluation(folder: RunFolder, metadata: dict[str, Any], split: str) -> Evaluation:
    """Return the evaluation of the images in `predictions.csv`, which are those of `split`.

    Raises:
        DamagedFileError: A column of the file is missing, or it has another number of rows.
    """
    classes, num_images = tuple(metadata["classes"]), metadata["metrics"][split]["num_images"]
    index = {name: number for number, name in enumerate(classes)}
    rows = read_held_out(folder.predictions)
    if len(rows) != num_images:
        num_rows, tested = plural(len(rows), "row"), plural(num_images, "image")
        raise DamagedFileError(f"{folder.predictions}: has {num_rows}, but the run tested {tested}; train again")
    return count_classes(
        data=f"the {'validation' if split == 'val' else split} images of {metadata['data']}",
        score=stored_score(metadata["metrics"][split]),
        true=[index[row.true] for row in rows],
        predicted=[index[row.predicted] for row in rows],
        classes=classes,
    )


def stored_score(metrics: dict[str, Any]) -> Score:
    """Return the score that a run stored for a split."""
    return Score(metrics["num_images"], metrics["num_correct"], metrics["loss"])
