"""TrainRequest -> a run folder with a trained model in it: plan, prepare, fit, finish."""

import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch

from vitreous import atomic, processes
from vitreous.data.build import build_augment, build_mix, sampling_weights
from vitreous.data.facts import DataFacts, Survey
from vitreous.data.loader import Prefetcher, TrainLoader
from vitreous.data.sources import PYTHON_PREFIX, open_source
from vitreous.data.store import MemoryStore
from vitreous.errors import ConfigError, RunError
from vitreous.model.build import build_model
from vitreous.model.count import count_flops, count_parameters
from vitreous.objective.build import build_task
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe import keys
from vitreous.recipe.files import read_config, write_config
from vitreous.recipe.plan import Plan
from vitreous.recipe.run_config import RunConfig
from vitreous.seeding import derive
from vitreous.train.budget import Budget, Stopwatch
from vitreous.train.calibrate import evaluation_images_per_s, training_pace
from vitreous.train.checkpoint import list_checkpoints, load_newest
from vitreous.train.curriculum import Curriculum
from vitreous.train.device import (
    describe_hardware,
    describe_software,
    repeatable,
    resolve_device,
    resolve_precision,
)
from vitreous.train.distributed import Group, join
from vitreous.train.features import feature_batches
from vitreous.train.finish import evaluate_state, finish
from vitreous.train.freeze import make_trainable
from vitreous.train.health import watch_over
from vitreous.train.horizon import Horizon
from vitreous.train.launch import after_restart, note_begun
from vitreous.train.loggers import tracked
from vitreous.train.loop import Loop, fit
from vitreous.train.parallel import Parallel, shard, whole
from vitreous.train.prepare import Prepared, load_data, plan_run, survey_again
from vitreous.train.pretrained import begin_from
from vitreous.train.records import Listener, Recorder, ignore
from vitreous.train.rehearsal import rehearse
from vitreous.train.request import TrainRequest
from vitreous.train.run_folder import RunFolder, check_free, create_run_folder, open_run_folder, sweep
from vitreous.train.state import TrainState
from vitreous.train.step import StepSettings
from vitreous.train.teacher import build_teacher, teacher_fingerprint

OUTSIDE_S = 8.0
"""Seconds of a budget kept for what happens outside the loop: imports before it, last files and the report after it."""
EVALUATION_MARGIN = 1.3
"""Evaluation is given this many times what it was measured to take."""
EXPECTED_OVERHEAD = 1.1
"""A step of the loop against a bare one, at first; then the loop knows."""


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
    request = group.first(lambda: after_restart(request)) or request
    if request.resume is None:
        folder, config, surveyed = _find_out(lambda: _begin(request, listener), request, group)
    elif group.first(lambda: _is_complete(request)):
        listener("complete", {"run": str(request.resume)})
        return RunFolder(request.resume)
    else:
        folder, config, surveyed = _find_out(lambda: _read_again(request, listener), request, group)
    with tracked(listener, folder.path, config) if group.is_first else nullcontext(listener) as told:
        recorder = Recorder(folder.records if group.is_first else None, told)
        if processes.restarts():
            recorder.record("restart", {"number": processes.restarts(), "num_processes": group.size})
        prepared = group.in_turn(lambda: load_data(config, surveyed, recorder))
        if prepared.config != config:  # mean and std were measured
            group.first(lambda: write_config(folder.config, prepared.config))
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
    note_begun(folder.path)
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

    folder, config, rest = group.first(tell)
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
    device = resolve_device(config.train.device)
    precision = resolve_precision(config.train.precision, device)
    loader = _loader(prepared, group)
    state = _new_state(prepared, folder, recorder, group)
    with ExitStack() as stack:
        stack.enter_context(repeatable(config.train.deterministic))
        source: TrainLoader | Prefetcher = loader
        if not isinstance(prepared.train, MemoryStore):
            source = stack.enter_context(Prefetcher(loader))
        max_steps = max(1, round(config.train.epochs * loader.steps_per_epoch))
        _load_or_begin(state, prepared, folder, recorder, max_steps, group)
        stopwatch = Stopwatch(state.elapsed_s, started)
        budget = group.is_first and config.train.budget_s and _budget(prepared, state, stopwatch, max_steps)
        state.horizon = group.first(lambda: state.horizon)
        counts = torch.bincount(prepared.train.labels.cpu(), minlength=config.data.num_classes).tolist()
        task = build_task(config.objective, counts, build_teacher(prepared.teacher, config)).to(device)
        is_divided = group.size > 1 and config.train.parallel == "fsdp"
        features = None if is_divided else feature_batches(config, task, state.model, loader, precision)
        settings = StepSettings(
            task,
            config.optim,
            precision,
            config.train.seed,
            build_mix(config.data),
            config.train.accumulate if group.size == 1 else min(config.train.accumulate, loader.least_images),
            Curriculum(config),
            features is not None,
            Parallel(group) if group.size > 1 else None,
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
            patience=config.train.patience,
            watch=watch_over(prepared, precision, recorder) if group.is_first and not is_divided else None,
        )
        if config.train.check and state.step == 0:
            found = group.first(lambda: rehearse(config, loader.batch(0), precision))
            recorder.record("check", asdict(found))
        recorder.record("fit", {"step": state.step, "end_step": state.horizon.end_step, "precision": precision,
                                "steps_per_epoch": loader.steps_per_epoch})  # fmt: skip
        fit(state, settings, loop)
    state.elapsed_s = stopwatch.elapsed_s()
    finish(_undivided(state, config) if is_divided else state, prepared, folder, recorder, group)


