"""TrainRequest -> a run folder with a trained model: begin, prepare, assemble, fit, finish."""

import signal
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from vitreous import atomic, processes
from vitreous.data.corrections import open_data, write_corrections
from vitreous.data.survey.facts import DataFacts, Survey
from vitreous.errors import ConfigError
from vitreous.model.cost.count import count_flops, count_parameters
from vitreous.model.weights import read_metadata
from vitreous.recipe import keys
from vitreous.recipe.files import write_config
from vitreous.recipe.pace import Pace
from vitreous.recipe.plan import Plan
from vitreous.recipe.run_config import RunConfig
from vitreous.recipe.without_labels import after_pretraining, pretraining
from vitreous.training.assemble import RunContext, assemble, is_sharded, make_loader, prefetched, unsharded
from vitreous.training.finish.with_labels import finish
from vitreous.training.finish.without_labels import finish_without_labels
from vitreous.training.fit.checkpoint import list_checkpoints, step_of
from vitreous.training.fit.loop import fit
from vitreous.training.folder.access import (
    check_free,
    create_run_folder,
    exclusive,
    open_run_folder,
    prepare_stage,
    sweep,
)
from vitreous.training.folder.loggers import tracked
from vitreous.training.folder.records import Listener, Recorder, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import Prepared, load_data
from vitreous.training.machine.device import (
    describe_hardware,
    describe_software,
    deterministic,
    precision_of,
    resolve_device,
)
from vitreous.training.machine.distributed import Group, join
from vitreous.training.machine.launch import after_restart, note_run
from vitreous.training.machine.signals import Interrupted
from vitreous.training.measure.instruments import REAL, Instruments
from vitreous.training.measure.overfit import overfit_one_batch
from vitreous.training.moved import folder_to_resume, is_moved, reopen_data, with_copy
from vitreous.training.preliminary import describe_best
from vitreous.training.prepare import plan_run
from vitreous.training.request import TrainRequest
from vitreous.training.step.compiled import compile_ahead
from vitreous.wording import plural


def run_training(request: TrainRequest, listener: Listener = ignore, *, instruments: Instruments = REAL) -> RunFolder:
    """Train a new run, or resume one that was interrupted; return the complete run folder.

    Raises:
        VitreousError: The request, the data or the machine do not allow the run; see `errors`.
        Interrupted: Ctrl-C or SIGTERM; `resume` continues the run.
    """
    started_s, group = instruments.clock(), join()
    listener = listener if group.is_first else ignore
    request = group.from_first(lambda: after_restart(request)) or request
    if request.resume is not None and group.from_first(lambda: _is_complete(request, listener)):
        listener("complete", {"run": str(request.resume)})
        return RunFolder(request.resume)
    with ExitStack() as stack:
        begun = _begin_together(request, listener, instruments, group, stack)
        folder, config = begun.folder, begun.config
        if group.is_first:
            listener = stack.enter_context(tracked(listener, folder.path, config))
        recorder = Recorder(folder.records if group.is_first else None, listener)
        if request.resume is not None:
            config = _on_this_machine(config, recorder)
        if processes.restarts():
            recorder.record("restart", {"number": processes.restarts(), "num_processes": group.size})
        try:
            prepared = group.first_then_others(lambda: load_data(config, begun.survey, recorder))
            if prepared.config != config:  # mean and std were measured
                group.from_first(lambda: write_config(folder.config, prepared.config))
            _train(prepared, RunContext(folder, recorder, group, instruments, started_s, begun.pace))
        except KeyboardInterrupt as error:
            saved = list_checkpoints(folder.checkpoints) or list_checkpoints(RunFolder(folder.pretraining).checkpoints)
            step = step_of(saved[-1]) if saved else None
            number = error.signal_number if isinstance(error, Interrupted) else int(signal.SIGINT)
            raise Interrupted(number, folder.path, step, model=describe_best(folder)) from error
    return folder


def dry_run(
    request: TrainRequest, listener: Listener = ignore, *, instruments: Instruments = REAL
) -> tuple[DataFacts, Plan]:
    """Return the facts of the data and the plan of a run, without writing any file. Raises as `run_training` does."""
    if request.resume is not None:
        raise ConfigError(f"resume={request.resume}: keeps its plan, in plan.md; leave the dry run out")
    check_free(request.out)
    survey, plan = plan_run(request, listener, instruments)
    return survey.facts, plan


