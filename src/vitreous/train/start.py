"""TrainRequest -> a run folder with a trained model in it: plan, prepare, fit, finish."""

import time
from contextlib import ExitStack
from dataclasses import asdict

import torch

from vitreous import atomic
from vitreous.data.build import build_augment, build_mix, sampling_weights
from vitreous.data.facts import DataFacts
from vitreous.data.loader import Prefetcher, TrainLoader
from vitreous.data.sources import PYTHON_PREFIX
from vitreous.data.store import MemoryStore
from vitreous.errors import ConfigError, RunError
from vitreous.model.build import build_model
from vitreous.model.count import count_flops, count_parameters
from vitreous.objective.build import build_task
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe.files import read_config, write_config
from vitreous.recipe.plan import Plan
from vitreous.recipe.run_config import RunConfig
from vitreous.seeding import derive
from vitreous.train.budget import Budget, Stopwatch
from vitreous.train.calibrate import evaluation_images_per_s, training_images_per_s
from vitreous.train.checkpoint import load_newest
from vitreous.train.device import describe_hardware, resolve_device, resolve_precision
from vitreous.train.finish import evaluate_state, finish
from vitreous.train.horizon import Horizon
from vitreous.train.loop import Loop, fit
from vitreous.train.prepare import Prepared, load_data, plan_run, survey_again
from vitreous.train.records import Listener, Recorder, ignore
from vitreous.train.request import TrainRequest
from vitreous.train.run_folder import RunFolder, check_free, create_run_folder, open_run_folder, sweep
from vitreous.train.state import TrainState
from vitreous.train.step import StepSettings
from vitreous.version import __version__

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
    started = time.monotonic()
    if request.resume is not None:
        return _resume(request, listener, started)
    check_free(request.out)
    surveyed, plan = plan_run(request, listener)
    folder = create_run_folder(request.out, surveyed.facts.name)
    recorder = Recorder(folder.records, listener)
    recorder.record("start", _start_facts(plan.config, folder))
    write_config(folder.config, plan.config)
    summary = summarise(surveyed.facts, plan)
    atomic.write_text(folder.plan, plan.as_markdown(summary))
    recorder.record("plan", {"recipe": plan.config.recipe, "summary": summary, "notes": plan.notes,
                             "choices": [asdict(choice) for choice in plan.choices]})  # fmt: skip
    prepared = load_data(plan.config, surveyed, recorder)
    write_config(folder.config, prepared.config)
    _fit_and_finish(prepared, folder, recorder, started)
    return folder


def dry_run(request: TrainRequest, listener: Listener = ignore) -> tuple[DataFacts, Plan]:
    """Everything up to the first file: what the data is and what a run would do. Raises as `run_training`."""
    surveyed, plan = plan_run(request, listener)
    return surveyed.facts, plan


def summarise(facts: DataFacts, plan: Plan) -> list[str]:
    """Sentences on data and model, for the screen and `plan.md`."""
    model = plan.config.model
    counts, mflop = sorted(facts.class_counts), count_flops(model) / 1e6
    return [
        f"{facts.name}: {facts.num_train:,} images to train on, {facts.num_val:,} to validate, "
        f"{facts.num_test:,} to test; {len(facts.classes)} classes of {counts[0]:,} to {counts[-1]:,} training images",
        f"model: {count_parameters(model):,} parameters, {mflop:,.{0 if mflop >= 10 else 2}f} MFLOP an image; "
        f"{model.depth} blocks of width {model.embed_dim}, {model.num_patches} patches of {model.patch_size} px",
    ]


def _resume(request: TrainRequest, listener: Listener, started: float) -> RunFolder:
    path = request.resume
    if path is None or any((request.data, request.recipe, request.model, request.values, request.out)):
        raise ConfigError(f"resume={path}: takes no other options, a run goes on as it began; leave them out")
    folder = open_run_folder(path)
    config = read_config(folder.config)
    if request.source is not None and not config.data.source.startswith(PYTHON_PREFIX):
        raise ConfigError(f"resume={path}: its data is {config.data.source}, which is opened again; give no other")
    recorder = Recorder(folder.records, listener)
    if folder.model.exists():
        recorder.show("complete", {"run": str(folder.path)})
        return folder
    sweep(folder)
    prepared = load_data(config, survey_again(config.data, listener, request.source), recorder)
    if prepared.config != config:  # killed before mean and std were written
        write_config(folder.config, prepared.config)
    _fit_and_finish(prepared, folder, recorder, started)
    return folder


