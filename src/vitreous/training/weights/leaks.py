"""Weights that a run starts or learns from, its data -> notes on held-out images that they were trained on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vitreous.data.survey.facts import Survey
from vitreous.training.folder.images import splits_in_run
from vitreous.wording import plural


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
