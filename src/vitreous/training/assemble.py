"""Prepared data -> everything that a run trains with: model, optimizer, task, budget and the loop around the steps."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch

from vitreous.data.build import build_augment, build_mix, sampling_weights
from vitreous.data.label_sets import count_labels, is_multilabel
from vitreous.data.loader import EvalLoader, Prefetcher, TrainLoader
from vitreous.data.pixels.store import MemoryStore
from vitreous.errors import RunError
from vitreous.extensions import find_extension
from vitreous.model.weights.native import fingerprint
from vitreous.objective.task import Supervised, Task
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe.pace import Pace, TimeLimit
from vitreous.recipe.run_config import RunConfig
from vitreous.seeding import derive
from vitreous.training.finish.with_labels import evaluate_models, evaluate_state
from vitreous.training.fit.budget import Budget, Stopwatch, run_limit, time_for_features
from vitreous.training.fit.checkpoint import list_checkpoints, load_newest
from vitreous.training.fit.health import WATCHED_IMAGES, HealthCheck, Watch
from vitreous.training.fit.loop import Loop
from vitreous.training.folder.records import Recorder
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import Prepared
from vitreous.training.machine.device import resolve_device
from vitreous.training.machine.distributed import Group
from vitreous.training.machine.parallel import Parallel, full_tensor, shard
from vitreous.training.measure.instruments import Instruments
from vitreous.training.preliminary import FittedHeads, first_model, fit_heads, keep_best, keep_first_model
from vitreous.training.step.compiled import compile_model
from vitreous.training.step.curriculum import Curriculum, is_linear_probe
from vitreous.training.step.features import FixedOutputs, fixed_outputs
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.learner import new_model, pretext_task, ready_to_train, with_own_loss
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings
from vitreous.training.weights.pretrained import begin_from
from vitreous.training.weights.teacher import build_teacher
from vitreous.training.weights.teaching import teach


@dataclass(frozen=True)
class RunContext:
    """The folder, processes, instruments and starting time of a run.

    `started_s` is the reading of the clock when this process started, and `spent_s` the seconds that the run had taken
    before that, unless a checkpoint has them. `pace` is the time of training steps as the planner measured it; None
    without a budget, or for a resumed run.
    """

    folder: RunFolder
    recorder: Recorder
    group: Group
    instruments: Instruments
    started_s: float
    pace: Pace | None = None
    spent_s: float = 0.0


def assemble(
    prepared: Prepared, loader: TrainLoader, batches: TrainLoader | Prefetcher, context: RunContext
) -> tuple[TrainState, StepSettings, Loop]:
    """Build the state and the loop that `fit` takes, for a new run or from the newest checkpoint of an interrupted one.

    `loader` and `batches` give the same training batches of this process, the latter perhaps prefetched.

    Raises:
        RunError: A checkpoint does not fit the run, or its data or teacher have changed.
    """
    config, group, recorder = prepared.config, context.group, context.recorder
    limit = run_limit(config, prepared.survey.facts, context.instruments.evaluation_images_per_s, group)
    state, fixed, keeps_head, heads = new_state(prepared, loader, context, limit)
    max_steps = max(int(config.train.epochs > 0), round(config.train.epochs * loader.steps_per_epoch))
    _restore_or_begin(state, prepared, context, max_steps)
    stopwatch = Stopwatch(state.elapsed_s, context.started_s, context.instruments.clock)
    evaluation_s = 0.0 if heads is None else _begin_with(heads, state, prepared, context, stopwatch)
    budget = None if limit is None else _budget(limit, prepared, state, context, stopwatch, max_steps)
    state.horizon = group.broadcast(state.horizon)
    is_watched = group.is_first and not is_sharded(config, group)
    task = pretext_task(config) or _task(prepared, context.instruments)
    fixed = fixed if type(task) is Supervised else None  # others may use more of the model than its logits
    # One of several processes may have fewer images of a batch than there are micro-batches.
    most_micro_batches = loader.least_images if group.size > 1 else config.train.micro_batches
    settings = StepSettings(
        task=task,
        optim=config.optim,
        precision=prepared.precision,
        seed=config.train.seed,
        mix=build_mix(config.data),
        num_micro_batches=min(config.train.micro_batches, most_micro_batches),
        curriculum=Curriculum(config),
        trained=None if fixed is None else fixed.trained,
        parallel=Parallel(group) if group.size > 1 else None,
        augment=find_extension(config.model.extension).augment,
        compiled=compile_model(state.model, config.train.compile) if fixed is None else None,
    )
    loop = Loop(
        folder=context.folder,
        recorder=recorder,
        stopwatch=stopwatch,
        budget=budget,
        batch=batches.batch if fixed is None else fixed.batch,
        steps_per_epoch=loader.steps_per_epoch,
        evaluate=partial(evaluate_state, state, prepared, group) if prepared.can_score else None,
        keep_best=partial(keep_best, prepared=prepared, folder=context.folder, group=group),
        checkpoint_every_s=config.train.checkpoint_every_s,
        max_retries=config.train.max_retries,
        patience=config.train.patience_ratio,
        watch=_watch(prepared, recorder, keeps_head=keeps_head) if is_watched else None,
        evaluation_s=evaluation_s,
        has_labels=config.objective.uses_labels,
        can_run_ahead=context.instruments.can_run_ahead,
    )
    return state, settings, loop


def _begin_with(
    heads: FittedHeads, state: TrainState, prepared: Prepared, context: RunContext, stopwatch: Stopwatch
) -> float:
    """Evaluate and save the first model. Return the seconds that later evaluations take; 0 without a time limit."""
    began_s, model = stopwatch.elapsed_s(), first_model(state, heads)
    val = evaluate_models({"first": model}, prepared, context.group).get("first")
    now_s = stopwatch.elapsed_s()
    fields = keep_first_model(state, heads, model, val, prepared, context.folder, context.group)
    context.recorder.record("first_model", {"seconds": round(now_s, 1), **fields})
    return 2 * (now_s - began_s) if prepared.config.train.budget_s else 0.0  # of the weights and of their average


def make_loader(prepared: Prepared, group: Group) -> TrainLoader:
    """Return the training batches, of which each process gets its share."""
    data, store = prepared.config.data, prepared.train
    weights = prepared.survey.source.weights
    if weights is not None:
        weights = weights[store.source_indices]
    return TrainLoader(
        store,
        prepared.preprocess,
        build_augment(data),
        batch_size=data.batch_size,
        seed=prepared.config.train.seed,
        weights=sampling_weights(data, store.labels.cpu().numpy(), weights),
        repeats=data.repeats,
        share=(group.rank, group.size),
    )


def prefetched(prepared: Prepared, loader: TrainLoader) -> AbstractContextManager[TrainLoader | Prefetcher]:
    """Context manager that prepares the next batches in a thread, unless the images are in memory already."""
    return nullcontext(loader) if isinstance(prepared.train, MemoryStore) else Prefetcher(loader)


def new_state(
    prepared: Prepared, loader: TrainLoader, context: RunContext, limit: TimeLimit | None = None
) -> tuple[TrainState, FixedOutputs | None, bool, FittedHeads | None]:
    """Return the state of a run before its first step, and how it begins.

    Returns:
        The state, the outputs of the layers that never change, whether the head is from a file, and the fitted heads.
    """
    config, group = prepared.config, context.group
    generator = torch.Generator().manual_seed(derive(config.train.seed, "init"))
    model = new_model(config, generator)
    fixed = None if is_sharded(config, group) else fixed_outputs(config, model, loader, prepared.precision)
    keeps_head, heads = False, None
    # A run with checkpoints restores its weights from them, and the pretrained file may be gone.
    if config.train.pretrained is not None and not list_checkpoints(context.folder.checkpoints):
        context.recorder.record("pretrained", begin_from(config, model, prepared.survey.facts.classes))
        keeps_head = any(bool(parameter.any()) for parameter in model.head.parameters())
        if config.train.head_init == "fitted" and not keeps_head:
            left = time_for_features(limit, context.started_s, context.instruments.clock, config)
            families = prepared.survey.families(prepared.train.source_indices)
            heads = fit_heads(model, config, loader, group, families, fixed, left)
            if heads.own is not None:
                heads.own.copy_into(model.head)
    model = ready_to_train(model, config, generator)
    ema = Ema(model)
    if is_sharded(config, group):
        shard(model, group)
        shard(ema.model, group)
        ema.follow(model)
    state = TrainState(
        model=model,
        ema=ema,
        optimizer=build_optimizer(model, config.optim, prepared.precision),
        horizon=Horizon(end_step=1),
        elapsed_s=context.spent_s,
        data_fingerprint=prepared.survey.facts.fingerprint,
        teacher_fingerprint="" if prepared.teacher is None else fingerprint(prepared.teacher.model),
    )
    _teach(prepared, loader, context)
    return state, fixed, keeps_head, heads


def _teach(prepared: Prepared, loader: TrainLoader, context: RunContext) -> None:
    """Let a teacher see the training images before the first step, if it needs to."""
    clock, file = context.instruments.clock, context.folder.teacher
    given = teach(
        prepared.teacher, prepared.config, prepared.survey, prepared.train, file, context.recorder, context.group, clock
    )
    if given is not None:
        loader.replace_labels(given)


def is_sharded(config: RunConfig, group: Group) -> bool:
    """Return True if the weights are sharded over several processes."""
    return group.size > 1 and config.train.parallel == "fsdp"


def unsharded(state: TrainState, config: RunConfig) -> TrainState:
    """Return the state with the complete weights and averages in each process."""
    model = ready_to_train(new_model(config), config)
    ema = Ema(model)
    for complete, sharded in ((model, state.model), (ema.model, state.ema.model)):
        complete.load_state_dict({name: full_tensor(tensor) for name, tensor in sharded.state_dict().items()})
    return replace(state, model=model, ema=ema)


def _restore_or_begin(state: TrainState, prepared: Prepared, context: RunContext, max_steps: int) -> None:
    """Load the newest intact checkpoint into `state`; without any checkpoint, set the horizon of a new run."""
    teacher = state.teacher_fingerprint
    path, damaged = load_newest(context.folder.checkpoints, state, context.group)
    for reason in damaged:
        context.recorder.record("damaged_checkpoint", {"reason": reason})
    if path is None:
        state.horizon = Horizon(end_step=max_steps)
        return
    fingerprint, run = prepared.survey.facts.fingerprint, context.folder.path
    if state.data_fingerprint != fingerprint:
        raise RunError(
            f"run={run}: its data has changed since the run started (fingerprint {fingerprint}, was "
            f"{state.data_fingerprint}); restore {prepared.config.data.source}, or start a new run"
        )
    if state.teacher_fingerprint != teacher:
        raise RunError(
            f"run={run}: its teacher has changed since the run started (fingerprint {teacher}, was "
            f"{state.teacher_fingerprint}); restore {prepared.config.objective.teacher}, or start a new run"
        )
    context.recorder.record("resume", {"step": state.step, "checkpoint": path.name, "elapsed_s": state.elapsed_s})


def _budget(
    limit: TimeLimit,
    prepared: Prepared,
    state: TrainState,
    context: RunContext,
    stopwatch: Stopwatch,
    max_steps: int,
) -> Budget:
    """Return the budget of a run, and use it to set the last step unless all steps are already taken."""
    config, instruments = prepared.config, context.instruments
    if state.step >= state.horizon.end_step:
        return Budget(limit, max_steps)
    pace = context.pace
    # The planner measured steps before it weakened augmentation. Without any, a linear probe trains on fixed features.
    if pace is None or is_linear_probe(config):
        pace = instruments.training_pace(config, prepared.teacher)
    budget = Budget(limit, max_steps, pace, least_steps=1 if context.folder.find_preliminary() is None else 0)
    budget.begin(state, stopwatch.elapsed_s())
    return budget


def _task(prepared: Prepared, instruments: Instruments) -> Task:
    """Return what the steps minimize, on the device of the run, with its teacher if there is one."""
    config = prepared.config
    labels = prepared.train.labels.cpu().numpy()
    counts = count_labels(labels, config.data.num_classes).tolist()
    if is_multilabel(labels):
        counts = [(len(labels) - count, count) for count in counts]
    task = instruments.build_task(config.objective, counts, build_teacher(prepared.teacher, config))
    return with_own_loss(task, config.model.extension).to(resolve_device(config.train.device))


def _watch(prepared: Prepared, recorder: Recorder, *, keeps_head: bool) -> Watch:
    """Return the health checks of a run, which look at the first of its validation images."""
    config, images = prepared.config, None
    if prepared.val is not None:
        images = next(iter(EvalLoader(prepared.val, prepared.preprocess, WATCHED_IMAGES))).images
    objective = config.objective
    is_plain = objective.loss == "cross_entropy" and objective.teacher is None and not objective.logit_adjustment
    # Only a pretrained head can be confident, and wrong, before the first step.
    check = HealthCheck(
        config.data.num_classes,
        config.optim.clip_norm,
        compares_losses=is_plain and keeps_head,
        fixed_steps=config.optim.name in ("muon", "lion"),
    )
    return Watch(check, images, prepared.precision, recorder)
