"""Prepared data -> what a run works with: batches, model, average and optimiser, the task, the end of the time."""

from dataclasses import replace

import torch

from vitreous.data.build import build_augment, build_mix, sampling_weights
from vitreous.data.loader import EvalLoader, TrainLoader
from vitreous.errors import RunError
from vitreous.model.build import build_model
from vitreous.model.vit import VisionTransformer
from vitreous.objective.build import build_task
from vitreous.objective.task import Task
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe.run_config import RunConfig
from vitreous.seeding import derive
from vitreous.training.fit.budget import Budget, Stopwatch
from vitreous.training.fit.checkpoint import list_checkpoints, load_newest
from vitreous.training.fit.health import WATCHED_IMAGES, HealthCheck, Watch
from vitreous.training.folder.records import Recorder
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.device import resolve_device
from vitreous.training.machine.distributed import Group
from vitreous.training.machine.parallel import Parallel, full_tensor, shard
from vitreous.training.measure.speed import evaluation_images_per_s, training_pace
from vitreous.training.prepare import Prepared
from vitreous.training.step.compiled import compile_model
from vitreous.training.step.curriculum import Curriculum
from vitreous.training.step.freeze import make_trainable
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings
from vitreous.training.weights.pretrained import begin_from
from vitreous.training.weights.teacher import build_teacher, teacher_fingerprint

OUTSIDE_S = 8.0
"""Seconds of a budget kept for what happens outside the loop: imports before it, last files and the report after it."""
EVALUATION_MARGIN = 1.3
"""Evaluation is given this many times what it was measured to take."""
EXPECTED_OVERHEAD = 1.1
"""A step of the loop against a bare one, at first; then the loop knows."""


def make_loader(prepared: Prepared, group: Group) -> TrainLoader:
    """The training batches, of which each process takes its share."""
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


def make_task(prepared: Prepared) -> Task:
    """What the steps minimise, on the run's device, with a teacher if there is one."""
    config = prepared.config
    counts = torch.bincount(prepared.train.labels.cpu(), minlength=config.data.num_classes).tolist()
    task = build_task(config.objective, counts, build_teacher(prepared.teacher, config))
    return task.to(resolve_device(config.train.device))


def make_settings(
    config: RunConfig,
    task: Task,
    model: VisionTransformer,
    loader: TrainLoader,
    precision: str,
    group: Group,
    *,
    takes_features: bool,
) -> StepSettings:
    """What stays the same from step to step; no process has fewer images than a batch has parts."""
    micro_batches = config.train.micro_batches
    return StepSettings(
        task=task,
        optim=config.optim,
        precision=precision,
        seed=config.train.seed,
        mix=build_mix(config.data),
        num_micro_batches=micro_batches if group.size == 1 else min(micro_batches, loader.least_images),
        curriculum=Curriculum(config),
        takes_features=takes_features,
        parallel=Parallel(group) if group.size > 1 else None,
        compiled=None if takes_features else compile_model(model, config.train.compile),
    )


def new_state(prepared: Prepared, folder: RunFolder, recorder: Recorder, group: Group) -> TrainState:
    """A run before its first step; its weights are fresh, or those that it is to begin from."""
    config = prepared.config
    generator = torch.Generator().manual_seed(derive(config.train.seed, "init"))
    model = build_model(config.model, device=resolve_device(config.train.device), generator=generator)
    # A run that was begun has its weights in its checkpoints, and the file may be gone.
    if config.train.pretrained is not None and not list_checkpoints(folder.checkpoints):
        recorder.record("pretrained", begin_from(config, model, prepared.survey.facts.classes))
    make_trainable(model, config.train, generator)
    model.set_grad_checkpointing(config.train.grad_checkpointing)
    model.set_attention_kernel(config.train.kernel)
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


def undivided(state: TrainState, config: RunConfig) -> TrainState:
    """The same with whole weights and averages in each process."""
    model = build_model(config.model, device=resolve_device(config.train.device))
    make_trainable(model, config.train)
    ema = Ema(model)
    for plain, divided in ((model, state.model), (ema.model, state.ema.model)):
        plain.load_state_dict({name: full_tensor(tensor) for name, tensor in divided.state_dict().items()})
    return replace(state, model=model, ema=ema)


def load_or_begin(
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


def make_budget(prepared: Prepared, state: TrainState, stopwatch: Stopwatch, max_steps: int) -> Budget:
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


def watch_over(prepared: Prepared, precision: str, recorder: Recorder) -> Watch:
    """A Watch for a run, on the first of its validation images."""
    config, images = prepared.config, None
    if prepared.val is not None:
        images = next(iter(EvalLoader(prepared.val, prepared.preprocess, WATCHED_IMAGES))).images
    objective = config.objective
    compares_losses = objective.loss == "cross_entropy" and objective.teacher is None and not objective.logit_adjustment
    check = HealthCheck(config.data.num_classes, config.optim.clip_norm, compares_losses)
    return Watch(check, images, precision, recorder)