def _loader(prepared: Prepared, group: Group) -> TrainLoader:
    data, store = prepared.config.data, prepared.train
    given = prepared.survey.source.weights
    return TrainLoader(
        store,
        prepared.preprocess,
        build_augment(data),
        batch_size=data.batch_size,
        seed=prepared.config.train.seed,
        weights=sampling_weights(
            data, store.labels.cpu().numpy(), None if given is None else given[store.source_indices]
        ),
        repeats=data.repeats,
        share=(group.rank, group.size),
    )


def _new_state(prepared: Prepared, folder: RunFolder, recorder: Recorder, group: Group) -> TrainState:
    config = prepared.config
    generator = torch.Generator().manual_seed(derive(config.train.seed, "init"))
    model = build_model(config.model, device=resolve_device(config.train.device), generator=generator)
    # A run that was begun has its weights in its checkpoints, and the file may be gone.
    if config.train.pretrained is not None and not list_checkpoints(folder.checkpoints):
        recorder.record("pretrained", begin_from(config, model, prepared.survey.facts.classes))
    make_trainable(model, config.train, generator)
    model.set_grad_checkpointing(config.train.grad_checkpointing)
    ema = Ema(model)
    if group.size > 1 and config.train.parallel == "fsdp":
        shard(model, group)
        shard(ema.model, group)
        ema.follow(model)
    return TrainState(
        model=model,
        ema=ema,
        optimizer=build_optimizer(model, config.optim),
        horizon=Horizon(end_step=1),
        data_fingerprint=prepared.survey.facts.fingerprint,
        teacher_fingerprint=teacher_fingerprint(prepared.teacher),
    )


def _undivided(state: TrainState, config: RunConfig) -> TrainState:
    """The same with whole weights and averages in each process."""
    model = build_model(config.model, device=resolve_device(config.train.device))
    make_trainable(model, config.train)
    ema = Ema(model)
    for plain, divided in ((model, state.model), (ema.model, state.ema.model)):
        plain.load_state_dict({name: whole(tensor) for name, tensor in divided.state_dict().items()})
    return replace(state, model=model, ema=ema)


def _load_or_begin(
    state: TrainState, prepared: Prepared, folder: RunFolder, recorder: Recorder, max_steps: int, group: Group
) -> None:
    """Put the newest whole checkpoint into `state`, or set the horizon of a run that begins."""
    teacher = state.teacher_fingerprint
    path, damaged = load_newest(folder.checkpoints, state, group)
    for reason in damaged:
        recorder.record("damaged_checkpoint", {"reason": reason})
    if path is None:
        state.horizon = Horizon(end_step=max_steps)
        return
    fingerprint = prepared.survey.facts.fingerprint
    if state.data_fingerprint != fingerprint:
        raise RunError(
            f"run={folder.path}: its data changed since it began (fingerprint {fingerprint}, was "
            f"{state.data_fingerprint}); restore {prepared.config.data.source}, or train anew"
        )
    if state.teacher_fingerprint != teacher:
        raise RunError(
            f"run={folder.path}: its teacher changed since it began (fingerprint {teacher}, was "
            f"{state.teacher_fingerprint}); restore {prepared.config.objective.teacher}, or train anew"
        )
    recorder.record("resume", {"step": state.step, "checkpoint": path.name, "elapsed_s": state.elapsed_s})


def _budget(prepared: Prepared, state: TrainState, stopwatch: Stopwatch, max_steps: int) -> Budget:
    """Measure, and put the end of the run where the time ends; a run that took its last step stays as it is."""
    config = prepared.config
    passes = 2 * len(prepared.val or ()) + len(prepared.test or ())  # weights and average on validation, one on test
    reserve_s = OUTSIDE_S + EVALUATION_MARGIN * passes / evaluation_images_per_s(config)
    if state.step >= state.horizon.end_step:
        return Budget(stopwatch, config.train.budget_s, reserve_s, max_steps)
    budget = Budget(stopwatch, config.train.budget_s, reserve_s, max_steps, training_pace(config, prepared.teacher))
    step_s = budget.pace.mean_s(state.progress, 1.0)
    steps_left = budget.steps_left(state.step, step_s * EXPECTED_OVERHEAD)
    state.horizon = state.horizon.revised(state.step, steps_left=steps_left)
    return budget


def _start_facts(config: RunConfig, folder: RunFolder) -> dict[str, object]:
    hardware = describe_hardware(resolve_device(config.train.device))
    return {"run": str(folder.path), "recipe": config.recipe, "config": keys.take_apart(config), "hardware": hardware,
            "software": describe_software(), "num_processes": processes.count()}  # fmt: skip
