"""`vitreous train` -> a run folder."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from vitreous import processes
from vitreous.cli.screen import Screen, accuracy_line, print_table
from vitreous.errors import ConfigError
from vitreous.recipe.files import as_yaml
from vitreous.recipe.plan import show
from vitreous.training.folder.records import Listener
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.training.machine.launch import launch
from vitreous.training.request import TrainRequest, parse_budget
from vitreous.training.series import first_of, members, run_series
from vitreous.training.start import dry_run as plan_only
from vitreous.training.start import run_training, summarize
from vitreous.use.report.page import write_report
from vitreous.use.run import Run
from vitreous.use.series.page import complete, sentences, table, write_summary


@Parameter(name="*")
@dataclass(frozen=True)
class TrainOptions:
    """What most runs need; every other key of the configuration is an option too, as `--room.key value`.

    Attributes:
        budget: Time for everything, all runs of a series together, e.g. 90s, 10m, 1h30m; or epochs, e.g. 30ep.
        epochs: Passes over the images; with a budget, at most so many.
        model: E.g. vit_micro or vit_small_patch16_224; default: what suits.
        pretrained: Weights to begin from: a run, a file or folder of weights, or hf://organisation/name; the model is
            theirs.
        img_size: Pixels, e.g. 64 or 64x48; default: what suits the images.
        recipe: A shipped recipe (digits, small-images, small-photos, fine-tune, linear-probe, distill, deit, deit3,
            big-vision-s16) or a YAML file.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: auto, fp32, tf32 or bf16.
        seed: Initial weights, order, augmentation, dropout; default 0.
        folds: Cross-validate: train so many runs, each tested on another part of the images; e.g. 5.
        seeds: Train so many runs that differ by their seed alone, from --seed on; with --folds, so many of each.
        nproc: Processes on this machine that train one model, each on a GPU of its own or on its part of the cores.
            Batch size and learning rate are those of all together. On several machines: torchrun -m vitreous train.
        out: Folder to make; default: the next free one below runs/.
        resume: Go on with this run or series; takes no other option.
        check: First see whether a fresh model learns one batch by heart; where not, nothing is trained.
        dry_run: Show the plan and every key; train nothing.
        set: `main` spells `--room.key value` so.
    """

    budget: str | None = None
    epochs: float | None = None
    model: str | None = None
    pretrained: str | None = None
    img_size: str | None = None
    recipe: str | None = None
    device: str | None = None
    precision: str | None = None
    seed: int | None = None
    folds: int = 0
    seeds: int = 0
    nproc: int = 1
    out: Path | None = None
    resume: Path | None = None
    check: Annotated[bool, Parameter(negative="")] = False
    dry_run: Annotated[bool, Parameter(negative="")] = False
    set: Annotated[tuple[str, ...], Parameter(name="--set", show=False, negative="", consume_multiple=False)] = ()


def train(data: str | None = None, /, *, options: TrainOptions = TrainOptions()) -> None:
    """Train a Vision Transformer on your images; `main` holds the help, as it does not import this file.

    Args:
        data: A folder of class folders; or one with train/ and val/ or test/; a CSV, TSV or Parquet table of paths and
            labels; digits, mnist, fashion-mnist, cifar10, cifar100; or hf://organisation/name.
        options: See below.
    """
    request = TrainRequest(
        data=data,
        recipe=options.recipe,
        model=options.model,
        values=_values(options),
        out=options.out and options.out.expanduser(),
        resume=options.resume and options.resume.expanduser(),
        folds=options.folds,
        seeds=options.seeds,
    )
    is_series = request.folds or request.seeds or (request.resume and SeriesFolder(request.resume).series.is_file())
    if is_series and processes.count() > 1 and not options.dry_run:
        raise ConfigError(
            f"torchrun: {processes.count()} processes began the same series; start it once, as "
            "`vitreous train … --nproc N`"
        )
    if options.nproc != 1 and (options.dry_run or not is_series):
        launch(partial(train, data, options=replace(options, nproc=1)), options.nproc)
        return
    with _screen() as screen:
        if options.dry_run:
            if not processes.rank():
                _show_plan(screen, request)
            return
        if is_series:
            _train_series(screen, request, options.nproc)
            return
        folder = run_training(request, screen.listen)
        if processes.rank():
            return
        write_report(folder)
    _show_end(screen, folder)


def _train_by_all(num_processes: int, request: TrainRequest, _: Listener) -> None:
    """A run of a series; the first of its processes shows it."""
    launch(partial(_train_run, request), num_processes)


def _train_run(request: TrainRequest) -> None:
    with _screen() as screen:
        run_training(request, screen.listen)


def _screen() -> Screen:
    """Of several processes the first one shows what happens."""
    return Screen(Console(quiet=True) if processes.rank() else None)


def _values(options: TrainOptions) -> dict[str, object]:
    """Options as the keys that they stand for."""
    named = {
        "train.epochs": options.epochs,
        "train.pretrained": options.pretrained,
        "data.img_size": options.img_size,
        "train.device": options.device,
        "train.precision": options.precision,
        "train.seed": options.seed,
        "train.overfit_one_batch": options.check or None,
    }
    values: dict[str, object] = {key: value for key, value in named.items() if value is not None}
    if options.budget is not None:
        values |= parse_budget(options.budget)
    for assignment in options.set:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"set={assignment}: is no assignment; write --{key} VALUE")
        values[key] = value
    return values


def _train_series(screen: Screen, request: TrainRequest, num_processes: int) -> None:
    by_all = partial(_train_by_all, num_processes)
    folder = run_series(request, complete, screen.listen, run_training if num_processes == 1 else by_all)
    summary = write_summary(folder)
    screen.say()
    print_table(screen.console, table(summary), numbers_from=1)
    screen.say()
    for sentence in sentences(summary):
        screen.say(sentence, style="bold green" if sentence.startswith("accuracy over ") else None)
    screen.say(f"series folder: {folder.path} (summary.md, summary.json, a folder for each run)")
    screen.say("\nnext:")
    screen.say(f"  vitreous compare {quote(str(folder.path))} OTHER  which of two series or runs is better")


def _show_plan(screen: Screen, request: TrainRequest) -> None:
    todo = members(request)
    if len(todo) > 1:
        screen.say(f"{len(todo)} runs: {', '.join(member.name for member in todo)}; the first:", style="bold")
    facts, plan = plan_only(first_of(request), screen.listen)
    for sentence in summarize(facts, plan):
        screen.say(sentence)
    screen.say()
    for choice in plan.choices:
        screen.say(f"{choice.key} = {show(choice.value)}: {choice.reason}")
    for note in plan.notes:
        screen.say(f"note: {note}", style="yellow")
    screen.say("\nevery key, as config.yaml would hold it:")
    screen.say(as_yaml(plan.config))


def _show_end(screen: Screen, folder: RunFolder) -> None:
    run = Run(folder.path)
    screen.say()
    for split in ("test", "val"):
        if split in run.metrics:
            name = "test accuracy" if split == "test" else "validation accuracy"
            screen.say(f"{name}: {accuracy_line(run.metrics[split])}", style="bold green")
            break
    else:
        screen.say("accuracy unknown: no images were held out", style="yellow")
    screen.say(f"run folder: {folder.path} (model.safetensors, report.html, plan.md, records.jsonl, config.yaml)")
    if folder.example.is_file():
        _show_example(screen, run, folder.example)
    screen.say("\nnext:")
    commands = _next_commands(folder)
    width = max(len(command) for command, _ in commands)
    for command, purpose in commands:
        screen.say(f"  {command:<{width}}  {purpose}")


def _show_example(screen: Screen, run: Run, example: Path) -> None:
    found = run.predict(example)[0]
    truth = run.metadata["example_class"]
    verdict = "right" if found.label == truth else f"wrong, it is {truth}"
    screen.say(f"a prediction: {example} shows {found.label} ({100 * found.probability:.1f} % sure; {verdict})")


def _next_commands(folder: RunFolder) -> list[tuple[str, str]]:
    run = quote(str(folder.path))
    image = quote(str(folder.example)) if folder.example.is_file() else "IMAGE"
    return [
        (f"vitreous predict {run} {image}", "classify images or folders of them"),
        (f"vitreous evaluate {run}", "precision and recall of each class, confusion"),
        (f"vitreous inspect {run}", "what is in the model"),
    ]