def summarize(facts: DataFacts, plan: Plan) -> list[str]:
    """Return sentences on data and model, for the screen and `plan.md`."""
    model = plan.config.model
    num, mflop = count_parameters(model), count_flops(model) / 1e6
    flops = f"{mflop:,.{0 if mflop >= 10 else 2}f} MFLOP per image"
    sentences = [
        _about_data(facts, plan.config),
        f"model: {plural(num, 'parameter')} ({4 * num / 1e6:,.1f} MB), {flops}; "
        f"{plural(model.depth, 'block')} of width {model.embed_dim}, "
        f"{plural(model.num_patches, 'patch', 'patches')} of {model.patch_size} px",
    ]
    if processes.count() > 1:
        batch_size, num = plan.config.data.batch_size, processes.count()
        sentences.append(
            f"{num} processes, {plan.config.train.parallel}: the batch size is the total; each process takes "
            f"{batch_size / num:,.4g} of the {plural(batch_size, 'image')} per step"
        )
    return [*sentences, *plan.advice]


def _about_data(facts: DataFacts, config: RunConfig) -> str:
    """Return how many images there are, what each split serves, and how many of them each class has."""
    num_train = plural(facts.num_train, "image")
    if not config.objective.uses_labels:
        held_out = plural(facts.num_val + facts.num_test, "image")
        unused = "there are no labels" if facts.task == "unlabeled" else "labels are not used"
        return f"{facts.title}: {num_train} to pretrain on, {held_out} held out; {unused}"
    kind, several = "", ""
    if facts.task == "multilabel":
        kind, several = ", multi-label", f"; any number of labels per image, because {facts.task_reason}"
    classes = f"{len(facts.classes):,} classes with {_range(min(facts.class_counts), max(facts.class_counts))}"
    return f"{facts.title}{kind}: {num_train} to train on, {_held_out(facts, config)}; {classes}{several}"


def _held_out(facts: DataFacts, config: RunConfig) -> str:
    """Return what the validation and test images serve."""
    val = plural(facts.num_val, "validation image") if facts.num_val else "none"
    choosing, reporting = "none", val
    if config.train.choose_weights and config.train.epochs:
        choosing, reporting = val, "the same" if facts.num_val else "none"
    if facts.num_test:
        reporting = plural(facts.num_test, "test image")
    return f"{choosing} to choose the weights by, {reporting} to report the accuracy on"


def _range(least: int, most: int) -> str:
    if least == most:
        return f"{plural(most, 'training image')} each"
    return f"{least:,} to {plural(most, 'training image')}"


@dataclass(frozen=True)
class _Begun:
    """A run with its folder, its configuration and its surveyed data.

    `pace` is the time of training steps as the planner measured it; None without a budget, or for a resumed run.
    """

    folder: RunFolder
    config: RunConfig
    survey: Survey
    pace: Pace | None = None


def _begin_together(
    request: TrainRequest, listener: Listener, instruments: Instruments, group: Group, stack: ExitStack
) -> _Begun:
    """Let the first process begin or reopen the run, and hold its folder until `stack` is closed.

    The other processes receive everything except the source, which they open themselves.
    """
    begun = list[_Begun]()

    def begin() -> tuple[Any, ...]:
        is_new = request.resume is None
        run = _begin(request, listener, instruments, stack) if is_new else _resume(request, listener, stack)
        begun.append(run)
        return run.folder, run.config, run.survey.indices, run.survey.facts, run.survey.digests

    folder, config, indices, facts, digests = group.from_first(begin)
    if begun:
        return begun[0]
    source = open_data(config.data, request.source)
    source.reorder_classes(facts.classes)
    return _Begun(folder, config, Survey(source=source, indices=indices, facts=facts, digests=digests))


def _begin(request: TrainRequest, listener: Listener, instruments: Instruments, stack: ExitStack) -> _Begun:
    """Plan a run and create its folder."""
    check_free(request.out)
    survey, plan = plan_run(request, listener, instruments)
    # Asking git takes a while; until the configuration is written, the folder is of no use.
    start = _start_record(plan.config, survey.facts)
    folder = create_run_folder(request.out, survey.facts.name)
    stack.enter_context(exclusive(folder.path, listener))
    stack.callback(folder.clear_unstarted)  # if the configuration cannot be written, the same folder can be used again
    note_run(folder.path)
    if plan.config.data.corrections is not None:  # the file may be edited later
        write_corrections(folder.corrections, survey.source.corrections)
        plan = replace(plan, config=replace(plan.config, data=with_copy(folder, plan.config.data)))
    recorder = Recorder(folder.records, listener)
    recorder.record("start", {"run": str(folder.path), **start})
    write_config(folder.config, plan.config)
    summary = summarize(survey.facts, plan)
    atomic.write_text(folder.plan, plan.as_markdown(summary))
    recorder.record("plan", {"recipe": plan.config.recipe, "summary": summary, "notes": plan.notes,
                             "choices": [asdict(choice) for choice in plan.choices]})  # fmt: skip
    return _Begun(folder, plan.config, survey, plan.pace)


