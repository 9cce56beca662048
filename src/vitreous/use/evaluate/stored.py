"""Finished run -> Evaluation of its held-out images, from the files that the run wrote."""

from typing import Any

from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.evaluation import Evaluation, count_classes
from vitreous.use.predict.table import read_held_out


def stored_evaluation(folder: RunFolder, metadata: dict[str, Any], split: str) -> Evaluation:
    """Return the evaluation of the images in `predictions.csv`, which are those of `split`.

    Raises:
        DamagedFileError: A column of the file is missing.
    """
    classes = tuple(metadata["classes"])
    index = {name: number for number, name in enumerate(classes)}
    rows = read_held_out(folder.predictions)
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
