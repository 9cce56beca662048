"""Names of all tensors in a file -> the part of them that forms a Vision Transformer, and what was left out."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vitreous.errors import ConfigError, DamagedFileError, nearest
from vitreous.model.weights.formats import FORMATS
from vitreous.model.weights.reading.files import WeightFile, canonical_names
from vitreous.model.weights.table import Format, Shapes
from vitreous.wording import plural, printable, printable_list

CHOICES = ("auto", "raw", "ema")
"""Values of `weights`; the name of a part of the file is another one."""
_PATCHES = re.compile(r"(embed|conv1|conv_proj)[^/]*[./](weight|kernel)$")
"""Matches the kernel of the patch projection in every format; it may match other names too."""
_AVERAGED = re.compile(r"(^|[._/])(\w+_)?(ema|teacher|target|momentum|swa|averaged?|avg|shadow)(_\w+)?([._/]|$)", re.I)
"""Matches the names under which training scripts keep an average of the weights, or a teacher that is one."""
_MAX_ROOTS = 1000


@dataclass(frozen=True)
class Part:
    """A Vision Transformer in a file.

    Attributes:
        root: Prefix of the names of all its tensors; empty if the file has nothing else.
        format_: Its format.
        is_averaged: True if its name says that it is an average of weights over a training run, or a teacher.
    """

    root: str
    format_: Format
    is_averaged: bool

    @property
    def shown(self) -> str:
        """Name of the part for the user."""
        return self.root.rstrip("./") or "the whole file"

    def names_in(self, stored: Iterable[str]) -> dict[str, str]:
        """Map the current name of each of its tensors to its name in the file."""
        inside = canonical_names(
            (name.removeprefix(self.root) for name in stored if name.startswith(self.root)), self.format_.renames
        )
        return {name: self.root + old for name, old in inside.items()}


def choose_part(file: WeightFile, weights: str) -> tuple[Part, list[str]]:
    """Choose the Vision Transformer to read.

    `weights=auto` takes averaged weights or a teacher if there are any, `ema` insists on them, and `raw` refuses them;
    another text is the name of a part.

    Returns:
        The part, and the names of the other Vision Transformers in the file.

    Raises:
        DamagedFileError: The file has no known Vision Transformer.
        ConfigError: The file does not have what is asked for, or several parts that fit equally well.
    """
    parts = find_parts(file)
    names = [part.shown for part in parts]
    if weights in CHOICES:
        fitting = [part for part in parts if weights == "auto" or part.is_averaged == (weights == "ema")]
        averaged = [part for part in fitting if part.is_averaged]
        fitting = averaged or fitting
    else:
        fitting = [part for part in parts if part.shown == weights.rstrip(".")]
    if not fitting:
        kinds = printable_list(names)
        way_out = "use auto, or one of these names" if weights in CHOICES else nearest(weights, [*CHOICES, *names])
        raise ConfigError(f"weights={printable(weights)}: {file.path} has only {kinds}; {way_out}")
    if len(fitting) > 1:
        shown = [part.shown for part in fitting]
        raise ConfigError(
            f"weights={weights}: {file.path} has several Vision Transformers ({printable_list(shown)}); choose one, "
            f"e.g. weights={printable(shown[0])}"
        )
    return fitting[0], [name for name, part in zip(names, parts, strict=True) if part is not fitting[0]]


def find_parts(file: WeightFile) -> list[Part]:
    """Find every Vision Transformer in a file, by names and shapes. Raises DamagedFileError if there is none."""
    found: list[Part] = []
    for root in _roots(file.shapes):
        if any(root.startswith(part.root) for part in found):
            continue  # inside a model that is already known
        shapes = {name.removeprefix(root): shape for name, shape in file.shapes.items() if name.startswith(root)}
        format_ = recognize(shapes)
        if format_ is not None:
            has_counter = f"{root.removesuffix('module.')}n_averaged" in file.shapes  # of torch.optim.swa_utils
            found.append(Part(root, format_, has_counter or _AVERAGED.search(root) is not None))
    if not found:
        known = ", ".join(dict.fromkeys(format_.name.split()[0] for format_ in FORMATS))
        raise DamagedFileError(
            f"{file.path}: has {plural(len(file.shapes), 'tensor')} ({printable_list(file.shapes, 4)}) with names of "
            f"no known Vision Transformer; use a file in one of these formats: vitreous, {known}"
        )
    return found


def others(names: Iterable[str], root: str) -> list[str]:
    """Summarize tensors that are not read, by the first part of their name below what they share with the root."""
    counts: Counter[str] = Counter()
    for name in names:
        prefix = ""
        while root.startswith(prefix) and prefix != name:
            separator = re.compile(r"[./]").search(name, len(prefix))
            prefix = name if separator is None else name[: separator.end()]
        counts[prefix.rstrip("./")] += 1
    return [f"{printable(name)} ({plural(count, 'tensor')})" for name, count in sorted(counts.items())]


def _roots(names: Iterable[str]) -> Sequence[str]:
    """List the prefixes of names that could be those of a model, shortest first."""
    roots = {""}
    for name in names:
        if _PATCHES.search(name) and len(roots) < _MAX_ROOTS:
            roots |= {name[: dot.end()] for dot in re.finditer(r"\.", name)}
    return sorted(roots, key=lambda root: (len(root), root))


def recognize(shapes: Shapes) -> Format | None:
    """Return the format that has these names and shapes; None if it is not known."""
    for format_ in FORMATS:
        names = canonical_names(shapes, format_.renames)
        if format_.recognizes(frozenset(names)) and format_.fits(
            {name: shapes[stored] for name, stored in names.items()}
        ):
            return format_
    return None
