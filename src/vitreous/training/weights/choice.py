"""Data facts, budget, memory, what is in the cache -> the backbone that a run starts from, and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from shlex import quote
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import NotARunError, without_way_out
from vitreous.model.weights.reading import hub
from vitreous.recipe import keys
from vitreous.recipe.planner import MOST_MEMORY
from vitreous.recipe.rules import why_not_photos
from vitreous.recipe.run_config import MODEL_INPUT_KEYS, RunConfig
from vitreous.training.folder.records import Listener
from vitreous.training.machine.device import resolve_device
from vitreous.training.request import TrainRequest
from vitreous.training.weights.backbones import BACKBONES, Backbone
from vitreous.training.weights.pretrained import AUTO

KEY, TEACHER_KEY = "train.pretrained", "objective.teacher"
MOST_IMAGES = 100_000
"""With more images, training from scratch is a fair choice too, so only the user decides."""
FEW_IMAGES = 1_000
"""With fewer, a larger backbone brings little."""
SECONDS_PER_IMAGE = 0.02
"""Time that two cores take to train a ViT-S with an image of 126 px."""
ANSWER_S, PATIENCE_S = 2.0, 20.0
"""Times within which the hub must answer, and a download must get ahead, or a run continues without it."""

_OTHER_STARTS = (
    TEACHER_KEY, "train.start_img_size", "train.pretrained_weights", "train.pretrained_as", "train.pretrain_ratio",
)  # fmt: skip
"""Keys that a backbone might contradict if the user did not ask for one."""


@dataclass(frozen=True)
class _Purpose:
    """What a backbone is chosen for, and the words for it."""

    key: str
    to_use: str
    using: str
    otherwise: str
    loss: str


_START = _Purpose(KEY, "start", "starting", "trains from scratch", "on photos that usually costs much accuracy")
_TEACHER = _Purpose(
    TEACHER_KEY, "learn", "learning", "trains on the labels only", "a small model is usually less accurate then"
)


@dataclass(frozen=True)
class Start:
    """What a run starts from, or learns from.

    `source` is the full name of the weights; None for random weights, or for no teacher. The reason is for the plan.
    """

    source: str | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()


def choose_start(
    request: TrainRequest,
    asked: Mapping[str, Any],
    facts: DataFacts,
    memory: Callable[[RunConfig], float],
    listener: Listener,
) -> Start:
    """Choose the backbone for `train.pretrained=auto`, or one in the cache if the user left the start open.

    Only `auto` downloads; if that fails, the run starts from another backbone in the cache, or from scratch. `asked`
    are all keys that are set; `memory` gives the share of the memory that a training step needs. The listener learns
    what the run starts from before anything is downloaded.
    """
    is_auto = asked.get(KEY) == AUTO
    if not is_auto and not _is_open(request, asked):
        return Start()
    if other := _why_from_scratch(facts):
        way_out = "use --pretrained NAME to start from a backbone anyway"
        note = f"{KEY}=auto: trains from scratch, because {other}; {way_out}"
        return Start(notes=(note,) if is_auto else ())
    best, why, cached = _ranked(facts, asked, memory)
    if is_auto:
        return _chosen(_START, best, why, cached, listener)
    if cached:
        return _from_cache(_START, cached[0], "; --pretrained none trains from scratch", listener)
    return Start(notes=() if best is None else (_recommendation(best, request),))


def choose_teacher(
    asked: Mapping[str, Any], facts: DataFacts, memory: Callable[[RunConfig], float], listener: Listener
) -> Start:
    """Choose the backbone for `objective.teacher=auto`; without one, the run has no teacher.

    The arguments are those of `choose_start`. The size of the images that are asked for is that of the student.
    """
    if other := _why_from_scratch(facts):
        note = f"{TEACHER_KEY}=auto: trains on the labels only, because {other}; use --teacher RUN to learn anyway"
        return Start(notes=(note,))
    asked = {key: value for key, value in asked.items() if key not in ("data.img_size", "data.in_chans")}
    return _chosen(_TEACHER, *_ranked(facts, asked, memory), listener)


def _why_from_scratch(facts: DataFacts) -> str:
    """Return why backbones of photos are not for these data, a clause; empty if they are."""
    if facts.num_train > MOST_IMAGES:
        return why_not_photos(facts) or f"the data has more than {MOST_IMAGES:,} images"
    return why_not_photos(facts)


def _ranked(
    facts: DataFacts, asked: Mapping[str, Any], memory: Callable[[RunConfig], float]
) -> tuple[Backbone | None, str, list[Backbone]]:
    """Return the best backbone without terms, why it is the best, and those in the cache, the best one first."""
    fitting = [one for one in BACKBONES.values() if _fits(one, facts, asked, memory)]
    ideal, why = _ideal(facts, asked)
    best = next((one for one in (BACKBONES[ideal], *fitting) if one in fitting and not one.terms), None)
    return best, why, sorted((one for one in fitting if one.stored()), key=lambda one: one is not best)


def _chosen(purpose: _Purpose, best: Backbone | None, why: str, cached: list[Backbone], listener: Listener) -> Start:
    """Return the best backbone, or one in the cache; download it unless it is there."""
    if best is not None and best not in cached:
        return _downloaded(purpose, best, why, cached, listener)
    if cached:
        return _from_cache(purpose, cached[0], "", listener)
    return Start(notes=(f"{purpose.key}=auto: {purpose.otherwise}, because no backbone fits",))


def download_to(listener: Listener) -> hub.Report:
    """Return a function that passes the progress of a download to the listener."""

    def report(done: float, total: float) -> None:
        text = f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB"
        listener("download", {"share": done / max(total, 1), "text": text})

    return report


def _downloaded(purpose: _Purpose, best: Backbone, why: str, cached: list[Backbone], listener: Listener) -> Start:
    """Download a backbone; if that fails, use another one, or none."""
    listener("backbone", {"text": f"downloading {best.label} to {purpose.to_use} from it: {why}"})
    try:
        hub.fetch(best.repo, answer_s=ANSWER_S, patience_s=PATIENCE_S, report=download_to(listener))
    except NotARunError as error:
        cause = without_way_out(error)
        later = f"run `vitreous models get {best.name}` once there is a connection"
        if cached:
            return replace(_from_cache(purpose, cached[0], "", listener), notes=(f"{cause}; {later}",))
        return Start(notes=(f"{cause}, so this run {purpose.otherwise}; {purpose.loss}; {later}",))
    return Start(hub.PREFIX + best.repo, why)


def _from_cache(purpose: _Purpose, backbone: Backbone, ways_out: str, listener: Listener) -> Start:
    text = f"{purpose.using} from {backbone.label}, which is in the cache{ways_out}"
    listener("backbone", {"text": text})
    return Start(hub.PREFIX + backbone.repo, f"{backbone.name} is in the cache")


def _is_open(request: TrainRequest, asked: Mapping[str, Any]) -> bool:
    """Return True if the user decided nothing that a backbone decides."""
    is_set = KEY in asked or not keys.has_labels(asked)
    is_set = is_set or any(key.startswith("model.") or key in _OTHER_STARTS for key in asked)
    return request.recipe is None and request.model is None and not is_set


def _ideal(facts: DataFacts, asked: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name of the backbone that suits data, budget and device, and why."""
    budget_s, on_cpu = asked.get("train.budget_s"), resolve_device(asked.get("train.device", "auto")).type == "cpu"
    if on_cpu and budget_s and budget_s < SECONDS_PER_IMAGE * facts.num_train:
        return "augreg-tiny", f"{budget_s:g} s are short for {facts.num_train:,} images on a CPU"
    if not on_cpu and facts.num_train >= FEW_IMAGES:
        return "dinov2-base", f"{facts.num_train:,} photos and a GPU are enough for it"
    return "dinov2-small", "its features suit most photos, and it is small enough for a CPU and for few images"


