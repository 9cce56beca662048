"""The command line of a program in this folder -> its job; its predictions -> the file that transfer_peers.py reads.

The programs run in environments that have no vitreous. Each calls one tool as the documentation of the tool does.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMG_SIZE = 126
"""Side of the images in pixels, for every tool. Their examples use 224 px, at which timm does not finish one epoch of
3,068 photos in four minutes on two cores; at 126 px, which a plan of vitreous might choose, it trains for three."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The normalization that the weights were trained with."""


@dataclass(frozen=True)
class Job:
    """What a tool is asked to do.

    Attributes:
        photos: Folder with `train/`, `val/` and `test/`, which hold class folders.
        weights: Folder with the same weights in three formats: `hf/`, `timm/` and `meta.pth`.
        out: An empty folder for everything that the tool writes.
        epochs: How often to see each training image; a whole number unless the tool counts in steps.
        seconds: Wall-clock time that the whole process may take.
        seed: Seed of the tool.
        source: A checkout of the tool, for what its package does not contain; empty if it needs none.
    """

    photos: Path
    weights: Path
    out: Path
    epochs: float
    seconds: float
    seed: int
    source: str

    def files(self, split: str) -> list[Path]:
        """Return the images of a split, in the order of their paths."""
        return sorted(path for path in (self.photos / split).rglob("*") if path.is_file())

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in alphabetical order."""
        return sorted(path.name for path in (self.photos / "train").iterdir())

    def finish(self, predicted: dict[Path, str], settings: dict[str, Any]) -> None:
        """Write the predicted class of each validation and test image, and the settings that the tool ran with."""
        names = {path.relative_to(self.photos).as_posix(): label for path, label in predicted.items()}
        (self.out / "result.json").write_text(json.dumps({"predicted": names, "settings": settings}))


def read_job() -> Job:
    """Return the job that the first argument names, and make torchvision importable."""
    given = json.loads(Path(sys.argv[1]).read_text())
    job = Job(**given | {key: Path(given[key]) for key in ("photos", "weights", "out")})
    os.chdir(job.out)
    define_missing_operators()
    return job


def define_missing_operators() -> None:
    """Define the operators of torchvision's compiled part, so that it can be imported with a CPU build of torch."""
    global _library
    import torch

    if torch.version.cuda is None:
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_library: Any = None
"""Keeps the definitions alive."""
