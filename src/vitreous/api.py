"""Python arguments -> a trained Run or a Series of runs; two of them -> which one is better."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from vitreous.errors import AssumptionWarning, ConfigError
from vitreous.paths import as_path
from vitreous.use.run import Run
from vitreous.use.series.series import Series
from vitreous.wording import printable_value

if TYPE_CHECKING:
    from vitreous.data.sources import Dataset
    from vitreous.training.folder.records import Listener
    from vitreous.training.request import TrainRequest
    from vitreous.use.embed.embeddings import Embeddings
    from vitreous.use.explain.pictures.explanation import Explanation
    from vitreous.use.series.compare import Comparison

# The functions here change nothing that belongs to the whole process. `vitreous.heap` sets the allocator and
# `vitreous.threads` an environment variable that child processes inherit: only the command line, whose process is our
# own, calls them.

_logger = logging.getLogger("vitreous")


class _Options(TypedDict, total=False):
    """Arguments of `train` that do not decide what it returns."""

    budget: str | float | None
    epochs: float | None
    model: str | None
    pretrained: str | Path | None
    teacher: str | Path | None
    task: str | None
    img_size: int | tuple[int, int] | None
    batch_size: int | None
    lr: float | None
    device: str | None
    seed: int | None
    recipe: str | None
    out: str | Path | None
    config: Mapping[str, Any] | None


@overload
def train(
    data: "str | Path | Dataset | None" = None, *, folds: int, seeds: int = 0, **options: Unpack[_Options]
) -> Series: ...
@overload
def train(data: "str | Path | Dataset | None" = None, *, seeds: int, **options: Unpack[_Options]) -> Series: ...
@overload
def train(data: "str | Path | Dataset | None" = None, *, resume: str | Path) -> Run | Series: ...
@overload
def train(data: "str | Path | Dataset | None" = None, **options: Unpack[_Options]) -> Run: ...
def train(
    data: "str | Path | Dataset | None" = None, *, budget: str | float | None = None, epochs: float | None = None,
    model: str | None = None, pretrained: str | Path | None = None, teacher: str | Path | None = None,
    task: str | None = None, img_size: int | tuple[int, int] | None = None, batch_size: int | None = None,
    lr: float | None = None,
    device: str | None = None, seed: int | None = None, folds: int = 0, seeds: int = 0, recipe: str | None = None,
    out: str | Path | None = None, resume: str | Path | None = None, config: Mapping[str, Any] | None = None,
) -> Run | Series:  # fmt: skip
    """Train a Vision Transformer on a folder of images or a named data set.

    In a notebook, the cell shows the progress. It is also logged to the logger `vitreous`;
    `logging.basicConfig(level="INFO")` shows it. On a CPU that other
    programs use too, call `vitreous.threads.let_threads_sleep()` before torch is imported, or training may be 10 times
    slower.

    Args:
        data: A folder of class folders, or one with `train/` and `val/` or `test/`; tar shards; a `.csv`, `.tsv` or
            `.parquet` table of paths and labels; `digits`, `mnist`, `fashion-mnist`, `cifar10`, `cifar100`;
            `hf://organization/name`; a `torch.utils.data.Dataset` of (image, label) without random transforms; or
            several of these: (train, val), (train, val, test), or by split in a dictionary.
        budget: Total time, `"10m"` or seconds; or `"30ep"` for epochs. None: the recipe's usual length.
        epochs: Passes over the training images; an upper limit if there is also a time budget.
        model: Name such as `vit_micro` or `vit_small_patch16_224`. None: chosen from the data and the budget.
        pretrained: Weights to start from, with their architecture: a run, a file or folder that `load_model` opens, or
            `hf://organization/name`; or a name in `vitreous models`. `"auto"` chooses one of these and downloads it,
            `"none"` is for random weights. None: a backbone in the cache if the images are photos, else random weights.
        teacher: A model that the trained one learns from, in addition to the labels; the same choices as for
            `pretrained`. Recipe `distill` trains a small model with it. None: only the labels.
        task: `single` for one label per image, `multilabel` for any number. None: decided by the data; only a table or
            a Python data set can have several.
        img_size: Side or (height, width) in pixels. None: chosen from the images.
        batch_size: Images per step. None: the recipe's.
        lr: Peak learning rate. None: the recipe's.
        device: `cpu`, `cuda`, `cuda:1` or `mps`. None: the fastest one available.
        seed: Seed of weights, order, augmentation and dropout. None: 0.
        folds: Cross-validate: train this many runs, each tested on a different part of the images. 0: a single split.
        seeds: Train this many runs that differ only in their seed; with `folds`, this many per fold. 0: a single seed.
        recipe: Name of a shipped recipe or path of a YAML file. None: chosen from the data.
        out: Folder to create. None: the next unused one below `runs/`.
        resume: Run or series to continue; give no other argument, except `data` if it came from Python or has moved.
        config: Any configuration key, such as `{"optim.weight_decay": 0.1}`; overrides recipe and plan.

    Returns:
        The finished run; with `folds` or `seeds` the finished series.

    Raises:
        VitreousError: Training is not possible; `vitreous.errors` lists the errors.
    """
    from vitreous.training.request import TrainRequest, with_options

    if config is not None and not isinstance(config, Mapping):
        raise ConfigError(f"config={printable_value(config)}: must be a dictionary of keys; use {{'optim.lr': 1e-3}}")
    options = {"epochs": epochs, "pretrained": pretrained, "teacher": teacher, "task": task,
               "img_size": img_size, "batch_size": batch_size, "lr": lr, "device": device, "seed": seed}  # fmt: skip
    request = TrainRequest(recipe=recipe, model=model, values=config or {}, folds=folds, seeds=seeds,
                           out=None if out is None else as_path("out", out),
                           resume=None if resume is None else as_path("resume", resume))  # fmt: skip
    return _train(data, with_options(request, options, budget))


def _train(data: "str | Path | Dataset | None", request: "TrainRequest") -> Run | Series:
    """Train the run or the series that is requested, on this data."""
    from vitreous.data.sources import open_object
    from vitreous.training.request import is_series
    from vitreous.training.series import run_series
    from vitreous.training.start import run_training
    from vitreous.use.report.page import complete, write_report
    from vitreous.use.series.automatic import add_folds

    if isinstance(data, str | Path):
        request = replace(request, data=str(data))
    elif data is not None:
        request = replace(request, source=open_object(data))
    after, listen = partial(complete, source=request.source), _listener()
    if is_series(request):
        return Series(run_series(request, after, listen).path)
    folder = run_training(request, listen)
    try:
        add_folds(folder, listen, request.source)
    finally:
        write_report(folder, source=request.source, ends_training=True)
    return Run(folder.path)


def compare(a: str | Path | Run | Series, b: str | Path | Run | Series) -> "Comparison":
    """Compare two runs, or two series, on the images that both were tested on.

    Args:
        a: A run, a series, or the folder of one.
        b: The one to compare it with.

    Raises:
        VitreousError: One of them is neither a run nor a series, or no image was tested by both.
    """
    from vitreous.use.series.compare import compare as compare_folders

    given = {"a": a, "b": b}
    folders = [x.path if isinstance(x, Run | Series) else as_path(name, x) for name, x in given.items()]
    return compare_folders(*folders)


def embed(
    model: str | Path, images: Any, *, name: str | None = None, img_size: int | tuple[int, int] | None = None,
    architecture: Mapping[str, Any] | None = None, weights: str = "auto", device: str = "auto",
) -> "Embeddings":  # fmt: skip
    """Compute the features of images, the input of the model's head, to find similar images.

    Args:
        model: A run, weights in any format that `load_model` opens, or `hf://organization/name`.
        images: All that `Run.predict` takes. A file that cannot be decoded gets no row, which a warning says.
        name: As for `load_model`, and so are `architecture` and `weights`; none of them applies to a run.
        img_size: Side or (height, width) in pixels. None: that of the run, and of other weights up to 256 patches.
        architecture: Keys of ModelConfig that file and name leave open, e.g. `{"num_heads": 4}`.
        weights: Which weights of a checkpoint to read: `raw`, `ema`, `auto`, or the name of a part.
        device: `cpu`, `cuda`, `cuda:1`, `mps` or `auto`.

    Returns:
        The features of each image, with methods that find nearest images, near-duplicates and clusters.

    Raises:
        VitreousError: The model or an image cannot be used; `vitreous.errors` lists the errors.

    Example:
        >>> import vitreous as vt
        >>> found = vt.embed("hf://facebook/dinov2-small", "photos")  # doctest: +SKIP
        >>> rows, similarities = found.nearest(found.vectors[:1], top=5)  # doctest: +SKIP
    """
    from vitreous.model.weights.table import Hints
    from vitreous.recipe.keys import checked
    from vitreous.training.machine.device import resolve_device
    from vitreous.use.embed.embedder import Embedder

    size = None if img_size is None else checked({"data.img_size": img_size})["data.img_size"]
    as_path("model", model)
    hints = Hints(name, architecture=architecture or {}, weights=weights)
    embedder = Embedder.load(model, img_size=size, hints=hints, device=resolve_device(device))
    if embedder.notes:
        warnings.warn(f"{model}: {'; '.join(embedder.notes)}", AssumptionWarning, stacklevel=2)
    return embedder.embed_given(images)


def explain(
    model: str | Path, images: Any, *, method: str | Sequence[str] | None = None, target: str | int | None = None,
    versus: str | int | None = None, architecture: Mapping[str, Any] | None = None, weights: str = "auto",
    device: str = "auto",
) -> "list[Explanation]":  # fmt: skip
    """Explain predictions: which parts of an image raise the score of a class.

    Args:
        model: A run, weights in any format that `load_model` opens, or `hf://organization/name`.
        images: As for `Run.explain`, and so are `method`, `target` and `versus`.
        method: Name of a method, several names, or `all`.
        target: Class to explain. Weights without class names have the classes 0, 1 and so on.
        versus: Class to compare it with.
        architecture: As for `load_model`, and so is `weights`; neither applies to a run.
        weights: Which weights of a checkpoint to read.
        device: `cpu`, `cuda`, `cuda:1`, `mps` or `auto`.

    Returns:
        An explanation for each image and method, image by image.

    Raises:
        VitreousError: The model or an image cannot be used; `vitreous.errors` lists the errors.

    Example:
        >>> import vitreous as vt
        >>> vt.explain("runs/photos-1", "cat.jpg")[0].save("why.png")  # doctest: +SKIP
    """
    from vitreous.model.weights.table import Hints
    from vitreous.training.machine.device import resolve_device
    from vitreous.use.explain.explainer import Explainer
    from vitreous.use.explain.methods import DEFAULT

    as_path("model", model)
    hints = Hints(architecture=architecture or {}, weights=weights)
    explainer = Explainer.load(model, hints=hints, device=resolve_device(device))
    if explainer.notes:
        warnings.warn(f"{model}: {'; '.join(explainer.notes)}", AssumptionWarning, stacklevel=2)
    return list(explainer.explain(images, DEFAULT if method is None else method, target, versus))


def load_run(path: str | Path) -> Run:
    """Open the folder of a finished run, a `model.safetensors` file, or a model on the hub.

    Args:
        path: The folder, the file, or `hf://organization/name`.

    Raises:
        NotARunError: There is no trained model at that path.
    """
    return Run(path)


def _listener() -> "Listener":
    """Return a listener that logs the events of a run and, in a notebook, shows its progress in the cell."""
    from vitreous.use.html.jupyter import NotebookProgress, in_notebook

    if not in_notebook():
        return log
    shown = NotebookProgress()

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        log(kind, fields)
        shown.listen(kind, fields)

    return listen


def log(kind: str, fields: Mapping[str, Any]) -> None:
    """Log a record of a run to the logger `vitreous`."""
    level = logging.DEBUG if kind in ("progress", "reading", "step") else logging.INFO
    _logger.log(level, "%s %s", kind, dict(fields))
