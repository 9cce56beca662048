"""TrainRequest -> a run folder with a trained model in it: plan, prepare, fit, finish."""

import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from typing import Any

from vitreous import atomic, processes
from vitreous.data.loader import Prefetcher, TrainLoader
from vitreous.data.pixels.store import MemoryStore
from vitreous.data.sources import PYTHON_PREFIX, open_source
from vitreous.data.survey.facts import DataFacts, Survey
from vitreous.errors import ConfigError
from vitreous.model.cost.count import count_flops, count_parameters
from vitreous.recipe import keys
from vitreous.recipe.files import read_config, write_config
from vitreous.recipe.plan import Plan
from vitreous.recipe.run_config import RunConfig
from vitreous.training.assemble import (
    load_or_begin,
    make_budget,
    make_loader,
    make_settings,
    make_task,
    new_state,
    undivided,
    watch_over,
)
from vitreous.training.finish import evaluate_state, finish
from vitreous.training.fit.budget import Stopwatch
from vitreous.training.fit.loop import Loop, fit
from vitreous.training.folder.loggers import tracked
from vitreous.training.folder.records import Listener, Recorder, ignore
from vitreous.training.folder.run_folder import RunFolder, check_free, create_run_folder, open_run_folder, sweep
from vitreous.training.machine.device import (
    describe_hardware,
    describe_software,
    deterministic,
    resolve_device,
    resolve_precision,
)
from vitreous.training.machine.distributed import Group, join
from vitreous.training.machine.launch import after_restart, note_run
from vitreous.training.measure.overfit import rehearse
from vitreous.training.prepare import Prepared, load_data, plan_run, survey_again
from vitreous.training.request import TrainRequest
from vitreous.training.step.compiled import compile_ahead
from vitreous.training.step.features import feature_batches


def run_training(request: TrainRequest, listener: Listener = ignore) -> RunFolder:
    """Train as asked, or go on with a run that was interrupted.

    Args:
        request: What to train on and how.
        listener: Told of everything that happens.

    Returns:
        The folder, complete.

    Raises:
        VitreousError: Anything in the request, the data or the machine that stands in the way; see `errors`.
        Interrupted: Ctrl-C or SIGTERM; the run can go on with `resume`.
    """
    started, group = time.monotonic(), join()
    listener = listener if group.is_first else ignore
    request = group.from_first(lambda: after_restart(request)) or request
    if request.resume is None:
        folder, config, surveyed = _find_out(lambda: _begin(request, listener), request, group)
    elif group.from_first(lambda: _is_complete(request)):
        listener("complete", {"run": str(request.resume)})
        return RunFolder(request.resume)
    else:
        folder, config, surveyed = _find_out(lambda: _read_again(request, listener), request, group)
    with tracked(listener, folder.path, config) if group.is_first else nullcontext(listener) as told:
        recorder = Recorder(folder.records if group.is_first else None, told)
        if processes.restarts():
            recorder.record("restart", {"number": processes.restarts(), "num_processes": group.size})
        prepared = group.first_then_others(lambda: load_data(config, surveyed, recorder))
        if prepared.config != config:  # mean and std were measured
            group.from_first(lambda: write_config(folder.config, prepared.config))
        _fit_and_finish(prepared, folder, recorder, started, group)
    return folder


def dry_run(request: TrainRequest, listener: Listener = ignore) -> tuple[DataFacts, Plan]:
    """Everything up to the first file: what the data is and what a run would do. Raises as `run_training`."""
    surveyed, plan = plan_run(request, listener)
    return surveyed.facts, plan


def summarise(facts: DataFacts, plan: Plan) -> list[str]:
    """Sentences on data and model, for the screen and `plan.md`."""
    model = plan.config.model
    counts, mflop = sorted(facts.class_counts), count_flops(model) / 1e6
    batch_size, num = plan.config.data.batch_size, processes.count()
    each = [
        f"{num} processes, {plan.config.train.parallel}: batch size and learning rate are in total; of {batch_size:,} "
        f"images a step each takes {batch_size / num:,.4g}"
    ] if num > 1 else []  # fmt: skip
    return [
        f"{facts.name}: {facts.num_train:,} images to train on, {facts.num_val:,} to validate, "
        f"{facts.num_test:,} to test; {len(facts.classes)} classes of {counts[0]:,} to {counts[-1]:,} training images",
        f"model: {count_parameters(model):,} parameters, {mflop:,.{0 if mflop >= 10 else 2}f} MFLOP an image; "
        f"{model.depth} blocks of width {model.embed_dim}, {model.num_patches} patches of {model.patch_size} px",
        *each,
    ]