def _resume(request: TrainRequest, listener: Listener, stack: ExitStack) -> _Begun:
    """Read the configuration of an existing run and survey its data again, perhaps at a new place."""
    folder = _open_folder(request)
    stack.enter_context(exclusive(folder.path, listener))
    sweep(folder)
    return _Begun(folder, *reopen_data(folder, request, listener))


def _open_folder(request: TrainRequest) -> RunFolder:
    return open_run_folder(folder_to_resume(request))


def _is_complete(request: TrainRequest, listener: Listener) -> bool:
    """Return True if the run to resume is complete; then only the new place of its data is noted, if one is given."""
    folder = _open_folder(request)
    if folder.model.exists() and is_moved(request):
        with exclusive(folder.path, listener):
            reopen_data(folder, request, listener)
    return folder.model.exists()


def _on_this_machine(config: RunConfig, recorder: Recorder) -> RunConfig:
    """Return the configuration of a resumed run, with another device if this machine does not have the run's."""
    try:
        precision_of(config.train)
    except ConfigError:
        wanted = f"train.device={config.train.device}, train.precision={config.train.precision}"
        recorder.record("device", {"wanted": wanted, "device": str(resolve_device("auto"))})
        return replace(config, train=replace(config.train, device="auto", precision="auto"))
    return config


def _train(prepared: Prepared, context: RunContext) -> None:
    """Train a run, first without labels if it has such a stage."""
    config, folder, group = prepared.config, RunFolder(context.folder.pretraining), context.group
    if config.train.pretrain_ratio:
        if group.from_first(folder.model.is_file):
            spent_s = float(read_metadata(folder.model)["pretraining"]["elapsed_s"])
        else:
            context.recorder.record("pretraining", {"share": config.train.pretrain_ratio})
            group.from_first(lambda: prepare_stage(folder))
            recorder = Recorder(folder.records if group.is_first else None, context.recorder.show)
            stage = replace(prepared, config=pretraining(config), teacher=None)
            spent_s = _train_stage(stage, replace(context, folder=folder, recorder=recorder, pace=None))
            context = replace(context, started_s=context.instruments.clock())
        weights = str(folder.model.resolve())
        prepared = replace(prepared, config=after_pretraining(config, weights))
        context = replace(context, spent_s=spent_s)
    _train_stage(prepared, context)


def _train_stage(prepared: Prepared, context: RunContext) -> float:
    """Train to the last step, then choose, test and save the weights. Return the seconds that were spent until now."""
    config, group, recorder = prepared.config, context.group, context.recorder
    loader = make_loader(prepared, group)
    with deterministic(config.train.deterministic), prefetched(prepared, loader) as batches:
        state, settings, loop = assemble(prepared, loader, batches, context)
        if config.train.overfit_one_batch and state.step == 0:
            check = group.from_first(lambda: overfit_one_batch(config, loader.batch(0), settings.precision))
            recorder.record("check", asdict(check))
        if settings.compiled is not None:
            seconds = compile_ahead(state, loader.batch(state.step), settings)
            recorder.record("compiled", {"mode": config.train.compile, "seconds": round(seconds, 1)})
        fields = {"step": state.step, "end_step": state.horizon.end_step, "precision": settings.precision}
        budget_s = config.train.budget_s
        recorder.record("fit", fields | {"steps_per_epoch": loader.steps_per_epoch, "budget_s": budget_s})
        fit(state, settings, loop)
    state.elapsed_s = loop.stopwatch.elapsed_s()
    if config.objective.uses_labels:
        complete = unsharded(state, config) if is_sharded(config, group) else state
        share = 1.0 if loop.budget is None else loop.budget.limit.familiar_share
        finish(complete, prepared, context.folder, recorder, group, share)
    else:
        group.from_first(lambda: finish_without_labels(state, prepared, context.folder, recorder))
    return loop.stopwatch.elapsed_s()


def _start_record(config: RunConfig, facts: DataFacts) -> dict[str, object]:
    hardware = describe_hardware(resolve_device(config.train.device))
    return {"recipe": config.recipe, "config": keys.take_apart(config), "hardware": hardware,
            "software": describe_software(), "num_processes": processes.count(),
            "classes": facts.classes, "fingerprint": facts.fingerprint}  # fmt: skip