def _fits(backbone: Backbone, facts: DataFacts, asked: Mapping[str, Any], memory: Callable[[RunConfig], float]) -> bool:
    """Return True if a training step with one image fits into memory, and the user's image size into its patches."""
    config = backbone.config
    img_size = asked.get("data.img_size", config.img_size)
    if asked.get("data.in_chans", 3) != 3 or any(side % config.patch_size for side in img_size):
        return False
    values = {f"model.{key}": value for key, value in vars(config).items() if key not in MODEL_INPUT_KEYS}
    values |= {
        "data.source": asked["data.source"],
        "data.img_size": img_size,
        "data.in_chans": 3,
        "data.num_classes": len(facts.classes),
    }
    values |= {"data.batch_size": 1, "train.device": asked.get("train.device", "auto")}
    return memory(keys.assemble("fine-tune", {k: v for k, v in values.items() if k in keys.rules()})) <= MOST_MEMORY


def _recommendation(best: Backbone, request: TrainRequest) -> str:
    install = "" if find_spec("huggingface_hub") else "pip install 'vitreous[hub]', then "
    command = 'vitreous.train(data, pretrained="auto")'
    if request.data is not None:
        command = f"vitreous train {quote(request.data)} --pretrained auto"
    return (
        "on photos, pretrained weights usually reach a much higher accuracy in less time (3,068 photos of clothes in "
        f"four minutes: 91% instead of 75%): {install}`{command}` starts from {best.label}, which is downloaded once"
    )
