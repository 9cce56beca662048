"""A request for predictions -> a folder of tables, its parts, with `manifest.json`: what was asked for, what is done.

    manifest.json        the request, and for each finished part the number of its images and of unreadable ones
    part-000000.csv      the first images; all parts but the last one have the same number of images
    part-000001.csv      …

A part is listed in the manifest only after its file is complete, so a second call computes all others. It must be the
same request: the model, the images and the options are compared with those of the manifest.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vitreous import atomic
from vitreous.errors import RunError
from vitreous.paths import sha256
from vitreous.tensor_file import parsing
from vitreous.training.folder.access import exclusive
from vitreous.training.folder.records import Listener
from vitreous.use.batch.job import Job, Part
from vitreous.use.predict.inputs import MOST_LISTED
from vitreous.use.predict.predictor import BATCH_SIZE
from vitreous.version import __version__
from vitreous.wording import printable

MANIFEST = "manifest.json"
_FEWEST, _MOST, _USUAL_PARTS = 4, 128, 1000
"""Batches of a part, and the number of parts of larger data sets: few enough for a folder, enough to share them out."""
_MOST_VALUES = 2_000_000
"""Probabilities in a part; as Python numbers they take 64 MB."""
_WAY_OUT = "choose another folder, or delete it to start again"


def part_size(num_images: int, num_classes: int) -> int:
    """Return the number of images in each part but the last one: whole batches, 256 to 8,192 images.

    It depends on nothing else, so that a request can be continued by another engine or on another machine.
    """
    most = max(_FEWEST, min(_MOST, _MOST_VALUES // num_classes // BATCH_SIZE))
    return BATCH_SIZE * max(_FEWEST, min(most, -(-num_images // (BATCH_SIZE * _USUAL_PARTS))))


@dataclass(frozen=True)
class PartFolder:
    """A folder of parts that this process writes to.

    Attributes:
        path: The folder.
        manifest: The content of its `manifest.json`.
    """

    path: Path
    manifest: dict[str, Any]

    @classmethod
    @contextmanager
    def opened(cls, path: Path, request: Mapping[str, Any], listener: Listener) -> Iterator[Self]:
        """Create a folder for a request, or open that of the same request, until the context ends.

        Raises:
            RunError: It is a file, has other content or that of another request, or another process writes to it.
            SaveError: It cannot be created.
            DamagedFileError: Its manifest is not valid.
        """
        manifest = path / MANIFEST
        if not manifest.is_file() and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"out={path}: exists and has no {MANIFEST}; name a new or empty folder")
        atomic.create_folder(path, parents=False)
        with exclusive(path, listener, f"out={path}: another process is writing to it"):
            # Only now: another process may have written the manifest meanwhile.
            new = {"vitreous": __version__, **request, "done": {}}
            content = _read(manifest, request) if manifest.is_file() else new
            for unfinished in path.glob(".*.tmp"):  # of a process that was killed
                unfinished.unlink(missing_ok=True)
            folder = cls(path, content)
            folder._save()
            yield folder

    @property
    def num_parts(self) -> int:
        """Number of parts, finished or not."""
        return -(-self.manifest["images"]["count"] // self.manifest["part_size"])

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not finished or have lost their file."""
        done = self.manifest["done"]
        return [
            n for n in range(self.num_parts) if self._name(n) not in done or not (self.path / self._name(n)).exists()
        ]

    def images_of(self, number: int) -> range:
        """Return the numbers of the images of a part."""
        size = self.manifest["part_size"]
        return range(number * size, min((number + 1) * size, self.manifest["images"]["count"]))

    def add(self, number: int, part: Part) -> None:
        """Write a part and list it. Raises SaveError if that fails."""
        atomic.write_bytes(self.path / self._name(number), part.content)
        facts = {"images": part.num_images, "unreadable": part.num_unreadable, "reasons": list(part.reasons)}
        self.manifest["done"][self._name(number)] = facts
        self._save()

    def unreadable(self) -> tuple[int, list[str]]:
        """Return how many images of all finished parts could not be read, and why for the first of them."""
        done = [facts for _, facts in sorted(self.manifest["done"].items())]
        return sum(facts["unreadable"] for facts in done), [r for facts in done for r in facts["reasons"]][:MOST_LISTED]

    def _name(self, number: int) -> str:
        return f"part-{number:06d}.{self.manifest['options']['format']}"

    def _save(self) -> None:
        atomic.write_text(self.path / MANIFEST, json.dumps(self.manifest, ensure_ascii=False, indent=1))


def make_request(job: Job, images: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says about a request: two requests with the same description get the same tables.

    Args:
        job: The model, with its files.
        images: Count and hash of the images.
        options: What the user asks for.
    """
    file = job.predictor.file
    names = [] if file is None else [file.name, *(["familiarity.safetensors"] if "unfamiliar" in job.extra else [])]
    limits = job.decide.limits
    return {
        "model": {name: sha256(file.parent / name) for name in names} if file is not None else {},
        "images": dict(images),
        "options": {
            **options,
            "format": job.suffix.removeprefix("."),
            "limits": None if limits is None else limits.tolist(),
            "confidence": job.decide.confidence,
        },
        "part_size": part_size(images["count"], len(job.predictor.classes)),
    }


def _read(path: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Read a manifest. Raises RunError if it is that of another request, DamagedFileError if it is not valid."""
    with parsing(path, _WAY_OUT):
        content = json.loads(path.read_bytes())
        stored = {what: dict(content[what]) for what in ("model", "images", "options")}
        done = {
            str(name): {"images": int(f["images"]), "unreadable": int(f["unreadable"]), "reasons": list(f["reasons"])}
            for name, f in content["done"].items()
        }
        size = content["part_size"]
        if size not in range(BATCH_SIZE, BATCH_SIZE * _MOST + 1, BATCH_SIZE):
            raise ValueError(f"part_size={size}: not a number of whole batches")
    for what, before in stored.items():
        now = request[what]
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if changed:
            raise RunError(f"out={path.parent}: {_difference(what, changed[0], before, now)}; {_WAY_OUT}")
    return {**content, "done": done}


def _difference(what: str, name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return how a request differs from that of the manifest, as a clause."""
    if what == "model":
        return f"its parts are from another model ({printable(name)} has changed)"
    if what == "options":
        return (
            f"its parts were made with {name}={printable(str(before.get(name)))}, not {printable(str(now.get(name)))}"
        )
    if before.get("count") == now["count"]:
        return "its parts are of other images (a name, the order or a tar file has changed)"
    return f"its parts are of {printable(str(before.get('count')))} images, not {now['count']:,}"