def _fit_and_finish(prepared: Prepared, folder: RunFolder, recorder: Recorder, started: float) -> None:
    config = prepared.config
    device = resolve_device(config.train.device)
    precision = resolve_precision(config.train.precision, device)
    loader = _loader(prepared)
    state = _new_state(prepared)
    with ExitStack() as stack:
        source: TrainLoader | Prefetcher = loader
        if not isinstance(prepared.train, MemoryStore):
            source = stack.enter_context(Prefetcher(loader))
        max_steps = max(1, round(config.train.epochs * loader.steps_per_epoch))
        _load_or_begin(state, prepared, folder, recorder, max_steps)
        stopwatch = Stopwatch(state.elapsed_s, started)
        budget = _budget(prepared, state, stopwatch, max_steps) if config.train.budget_s else None
        counts = torch.bincount(prepared.train.labels.cpu(), minlength=config.data.num_classes).tolist()
        task = build_task(config.objective, counts).to(device)
        settings = StepSettings(
            task, config.optim, precision, config.train.seed, build_mix(config.data), config.train.accumulate
        )
        loop = Loop(
            folder=folder,
            recorder=recorder,
            stopwatch=stopwatch,
            budget=budget,
            batch=source.batch,
            steps_per_epoch=loader.steps_per_epoch,
            evaluate=(lambda: evaluate_state(state, prepared, precision)) if prepared.val else None,
            checkpoint_every_s=config.train.checkpoint_every_s,
            max_retries=config.train.max_retries,
        )
        recorder.record("fit", {"step": state.step, "end_step": state.horizon.end_step, "precision": precision,
                                "steps_per_epoch": loader.steps_per_epoch})  # fmt: skip
        fit(state, settings, loop)
    state.elapsed_s = stopwatch.elapsed_s()
    finish(state, prepared, folder, recorder)


def _loader(prepared: Prepared) -> TrainLoader:
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
    )


def _new_state(prepared: Prepared) -> TrainState:
    config = prepared.config
    generator = torch.Generator().manual_seed(derive(config.train.seed, "init"))
    model = build_model(config.model, device=resolve_device(config.train.device), generator=generator)
    model.set_grad_checkpointing(config.train.grad_checkpointing)
    return TrainState(
        model=model,
        ema=Ema(model),
        optimizer=build_optimizer(model, config.optim),
        horizon=Horizon(end_step=1),
        data_fingerprint=prepared.survey.facts.fingerprint,
    )


def _load_or_begin(
    state: TrainState, prepared: Prepared, folder: RunFolder, recorder: Recorder, max_steps: int
) -> None:
    """Put the newest whole checkpoint into `state`, or set the horizon of a run that begins."""
    path, damaged = load_newest(folder.checkpoints, state)
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
    recorder.record("resume", {"step": state.step, "checkpoint": path.name, "elapsed_s": state.elapsed_s})


def _budget(prepared: Prepared, state: TrainState, stopwatch: Stopwatch, max_steps: int) -> Budget:
    """Measure, and put the end of the run where the time ends; a run that took its last step stays as it is."""
    config = prepared.config
    passes = 2 * len(prepared.val or ()) + len(prepared.test or ())  # weights and average on validation, one on test
    reserve_s = OUTSIDE_S + EVALUATION_MARGIN * passes / evaluation_images_per_s(config)
    budget = Budget(stopwatch, config.train.budget_s, reserve_s, max_steps)
    if state.step >= state.horizon.end_step:
        return budget
    step_s = config.data.batch_size / training_images_per_s(config)
    steps_left = budget.steps_left(state.step, step_s * EXPECTED_OVERHEAD)
    state.horizon = state.horizon.revised(state.step, steps_left=steps_left)
    return budget


def _start_facts(config: RunConfig, folder: RunFolder) -> dict[str, object]:
    hardware = describe_hardware(resolve_device(config.train.device))
    return {"vitreous": __version__, "run": str(folder.path), "recipe": config.recipe, "hardware": hardware}
