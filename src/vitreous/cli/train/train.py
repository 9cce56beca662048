"""Options of `vitreous train` -> a run folder, or the folder of a series of runs."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from vitreous import processes
from vitreous.cli.options import (
    Assignments,
    BackboneName,
    Count,
    Device,
    ModelName,
    Precision,
    RecipeName,
    Switch,
    TaskName,
)
from vitreous.cli.screen import Screen, print_table
from vitreous.cli.train.end import show_end
from vitreous.errors import ConfigError
from vitreous.recipe.files import as_yaml
from vitreous.recipe.key_reference import as_text
from vitreous.training.folder.records import Listener
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.launch import launch
from vitreous.training.machine.signals import Interrupted
from vitreous.training.request import OPTION_KEYS, TrainRequest, is_series, with_options
from vitreous.training.series import first_of, members, run_series
from vitreous.training.start import dry_run as plan_only
from vitreous.training.start import run_training, summarize
from vitreous.use.report.page import complete, write_report
from vitreous.use.series.automatic import add_folds
from vitreous.use.series.page import sentences, table, write_summary
from vitreous.wording import show


@Parameter(name="*")
@dataclass(frozen=True)
class TrainOptions:
    """Options that most runs need; every other configuration key is an option too, as `--room.key value`.

    Attributes:
        budget: Total time, for all runs of a series together, e.g. 90s, 10m, 1h30m; or epochs, e.g. 30ep.
        epochs: Passes over the training images; an upper limit if there is also a time budget.
        model: Name such as vit_micro or vit_small_patch16_224; default: chosen from data and budget.
        pretrained: Weights to start from, with their architecture: a run, a file or folder of weights,
            hf://organization/name, or a name in `vitreous models`; auto chooses one of those and downloads it; none
            trains from scratch; default: one in the cache if the images are photos.
        teacher: A model that the trained one learns from, in addition to the labels; the same choices as for
            --pretrained. The recipe distill trains a small model with it.
        weights: With --pretrained and the checkpoint of a training run: raw, ema (an average or a teacher), or the name
            of a part; default: the better ones, judged by their features of training images.
        task: single or multilabel, one label per image or any number; default: decided by the data.
        img_size: Pixels, e.g. 64 or 64x48 (height x width); default: chosen from the images.
        batch_size: Images per training step; default: the recipe's.
        lr: Peak learning rate; default: the recipe's.
        recipe: A shipped recipe (digits, small-images, small-photos, pretrain-finetune, fine-tune, linear-probe,
            distill, deit, deit3, big-vision-s16) or a YAML file.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: auto, fp32, tf32 or bf16.
        seed: Seed of weights, order, augmentation and dropout; default 0.
        folds: Cross-validate: train this many runs, each tested on a different part of the images; e.g. 5.
        seeds: Train this many runs that differ only in their seed, starting at --seed; with --folds, this many per
            fold.
        nproc: Processes on this machine that train one model, each on its own GPU or its share of the cores. Batch size
            and learning rate are for the whole batch, over all processes. On several machines use torchrun -m vitreous
            train.
        out: Folder to create; default: the next unused one below runs/.
        resume: Continue this run or series. Its settings are kept, so the only other options are --data (and
            --data.root, for a table) if the data has moved; its content must be the same.
        overfit_one_batch: First check that a fresh model can overfit one batch; if it cannot, nothing is trained.
        dry_run: Show the plan and every key without training.
        help_keys: List all configuration keys with their ranges, defaults and meanings, and exit.
        set: `--room.key value` options, as `main` rewrites them.
    """

    budget: str | None = None
    epochs: str | None = None
    model: ModelName | None = None
    pretrained: BackboneName | None = None
    teacher: BackboneName | None = None
    weights: str | None = None
    task: TaskName | None = None
    img_size: str | None = None
    batch_size: str | None = None
    lr: str | None = None
    recipe: RecipeName | None = None
    device: Device | None = None
    precision: Precision | None = None
    seed: str | None = None
    folds: Annotated[Count, Parameter(show_default=False)] = 0
    seeds: Annotated[Count, Parameter(show_default=False)] = 0
    nproc: Count = 1
    out: Path | None = None
    resume: Path | None = None
    overfit_one_batch: Switch = False
    dry_run: Switch = False
    help_keys: Switch = False
    set: Assignments = ()


def train(data: str | None = None, *, options: TrainOptions = TrainOptions()) -> None:
    """Train a model on a folder of images or on a named data set.

    Without options, everything is chosen from the data: model, image size, training length, augmentation. The file
    `plan.md` of the run gives the reasons. Every configuration key is also an option, for example
    `--optim.weight_decay 0.1 --data.flip false`; `--help-keys` lists all keys.

    Args:
        data: A folder of class folders; a folder with train/ and val/ or test/; tar shards; a CSV, TSV or Parquet table
            of paths and labels; digits, mnist, fashion-mnist, cifar10, cifar100; or hf://organization/name.
        options: All other options.
    """
    if options.help_keys:
        print(as_text())
        return
    request = _request(data, options)
    is_several = is_series(request)
    if is_several and processes.count() > 1 and not options.dry_run:
        raise ConfigError(
            f"torchrun: {processes.count()} processes started the same series; start it once, as "
            "`vitreous train … --nproc N`"
        )
    if options.nproc != 1 and (options.dry_run or not is_several):
        launch(partial(train, data, options=replace(options, nproc=1)), options.nproc)
        return
    with _screen() as screen:
        if options.dry_run:
            if not processes.rank():
                _show_plan(screen, request)
            return
        if is_several:
            _train_series(screen, request, options.nproc)
            return
        folder = run_training(request, screen.listen)
        if processes.rank():
            return
        if processes.count() == 1:
            _add_folds(screen, folder)
        write_report(folder, ends_training=True)
    show_end(screen, folder)


def _request(data: str | None, options: TrainOptions) -> TrainRequest:
    assignments: dict[str, object] = {}
    for assignment in options.set:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"set={assignment}: has no value; write --{key} VALUE")
        assignments[key] = value
    request = TrainRequest(
        data=data,
        recipe=options.recipe,
        model=options.model,
        values=assignments,
        out=options.out,
        resume=options.resume,
        folds=options.folds,
        seeds=options.seeds,
    )
    # The switch is False if it was not given; that must not override a recipe file.
    given = {name: getattr(options, name) for name in OPTION_KEYS} | {
        "overfit_one_batch": options.overfit_one_batch or None
    }
    return with_options(request, given, options.budget)


def _train_in_processes(num_processes: int, request: TrainRequest, _: Listener) -> None:
    """Train one run of a series in several processes; the first of them shows its progress."""
    launch(partial(_train_run, request), num_processes)


def _train_run(request: TrainRequest) -> None:
    with _screen() as screen:
        run_training(request, screen.listen)


def _screen() -> Screen:
    """Return a screen that shows only what the first of several processes reports."""
    return Screen(Console(quiet=True) if processes.rank() else None)


def _train_series(screen: Screen, request: TrainRequest, num_processes: int) -> None:
    train_one = run_training if num_processes == 1 else partial(_train_in_processes, num_processes)
    folder = run_series(request, complete, screen.listen, train_one)
    summary = write_summary(folder)
    screen.say()
    print_table(screen.console, table(summary), numbers_from=1)
    screen.say()
    for sentence in sentences(summary):
        screen.say(sentence, style="bold green" if sentence.startswith("accuracy over ") else None)
    screen.say(f"series folder: {folder.path} (summary.md, summary.json, one folder per run)")
    screen.say("\nnext:")
    screen.say(f"  vitreous compare {quote(str(folder.path))} OTHER  which of two series or runs is better")


def _add_folds(screen: Screen, folder: RunFolder) -> None:
    """Train folds if few images tested the run. Whatever ends them leaves the complete run with its report."""
    try:
        add_folds(folder, screen.listen)
    except BaseException as error:
        write_report(folder, ends_training=True)
        if isinstance(error, Interrupted):
            show_end(screen, folder)
        raise


def _show_plan(screen: Screen, request: TrainRequest) -> None:
    todo = members(request)
    if len(todo) > 1:
        screen.say(f"{len(todo)} runs: {', '.join(member.name for member in todo)}; the first one:", style="bold")
    facts, plan = plan_only(first_of(request), screen.listen)
    for sentence in summarize(facts, plan):
        screen.say(sentence)
    screen.say()
    for choice in plan.choices:
        screen.say(f"{choice.key} = {show(choice.value)}: {choice.reason}")
    screen.say_notes(plan.notes)
    screen.say("\nevery key, as in config.yaml:")
    screen.say(as_yaml(plan.config))
