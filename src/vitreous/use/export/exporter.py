"""Run, format -> a file that gives the run's answers, kept only if it does so on held-out photos."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from vitreous import atomic
from vitreous.data.sources import Source
from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.weights.reading import hub_names
from vitreous.paths import expanded
from vitreous.ranges import Interval, check_value, rule_of
from vitreous.tensor_file import parsing
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.export.description import describe
from vitreous.use.export.openvino_ir import smaller_ir
from vitreous.use.export.page.pack import check_images
from vitreous.use.export.page.runtime import WebRuntime, read_runtime, runtime_page
from vitreous.use.export.photos import draw_photos, find_photos
from vitreous.use.export.proof import PYTHON, Answer, Photos, Proof, prove, python_answer
from vitreous.use.export.quantize import quantized, rounded
from vitreous.use.export.scratch import full_disk_explained
from vitreous.use.export.snippet import snippets
from vitreous.use.export.targets import TARGETS, Target, silent
from vitreous.use.predict.predictor import Predictor
from vitreous.use.predict.table import check_table_path

MOST_IMAGES, MOST_JUDGED = 200, 2_000
"""Photos that are compared, and those on which a drop in accuracy is measured."""
MAX_DROP = 1.0
"""Points of accuracy that a smaller precision may cost, unless another number is asked for."""
_SMALLER: Mapping[str, Callable[..., Mapping[str, Answer]]] = {"onnx": quantized, "openvino": smaller_ir}
"""What writes the files of smaller precisions next to one of float32; OpenVINO has one without photos, bfloat16."""
_CALIBRATION_IMAGES = 64
_LEAST_SAME_FLAGS = 0.95
"""Share of photos that weights of 8 bits must flag like Python, or not, as unlike the training images."""
_MOST_PERCENTILE = 0.05
"""Difference of a percentile from Python's, as a share: the distance of two values among 19 images, the fewest."""


