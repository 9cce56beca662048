"""Runs and exported files, photos -> how fast each of them answers, and how often it answers like the first one."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import ConfigError, DamagedFileError, DataError, DecodeError, VitreousError
from vitreous.paths import expanded
from vitreous.training.folder.records import Listener, ignore
from vitreous.use.export.openvino_ir import open_ir
from vitreous.use.export.photos import decoded_pixels
from vitreous.use.export.proof import Answer, Photo, Photos, Proof, prove, python_answer
from vitreous.use.export.targets import TARGETS, open_onnx, open_program
from vitreous.use.predict.inputs import list_images
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import plural, printable_error

MOST_IMAGES = 200
BATCH_SIZE = 32
_GENERATED_SIZE = (480, 640)
_OPENED_BY = {"onnx": open_onnx, "openvino": open_ir, "torch": open_program}


@dataclass(frozen=True, eq=False)
class Model:
    """A run or an exported file that is ready to answer.

    Attributes:
        answer: How it answers for photos of equal size.
        classes: Its classes, in the order of the probabilities.
        preprocess: Size and channels of its images.
        thresholds: Probability from which each label is predicted; None if a photo has one class.
        size_bytes: Size of the file, or of the files in the folder.
    """

    answer: Answer
    classes: tuple[str, ...]
    preprocess: Preprocess
    thresholds: tuple[float, ...] | None
    size_bytes: int


def benchmark(
    paths: Sequence[Path],
    data: Path | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    trust: bool = False,
    listener: Listener = ignore,
) -> dict[str, Proof]:
    """Measure the speed of runs, model files and exported files on the same photos, in turns.

    All run on the CPU, and times include resizing.

    Args:
        paths: Run folders, `model.safetensors` files, and what `vitreous export` wrote, except for pages.
        data: Photo, or folder of photos, of which up to 200 are taken; None generates photos of 640x480 px.
        batch_size: Number of photos per batch when throughput is measured.
        trust: Open programs of torch, which may contain code.
        listener: Receives the progress.

    Returns:
        What was measured of each, by its path, in the order of `paths`. Answers are compared with those of the first
        one; the accuracy is not measured.

    Raises:
        ConfigError: A path is given twice, is a page or a program that is not trusted, or the models differ in their
            classes or channels.
        NotARunError: There is no model at a path.
        DamagedFileError: A file cannot be opened, or does not say what it classifies.
        MissingDependencyError: A package is missing.
        DataError: There are no photos that can be decoded.
    """
    names = [str(path) for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name}: is given twice; give each model once")
    models = {str(path): _opened(expanded(path), trust) for path in paths}
    first, *others = models
    for name in others:
        for what, a, b in (
            ("classes", models[first].classes, models[name].classes),
            ("channels", models[first].preprocess.in_chans, models[name].preprocess.in_chans),
        ):
            if a != b:
                raise ConfigError(f"{name}: has other {what} than {first}; compare models of the same images")
    sides = np.max([model.preprocess.img_size for model in models.values()], axis=0).tolist()
    settings = replace(models[first].preprocess, img_size=tuple(sides))
    files = None if data is None else _chosen(data)
    pixels = _generated(settings.in_chans) if files is None else _decoded(files, settings, listener)
    # Labels are not known, and the accuracy is not used.
    label = 0 if models[first].thresholds is None else np.zeros(len(models[first].classes), dtype=bool)
    total = MOST_IMAGES if files is None else len(files)
    photos = _reported((Photo(name, photo, label) for name, photo in pixels), total, listener)
    answers = {str(number): models[name].answer for number, name in enumerate(others)}
    tried = prove(answers, models[first].answer, photos, models[first].thresholds, batch_size).values()
    return {
        name: replace(proof, size_bytes=model.size_bytes)
        for (name, model), proof in zip(models.items(), tried, strict=True)
    }


def _opened(path: Path, trust: bool) -> Model:
    """Open a run or an exported file."""
    is_ir = path.suffix == ".xml" or (path / "openvino_model.xml").is_file()
    to = "openvino" if is_ir else {".onnx": "onnx", ".pt2": "torch", ".html": "html"}.get(path.suffix)
    if to is None or not path.exists():
        predictor = Predictor.load(path)
        size = 0 if predictor.file is None else predictor.file.stat().st_size
        return Model(python_answer(predictor), predictor.classes, predictor.preprocess, predictor.thresholds, size)
    if to == "html":
        raise ConfigError(f"{path}: a page runs in a browser, not here; leave it out")
    if to == "torch" and not trust:
        raise ConfigError(f"{path}: may contain code, which PyTorch would run; add --trust if you made it")
    TARGETS[to].check_packages(to)
    try:
        answer, about = _OPENED_BY[to](path)
        values = {key: json.loads(about[key]) for key in ("classes", "preprocess", "thresholds")}
        known = tuple(map(str, values["classes"])), Preprocess.from_dict(values["preprocess"])
        thresholds = None if values["thresholds"] is None else tuple(map(float, values["thresholds"]))
    except VitreousError:
        raise
    except Exception as error:  # each runtime has its own types of errors
        raise DamagedFileError(
            f"{path}: cannot be opened ({printable_error(error)}); give a file that `vitreous export` wrote"
        ) from error
    files = path.iterdir() if path.is_dir() else [path, path.with_suffix(".bin")] if is_ir else [path]
    return Model(answer, *known, thresholds, sum(file.stat().st_size for file in files))


def _generated(channels: int) -> Iterator[tuple[str, Photos]]:
    """Yield photos of smooth random colors."""
    draw = torch.Generator().manual_seed(0)
    for number in range(MOST_IMAGES):
        colors = 255 * torch.rand((1, channels, 12, 16), generator=draw)
        photo = interpolate(colors, _GENERATED_SIZE, mode="bicubic").round().clamp(0, 255).to(torch.uint8)
        yield f"photo {number}", photo[0].permute(1, 2, 0).contiguous().numpy()


def _chosen(data: Path) -> list[Path]:
    """Return up to `MOST_IMAGES` image files, evenly from all of them."""
    files = list_images([data])
    return [files[place] for place in np.unique(np.linspace(0, len(files) - 1, MOST_IMAGES).astype(int)).tolist()]


def _decoded(files: Sequence[Path], settings: Preprocess, listener: Listener) -> Iterator[tuple[str, Photos]]:
    """Yield the photos that can be decoded, and report the others."""
    skipped = []
    for file in files:
        try:
            yield str(file), decoded_pixels(file, str(file), settings)
        except DecodeError as error:
            skipped.append((str(file), str(error).removeprefix(f"{file}: ")))
    if len(skipped) == len(files):
        count = plural(len(files), "image")
        raise DataError(f"{skipped[0][0]}: {skipped[0][1]}, like all of {count}; give photos that can be decoded")
    if skipped:
        listener("skipped", {"skipped": skipped})


def _reported(photos: Iterator[Photo], total: int, listener: Listener) -> Iterator[Photo]:
    for done, photo in enumerate(photos, start=1):
        yield photo
        listener("reading", {"what": "measuring", "done": done, "total": total})
