"""Weights of an earlier run, data -> the same images held out again, and notes on those that it was trained on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vitreous.data.survey.facts import Survey
from vitreous.recipe.files import read_config
from vitreous.recipe.plan import Choice
from vitreous.training.folder.images import splits_in_run
from vitreous.training.folder.run_folder import RunFolder
from vitreous.wording import plural


def inherited_splits(asked: Mapping[str, Any]) -> list[Choice]:
    """Return how the run in `train.pretrained` split its images, for the keys that the user did not set.

    The content of an image decides its split, so the test images of that run are test images again.
    """
    path = Path(asked.get("train.pretrained") or "")
    folder = RunFolder(path if path.is_dir() else path.parent)
    keys = ("test_ratio", "val_ratio", "split_seed")
    is_split_otherwise = any(asked.get(f"data.{key}") is not None for key in (*keys, "num_folds"))
    if not (asked.get("train.pretrained") and folder.config.is_file() and folder.model.is_file()) or is_split_otherwise:
        return []
    data = read_config(folder.config).data
    if data.num_folds or data.task == "unlabeled":  # nothing is held out of unlabeled images to test on
        return []
    reason = f"as in {path}, so that its test images stay test images"
    return [Choice(f"data.{key}", getattr(data, key), reason) for key in keys]


def leak_notes(asked: Mapping[str, Any], surveyed: Survey) -> Iterator[str]:
    """Yield a note for each run in `train.pretrained` and `objective.teacher` that trained on images held out here."""
    split = "test" if len(surveyed.indices["test"]) else "val"
    held_out = surveyed.digests[surveyed.indices[split]]
    for key in filter(asked.get, ("train.pretrained", "objective.teacher")):
        splits = splits_in_run(Path(asked[key]), held_out)
        num = 0 if splits is None else int((splits == "train").sum())
        if num:
            image = f"{'validation' if split == 'val' else split} image"
            yield (
                f"{key}={asked[key]}: was trained on {num:,} of the {plural(len(held_out), image)}, so their accuracy "
                "is optimistic; use weights of a run with the same test images"
            )
