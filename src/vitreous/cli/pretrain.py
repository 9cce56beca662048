"""Options of `vitreous pretrain` -> a run folder with a model that has learned from images without labels."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from cyclopts import Parameter

from vitreous.cli.options import Assignments, Switch
from vitreous.cli.screen import Screen
from vitreous.cli.train.command import TrainOptions, request_of, show_plan
from vitreous.errors import NotARunError
from vitreous.model.weights import read_metadata
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.start import run_training


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
        seed: Seed of weights, order, augmentation and masks; default 0.
        out: Folder to create; default: the next unused one below runs/.
        resume: Continue this run; its settings are kept, so give no other option.
        dry_run: Show the plan and every key without training.
        set: `--room.key value` options, as `main` rewrites them.
    """

    method: str | None = None
    budget: str | None = None
    epochs: str | None = None
    model: str | None = None
    pretrained: str | None = None
    img_size: str | None = None
    batch_size: str | None = None
    lr: str | None = None
    device: str | None = None
    seed: str | None = None
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
    if options.resume is not None:
        _check_pretrains(options.resume)
    given = {name: value for name, value in vars(options).items() if name != "method"}
    method = options.method or (None if options.resume else "mae")
    if method is not None:
        given["set"] = (f"objective.loss={method}", *options.set)
    request = request_of(data, TrainOptions(**given))
    with Screen() as screen:
        if options.dry_run:
            show_plan(screen, request)
            return
        folder = run_training(request, screen.listen)
    _show_end(screen, folder)


def _check_pretrains(run: Path) -> None:
    """Raise NotARunError unless the run to resume has no labels."""
    folder = RunFolder(run)
    if folder.config.is_file() and read_config(folder.config).objective.uses_labels:
        raise NotARunError(
            f"resume={run}: learns from labels; continue it with `vitreous train --resume {quote(str(run))}`"
        )


def _show_end(screen: Screen, folder: RunFolder) -> None:
    """Show what was learned, where it is, and what can be done with it."""
    found = read_metadata(folder.model)["pretraining"]
    screen.say()
    if found["loss"] is not None:
        screen.say(f"reconstruction loss of {found['num_images']:,} images: {found['loss']:.3f}", style="bold green")
    screen.say(
        f"features: effective rank {found['effective_rank']:.1f} of {found['width']}, spread {found['spread']:.2f}"
    )
    pictures = "reconstructions.jpg, " if folder.reconstructions.is_file() else ""
    screen.say(f"run folder: {folder.path} (model.safetensors, {pictures}plan.md, records.jsonl, config.yaml)")
    run = quote(str(folder.path))
    screen.say("\nnext:")
    screen.say(f"  vitreous train DATA --pretrained {run}  learn classes from labeled images")
    screen.say(f"  vitreous embed {run} IMAGE|FOLDER  features of images, and similar images")