@dataclass(frozen=True)
class Export:
    """A file or folder that was written and compared with Python.

    Attributes:
        path: The file or folder.
        to: Its format.
        data: The photos on which it was compared.
        is_own: They belong to the data of the run.
        variant: Which of the tried files it is: `float32`, `bfloat16`, `int8-dynamic` or `int8-static`; `int8` in a
            page, `int8-weights` with a runtime. OpenVINO has `int8` and `int8-bfloat16`, by the precision of the
            operations that are not in 8 bits.
        tried: The proof of each of them, by name, after that of `Python`, the original model.
        snippets: Programs that classify a photo with the file, by language, one of `LANGUAGES`; none for a page.
    """

    path: Path
    to: str
    data: str
    is_own: bool
    variant: str
    tried: Mapping[str, Proof]
    snippets: Mapping[str, str]

    @property
    def snippet(self) -> str:
        """The program in Python; empty for a page."""
        return self.snippets.get("python", "")

    @property
    def proof(self) -> Proof:
        """The proof of the file itself."""
        return self.tried[self.variant]

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain values for JSON."""
        return asdict(self) | {"path": str(self.path)}


def export(
    run: Path,
    to: str = "onnx",
    out: Path | None = None,
    *,
    data: str | Source | None = None,
    int8: bool = False,
    max_drop: float | None = None,
    runtime: str | Path | None = None,
    listener: Listener = ignore,
) -> Export:
    """Write a run in a format that does not need vitreous, and compare it with Python on held-out photos.

    A file takes the gray levels of decoded photos of any size and returns calibrated probabilities. A folder is opened
    by its library, which prepares photos in its own way. The comparison is added to `export.json` in the run folder.

    Arguments and errors are those of `Run.export`. `run` may be a model file or `hf://organization/name` if `data` is
    given. For OpenVINO, bfloat16 is tried too if the processor supports it, with or without `int8`.

    Raises:
        NotARunError: There is no model at `run`.
        SaveError: The disk is full.
    """
    run = expanded(run)
    target, path = _checked(run, to, out, int8, max_drop, runtime)
    predictor = Predictor.load(run)
    web = _opened(runtime, predictor)
    images = find_photos(run, predictor, data, listener)
    described = describe(predictor, RunFolder(run), path.stem if TARGETS[to].suffix else path.name)
    with tempfile.TemporaryDirectory(prefix="vitreous-export-") as scratch, full_disk_explained(scratch):
        listener("estimate", {"text": f"writing {path.name}, which may take a minute"})
        written = Path(scratch) / f"{target.variant}{target.suffix}"
        answers = {target.variant: target.write(predictor, written, described)}
        photos = _calibration_photos(run, predictor, listener) if int8 else None
        answers |= _smaller(to, written, described, photos, web)
        drawn = draw_photos(images, predictor, MOST_IMAGES if len(answers) == 1 else MOST_JUDGED, listener)
        tried = prove(answers, python_answer(predictor, predictor.familiarity), drawn, predictor.thresholds)
        chosen = _judged(to, target, tried, MAX_DROP if max_drop is None else max_drop)
        kept = written.with_stem(chosen)
        if web is not None:
            kept.write_bytes(runtime_page(predictor, path.stem, kept.read_bytes(), web))
        for name in answers if web is None else (chosen,):  # only one page is written
            tried[name] = replace(tried[name], size_bytes=_size(written.with_stem(name)))
        _place(kept, path)
    found = Export(path, to, images.name, images.are_own, chosen, tried, snippets(path, to, described))
    _note(RunFolder(run), found)
    return found


def read_exports(folder: RunFolder) -> dict[str, Any]:
    """Return what was measured of each exported file, by its name. DamagedFileError if `export.json` was altered."""
    if not folder.exports.is_file():
        return {}
    with parsing(folder.exports, "delete it, and export again"):
        return dict(json.loads(folder.exports.read_text("utf-8")))


def _checked(
    run: Path, to: str, out: Path | None, int8: bool, max_drop: float | None, runtime: str | Path | None
) -> tuple[Target, Path]:
    """Return the format in which the model is written, and the file to write, if the request makes sense."""
    if to not in TARGETS:
        raise UnknownNameError(f"to={to}: no such format; {nearest(to, TARGETS)}")
    target, suffix = TARGETS[to if runtime is None else "onnx"], TARGETS[to].suffix
    if runtime is not None and to != "html":
        raise ConfigError(f"runtime={runtime}: is for --to html, not {to}; leave it out, or use --to html")
    if int8 and to not in _SMALLER:
        raise ConfigError(
            f"int8={int8}: is for --to {' and '.join(_SMALLER)}, not {to}; leave it out, or use --to onnx"
        )
    if max_drop is not None and not int8 and to != "openvino" and runtime is None:
        raise ConfigError(f"max_drop={max_drop}: is for weights of 8 bits; add --int8, or leave it out")
    if max_drop is not None:
        check_value("max_drop", max_drop, rule_of(Annotated[float, Interval("[0, 100]", "1 is usual, in points")]))
    target.check_packages(to)
    name = hub_names.last_part(run) or (run.resolve().name if run.is_dir() else run.stem)
    path = expanded(out) if out is not None else Path(f"{name}{TARGETS[to].ending}")
    if suffix:
        check_table_path(path, (suffix,), f"model{suffix}")
    elif not path.parent.is_dir():
        raise ConfigError(f"out={path}: the folder {path.parent} does not exist; create it first")
    if path.exists():
        raise ConfigError(f"out={path}: already exists; choose another name with --out")
    return target, path


def _smaller(
    to: str, written: Path, described: Mapping[str, Any], photos: Iterator[Photos] | None, web: WebRuntime | None
) -> Mapping[str, Answer]:
    """Write the model in smaller precisions, if they are to be tried, and return how they answer, by name."""
    with silent():
        if web is not None:
            return rounded(written, described)
        return _SMALLER[to](written, photos, described) if photos is not None or to == "openvino" else {}


def _calibration_photos(run: Path, predictor: Predictor, listener: Listener) -> Iterator[Photos]:
    """Return training photos, each as a batch."""
    training = find_photos(run, predictor, None, listener, "train")
    drawn = draw_photos(training, predictor, _CALIBRATION_IMAGES, listener)
    return (photo.pixels[None] for photo in drawn)


def _opened(runtime: str | Path | None, predictor: Predictor) -> WebRuntime | None:
    """Return the runtime of a page, if there is one. Raises ConfigError if a browser does not read the images."""
    if runtime is None:
        return None
    check_images(predictor.preprocess)
    return read_runtime(Path(runtime))


def _judged(to: str, target: Target, tried: Mapping[str, Proof], max_drop: float) -> str:
    """Return the fastest file whose accuracy drops by at most `max_drop` points; the first one always may be chosen.

    A page gets the last one, which is the smallest.

    Raises:
        ConfigError: The first file gives other answers than Python.
    """
    proof = tried[target.variant]
    if not proof.largest_difference <= target.tolerance:  # also if it is NaN
        raise ConfigError(
            f"to={to}: for {proof.worst}, a probability differs by {proof.largest_difference:.2g} from Python's "
            f"(at most {target.tolerance:g}), so no file was kept; use another format, or `vitreous predict`"
        )
    if proof.unfamiliar is not None and not proof.unfamiliar[1] <= _MOST_PERCENTILE:
        raise ConfigError(
            f"to={to}: a percentile of `unfamiliar` differs by {proof.unfamiliar[1]:.2g} from Python's "
            f"(at most {_MOST_PERCENTILE:g}), so no file was kept; use another format, or `vitreous predict`"
        )
    small = [name for name, proof in tried.items() if name not in (PYTHON, target.variant) and _fits(proof, max_drop)]
    fitting = [target.variant, *small]
    return fitting[-1] if to == "html" else min(fitting, key=lambda name: tried[name].latency_ms[0])


def _fits(proof: Proof, max_drop: float) -> bool:
    """Return True if a file with weights of 8 bits may be chosen."""
    num_same = proof.num_images if proof.unfamiliar is None else proof.unfamiliar[0]
    return 100 * proof.drop[2] <= max_drop and num_same >= _LEAST_SAME_FLAGS * proof.num_images


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")))


def _place(written: Path, path: Path) -> None:
    """Write a copy of a file or folder; it is complete or absent."""

    def fill(folder: Path) -> None:
        shutil.copytree(written, folder, dirs_exist_ok=True)

    if written.is_dir():
        atomic.write_folder(path, fill)
    else:
        atomic.write_bytes(path, written.read_bytes())


def _note(folder: RunFolder, found: Export) -> None:
    """Add the result to `export.json`, if the model is in a run folder."""
    if folder.config.is_file():
        measured = {name: value for name, value in found.as_dict().items() if name != "snippets"}
        atomic.write_json(folder.exports, {**read_exports(folder), found.path.name: measured})
