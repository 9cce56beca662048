"""Options of `vitreous pretrain` -> a run folder with a model that has learned from images without labels."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import get_args

from cyclopts import Parameter

from vitreous.cli.options import Assignments, BackboneName, Count, Device, MethodName, ModelName, Precision, Switch
from vitreous.cli.train.train import TrainOptions, train
from vitreous.errors import NotARunError, UnknownNameError, nearest
from vitreous.objective.config import Pretext, uses_labels
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder


@Parameter(name="*")
@dataclass(frozen=True)
class PretrainOptions:
    """Options of `vitreous pretrain`; every configuration key is an option too, as `--room.key value`.

    Attributes:
        method: mae reconstructs hidden patches and costs least; simmim does so with a lighter decoder; lejepa compares
            views of an image.
        budget: Total time, e.g. 90s, 10m, 1h30m; or epochs, e.g. 30ep.
        epochs: Passes over the training images; an upper limit if there is also a time budget.
        model: Name such as vit_micro or vit_small_patch16_224; default: chosen from data and budget.
        pretrained: Weights to continue from, with their architecture; default: none.
        img_size: Pixels, e.g. 64 or 64x48 (height x width); default: chosen from the images.
        batch_size: Images per training step; default: the recipe's.
        lr: Peak learning rate; default: the recipe's.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: auto, fp32, tf32 or bf16.
        seed: Seed of weights, order, augmentation and masks; default 0.
        nproc: Processes on this machine that train one model, as for `vitreous train`.
        out: Folder to create; default: the next unused one below runs/.
        resume: Continue this run; its settings are kept, so give no other option.
        dry_run: Show the plan and every key without training.
        set: `--room.key value` options, as `main` rewrites them.
    """

    method: MethodName = "mae"
    budget: str | None = None
    epochs: str | None = None
    model: ModelName | None = None
    pretrained: BackboneName | None = None
    img_size: str | None = None
    batch_size: str | None = None
    lr: str | None = None
    device: Device | None = None
    precision: Precision | None = None
    seed: str | None = None
    nproc: Count = 1
    out: Path | None = None
    resume: Path | None = None
    dry_run: Switch = False
    set: Assignments = ()


def pretrain(data: str | None = None, *, options: PretrainOptions = PretrainOptions()) -> None:
    """Pretrain a model on images without labels; `vitreous train DATA --pretrained RUN` continues from it.

    Args:
        data: A folder of images, at any depth; or all that `vitreous train` takes, whose labels are not used. Images
            that it would hold out to test on are not seen.
        options: All other options.
    """
    given, method = dict(vars(options)), options.method
    del given["method"]
    if uses_labels(method):
        raise UnknownNameError(f"method={method}: no such method; {nearest(method, get_args(Pretext))}")
    if options.resume is not None:
        _check_pretrains(options.resume)
    else:
        given["set"] = (f"objective.loss={method}", *options.set)
    train(data, options=TrainOptions(**given))


def _check_pretrains(run: Path) -> None:
    """Raise NotARunError unless the run to resume has no labels."""
    folder = RunFolder(run)
    if folder.config.is_file() and read_config(folder.config).objective.uses_labels:
        raise NotARunError(
            f"resume={run}: learns from labels; continue it with `vitreous train --resume {quote(str(run))}`"
        )
