"""Finished run -> what `vitreous train` shows at its end."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from vitreous.cli.look.compare import show_comparison
from vitreous.cli.look.predict import labels_line
from vitreous.cli.next_steps import run_commands
from vitreous.cli.screen import Screen
from vitreous.errors import VitreousError
from vitreous.recipe.files import read_config
from vitreous.recipe.forecast import forecast_of
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.weights.transfer import FEW_TESTED
from vitreous.use.evaluate.evaluation import scored_split
from vitreous.use.evaluate.multilabel import score_name
from vitreous.use.run import Run
from vitreous.use.series.compare import compare
from vitreous.use.series.page import sentences
from vitreous.use.series.summary import summarize_series
from vitreous.wording import plural

_MORE_TIME = 10
"""Factor of the budget for which the accuracy is predicted."""


def show_end(screen: Screen, folder: RunFolder) -> None:
    """Show how good a finished run is, where it is, and what can be done with it."""
    run = Run(folder.path)
    screen.say()
    if "pretraining" in run.metadata:
        _show_pretrained(screen, folder, run.metadata["pretraining"])
        return
    split = scored_split(run.metrics)
    if split is None:
        screen.say("accuracy unknown: no images were held out", style="yellow")
    else:
        found = run.metrics[split]
        screen.say_accuracy(f"{score_name(found, split)}:", found)
        _show_certainty(screen, folder, found["num_images"])
    _show_time(screen, folder, run.metrics.get(split or "", {}))
    _show_change(screen, folder)
    size = f"{folder.model.stat().st_size / 1e6:,.1f} MB"
    screen.say(
        f"run folder: {folder.path} (model.safetensors of {size}, report.html, plan.md, records.jsonl, config.yaml)"
    )
    if folder.example.is_file():
        _show_example(screen, run, folder.example)
    screen.say("\nnext:")
    commands = run_commands(folder)
    width = max(len(command) for command, _ in commands)
    for command, purpose in commands:
        screen.say(f"  {command:<{width}}  {purpose}")


def _show_pretrained(screen: Screen, folder: RunFolder, found: Mapping[str, Any]) -> None:
    """Show what a model has learned without labels, where it is, and what can be done with it."""
    if found["loss"] is not None:
        screen.say(
            f"reconstruction loss of {plural(found['num_images'], 'image')}: {found['loss']:.3f}", style="bold green"
        )
    screen.say(
        f"features: effective rank {found['effective_rank']:.1f} of {found['width']}, spread {found['spread']:.2f}"
    )
    pictures = "reconstructions.jpg, " if folder.reconstructions.is_file() else ""
    screen.say(f"run folder: {folder.path} (model.safetensors, {pictures}plan.md, records.jsonl, config.yaml)")
    run = quote(str(folder.path))
    screen.say("\nnext:")
    screen.say(f"  vitreous train DATA --pretrained {run}  learn classes from labeled images")
    screen.say(f"  vitreous embed {run} IMAGE              features of images, and similar images")


def _show_certainty(screen: Screen, folder: RunFolder, num_images: int) -> None:
    """Say what the folds found, or how to be certain if few images tested the run."""
    if folder.folds.series.is_file():
        for sentence in sentences(summarize_series(folder.folds)):
            screen.say(sentence, style="bold green" if sentence.startswith("accuracy over ") else None)
    elif num_images < FEW_TESTED:
        few = f"{plural(num_images, 'image')} leave the accuracy uncertain"
        screen.say(f"{few}; `vitreous train DATA --folds 5` tests each image once", style="dim")


def _show_time(screen: Screen, folder: RunFolder, found: Mapping[str, Any]) -> None:
    """Say what more time would give, and whether the budget ended before the run had seen every training image."""
    epochs = max((record["epoch"] for record in read_records(folder.records) if record["kind"] == "step"), default=1.0)
    config = read_config(folder.config)
    if epochs < 1 and config.train.budget_s:
        screen.say(
            f"the budget was enough to see {epochs:.0%} of the training images; use a longer --budget", style="yellow"
        )
    longer_s = _MORE_TIME * config.train.budget_s
    expected = forecast_of(config, epochs, found, longer_s)
    if expected is not None:
        screen.say(f"expected with --budget {longer_s / 60:g}m: {expected.text}", style="dim")


def _show_change(screen: Screen, folder: RunFolder) -> None:
    """Compare the run with the run whose weights it started from, on the test images of both."""
    weights = read_config(folder.config).train.pretrained
    earlier = RunFolder(Path(weights or ""))
    if weights is None or not earlier.config.is_file():
        return
    screen.say(f"\ncompared with {weights}:")
    try:
        show_comparison(screen, compare(earlier.path, folder.path))
    except VitreousError as error:
        screen.say(f"not compared: {error}", style="dim")
    screen.say()


def _show_example(screen: Screen, run: Run, example: Path) -> None:
    found = run.predict(example)[0]
    truth = run.metadata["example_class"]
    verdict = "correct" if found.label == truth else f"wrong, the true class is {truth}"
    if run.predictor.thresholds is not None:
        screen.say(
            f"example: {example}: {labels_line(found, run.predictor)}; {verdict.replace('class is', 'labels are')}"
        )
        return
    screen.say(f"example: {example} is predicted as {found.label} (probability {found.probability:.1%}; {verdict})")
