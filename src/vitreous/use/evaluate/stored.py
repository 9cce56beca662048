"""Finished run -> Evaluation of its held-out images, from the files that the run wrote."""

from typing import Any

import numpy as np

from vitreous.data.label_sets import split_labels
from vitreous.errors import DamagedFileError
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.evaluation import Evaluation, count_classes
from vitreous.use.evaluate.multilabel import LabelEvaluation, score_each_label
from vitreous.use.evaluate.outputs import evaluate_outputs, outputs_of_run
from vitreous.use.predict.table import read_held_out
from vitreous.wording import plural


def stored_evaluation(folder: RunFolder, metadata: dict[str, Any], split: str) -> Evaluation | LabelEvaluation:
    """Return the evaluation of the images of `split`, from stored outputs; older runs have only `predictions.csv`.

    Raises:
        DamagedFileError: A column of the file is missing, or it has another number of rows.
    """
    classes, num_images = tuple(metadata["classes"]), metadata["metrics"][split]["num_images"]
    outputs = outputs_of_run(folder).get(split)
    if outputs is not None and len(outputs) == num_images:
        return evaluate_outputs(outputs)
    index = {name: number for number, name in enumerate(classes)}
    rows = read_held_out(folder.predictions)
    if len(rows) != num_images:
        num_rows, tested = plural(len(rows), "row"), plural(num_images, "image")
        raise DamagedFileError(f"{folder.predictions}: has {num_rows}, but the run tested {tested}; train again")
    data = f"the {'validation' if split == 'val' else split} images of {metadata['data']}"
    if metadata.get("task") == "multilabel":
        true = np.array([[name in split_labels(row.true) for name in classes] for row in rows])
        probabilities = np.array([row.probabilities for row in rows], dtype=np.float32)
        loss = metadata["metrics"][split]["loss"]
        return score_each_label(data, probabilities, true, loss, classes, metadata["thresholds"])
    numbers = ([index[row.true] for row in rows], [index[row.predicted] for row in rows])
    return count_classes(data, stored_score(metadata["metrics"][split]), *numbers, classes)


def stored_score(metrics: dict[str, Any]) -> Score:
    """Return the score that a run stored for a split."""
    return Score(metrics["num_images"], metrics["num_correct"], metrics["loss"])
