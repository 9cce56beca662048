"""Run folders, model files -> ServedModels by name, which are replaced when their files change."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import torch

from vitreous.errors import ConfigError, DecodeError, NotARunError
from vitreous.model.cost.count import count_flops
from vitreous.model.weights.reading import hub_names
from vitreous.paths import expanded, sha256
from vitreous.tensors import Pixels
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.sets.decide import decisions
from vitreous.use.explain.explainer import Explainer
from vitreous.use.explain.pictures.explanation import Explanation
from vitreous.use.predict.predictor import Prediction, Predictor, find_model
from vitreous.use.serve.bodies import Content, decoded

COVERAGE, _MAP_PX = 0.95, 640
_LEAST_FLOPS = 1_000_000_000
"""Of a batch that several threads compute; in a smaller one, they would wait for each other most of the time."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model with all that an answer needs. A new file makes a new one, so each request is answered by one model.

    The version is the beginning of the SHA-256 of the model file. `decide` adds the set of classes to a prediction;
    `without_sets` says why there are none.
    """

    name: str
    version: str
    predictor: Predictor
    decide: Callable[[Prediction], Prediction]
    without_sets: str

    @classmethod
    def load(cls, name: str, path: Path, device: torch.device | str = "cpu", coverage: float | None = None) -> Self:
        """Load a run or model file, and compute one batch, because the first one is slow.

        Sets contain the true class with probability `coverage`. None means 0.95, or no sets where the run cannot have
        them. Raises what `Predictor.load` and `decisions` do.
        """
        predictor, without_sets = Predictor.load(path, device), ""
        try:
            decide = decisions(path, predictor, COVERAGE if coverage is None else coverage, None, None)
        except (ConfigError, NotARunError) as error:
            if coverage is not None:
                raise
            decide, without_sets = decisions(path, predictor, None, None, None), str(error)
        version = sha256(find_model(path, or_best=True))[:12]
        model = cls(name, version, predictor, decide, without_sets)
        shape = (predictor.preprocess.in_chans, *predictor.preprocess.img_size)
        model.classify([("warm-up", torch.zeros(shape, dtype=torch.uint8))])
        return model

    def read(self, image: tuple[str, Content]) -> tuple[str, Pixels | str]:
        """Return the name and pixels of an image, or the reason why it cannot be read, which begins with its name."""
        name, _ = image
        try:
            return name, self.predictor.preprocess.pixels(decoded(image), where=name)
        except DecodeError as error:
            return name, str(error)

    def classify(self, images: Sequence[tuple[str, Pixels | str]]) -> list[Prediction]:
        """Classify what `read` returned, as one batch."""
        is_small = len(images) * self._flops < _LEAST_FLOPS
        with _one_thread() if is_small else nullcontext():
            predictions = list(map(self.decide, self.predictor.judge(*zip(*images, strict=True))))
        self.predictor.preprocess.scale.warn_of_clipped()
        return predictions

    @cached_property
    def _flops(self) -> int:
        return count_flops(self.predictor.model.config)

    def explain(self, images: Sequence[bytes], target: str | None) -> list[Explanation]:
        """Explain the score of the predicted class or of another one. Raises UnknownNameError for an unknown class."""
        return list(Explainer(self.predictor).explain(images, target=target))


def heat_map(explanation: Explanation) -> tuple[bytes, str]:
    """Return the photo with its relevance in color as PNG, and where that lies. Raises DecodeError if it is damaged."""
    png = io.BytesIO()
    explanation.pictures(_MAP_PX)[1].save(png, "PNG")
    return png.getvalue(), explanation.finding


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let the operations of this thread use no others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Models:
    """The served versions of each model by its name, the newest one first. Raises what `ServedModel.load` does.

    A new file at a path is a new version; up to `keep_versions` of them are kept.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        device: torch.device | str = "cpu",
        coverage: float | None = None,
        keep_versions: int = 1,
    ) -> None:
        self._paths, self._load = paths, partial(ServedModel.load, device=device, coverage=coverage)
        self._keep_versions = keep_versions
        self._stamps = {name: _stamp(path) for name, path in paths.items()}
        self.versions: dict[str, tuple[ServedModel, ...]] = {
            name: (self._load(name, path),) for name, path in paths.items()
        }

    def renew(self) -> Iterator[dict[str, Any]]:
        """Load the models whose files have changed, and yield what was done.

        The previous model answers until the new one is complete, and for good if that cannot be read. A request that
        has begun keeps the model with which it began. A run that is still being trained is served with its best model
        so far.
        """
        for name, path in self._paths.items():
            stamp, before = _stamp(path), self.versions[name]
            if stamp == self._stamps[name]:
                continue
            self._stamps[name] = stamp
            try:
                new = self._load(name, path)
            except Exception as error:  # whatever is wrong with it, the old one goes on
                yield {"event": "kept", "model": name, "version": before[0].version, "reason": str(error)}
                continue
            others = [served for served in before if served.version != new.version]
            self.versions[name] = (new, *others)[: self._keep_versions]
            if new.version != before[0].version:
                yield {"event": "replaced", "model": name, "version": new.version}


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Return run folders and `hf://` names by their last part, and model files elsewhere by theirs without suffix.

    Raises:
        NotARunError: There is no model at one of the paths.
        ConfigError: Two have the same name.
    """
    found: dict[str, Path] = {}
    for path in map(expanded, paths):
        file = find_model(path, or_best=True)
        is_lone = path.is_file() and file.name != RunFolder(path.parent).model.name
        name = file.stem if is_lone else (path.parent if path.is_file() else path).resolve().name
        name = hub_names.last_part(path) or name
        if name in found:
            raise ConfigError(f"run={path}: {found[name]} is called {name} too; rename one of the folders")
        found[name] = path
    return found


def _stamp(path: Path) -> tuple[object, ...]:
    """Return path, time, size and inode of each file that a model is read from; nothing for a commit on the hub."""
    if hub_names.name_in(path) is not None:  # it never changes, and to look it up may take a request to the hub
        return ()
    try:
        folder = RunFolder((file := find_model(path, or_best=True)).parent)
        found = [(each, each.stat()) for each in (file, folder.familiarity, folder.outputs) if each.is_file()]
    except (NotARunError, OSError):
        return ()
    return tuple((each, stat.st_mtime_ns, stat.st_size, stat.st_ino) for each, stat in found)