def _begin(request: TrainRequest, listener: Listener) -> tuple[RunFolder, RunConfig, Survey]:
    """Plan the run and make its folder."""
    check_free(request.out)
    surveyed, plan = plan_run(request, listener)
    folder = create_run_folder(request.out, surveyed.facts.name)
    note_run(folder.path)
    recorder = Recorder(folder.records, listener)
    recorder.record("start", _start_facts(plan.config, folder))
    write_config(folder.config, plan.config)
    summary = summarise(surveyed.facts, plan)
    atomic.write_text(folder.plan, plan.as_markdown(summary))
    recorder.record("plan", {"recipe": plan.config.recipe, "summary": summary, "notes": plan.notes,
                             "choices": [asdict(choice) for choice in plan.choices]})  # fmt: skip
    return folder, plan.config, surveyed


def _find_out(
    work: Callable[[], tuple[RunFolder, RunConfig, Survey]], request: TrainRequest, group: Group
) -> tuple[RunFolder, RunConfig, Survey]:
    """Let the first process do it, and tell the others all but the source, which they open themselves."""
    mine: list[Survey] = []

    def tell() -> tuple[RunFolder, RunConfig, tuple[Any, ...]]:
        folder, config, surveyed = work()
        mine.append(surveyed)
        return folder, config, (surveyed.indices, surveyed.facts, surveyed.digests)

    folder, config, rest = group.from_first(tell)
    if mine:
        return folder, config, mine[0]
    source = open_source(config.data.source, config.data.root) if request.source is None else request.source
    return folder, config, Survey(source, *rest)


def _reopen(request: TrainRequest) -> RunFolder:
    path = request.resume
    if path is None or any((request.data, request.recipe, request.model, request.values, request.out)):
        raise ConfigError(f"resume={path}: takes no other options, a run goes on as it began; leave them out")
    return open_run_folder(path)


def _is_complete(request: TrainRequest) -> bool:
    return _reopen(request).model.exists()


def _read_again(request: TrainRequest, listener: Listener) -> tuple[RunFolder, RunConfig, Survey]:
    """A run that was begun, and its data."""
    folder = _reopen(request)
    config = read_config(folder.config)
    if request.source is not None and not config.data.source.startswith(PYTHON_PREFIX):
        raise ConfigError(
            f"resume={folder.path}: its data is {config.data.source}, which is opened again; give no other"
        )
    sweep(folder)
    return folder, config, survey_again(config.data, listener, request.source)


def _fit_and_finish(prepared: Prepared, folder: RunFolder, recorder: Recorder, started: float, group: Group) -> None:
    config = prepared.config
    precision = resolve_precision(config.train.precision, resolve_device(config.train.device))
    loader = make_loader(prepared, group)
    state = new_state(prepared, folder, recorder, group)
    is_divided = group.size > 1 and config.train.parallel == "fsdp"
    with ExitStack() as stack:
        stack.enter_context(deterministic(config.train.deterministic))
        source: TrainLoader | Prefetcher = loader
        if not isinstance(prepared.train, MemoryStore):
            source = stack.enter_context(Prefetcher(loader))
        max_steps = max(1, round(config.train.epochs * loader.steps_per_epoch))
        load_or_begin(state, prepared, folder, recorder, max_steps, group)
        stopwatch = Stopwatch(state.elapsed_s, started)
        budget = group.is_first and config.train.budget_s and make_budget(prepared, state, stopwatch, max_steps)
        state.horizon = group.from_first(lambda: state.horizon)
        task = make_task(prepared)
        features = None if is_divided else feature_batches(config, task, state.model, loader, precision)
        settings = make_settings(
            config, task, state.model, loader, precision, group, takes_features=features is not None
        )
        loop = Loop(
            folder=folder,
            recorder=recorder,
            stopwatch=stopwatch,
            budget=budget or None,
            batch=source.batch if features is None else features,
            steps_per_epoch=loader.steps_per_epoch,
            evaluate=(lambda: evaluate_state(state, prepared, precision, group)) if prepared.val else None,
            checkpoint_every_s=config.train.checkpoint_every_s,
            max_retries=config.train.max_retries,
            patience=config.train.patience_ratio,
            watch=watch_over(prepared, precision, recorder) if group.is_first and not is_divided else None,
        )
        if config.train.overfit_one_batch and state.step == 0:
            found = group.from_first(lambda: rehearse(config, loader.batch(0), precision))
            recorder.record("check", asdict(found))
        if settings.compiled is not None:
            seconds = compile_ahead(state, loader.batch(state.step), settings)
            recorder.record("compiled", {"mode": config.train.compile, "seconds": round(seconds, 1)})
        recorder.record("fit", {"step": state.step, "end_step": state.horizon.end_step, "precision": precision,
                                "steps_per_epoch": loader.steps_per_epoch})  # fmt: skip
        fit(state, settings, loop)
    state.elapsed_s = stopwatch.elapsed_s()
    finish(undivided(state, config) if is_divided else state, prepared, folder, recorder, group)


def _start_facts(config: RunConfig, folder: RunFolder) -> dict[str, object]:
    hardware = describe_hardware(resolve_device(config.train.device))
    return {"run": str(folder.path), "recipe": config.recipe, "config": keys.take_apart(config), "hardware": hardware,
            "software": describe_software(), "num_processes": processes.count()}  # fmt: skip
