"""Plan, surveyed data -> decoded images, ready for training."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from vitreous.data.config import DataConfig
from vitreous.data.decoding.depth import FULL_RANGE
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.doctor.examine import brief
from vitreous.data.label_sets import present
from vitreous.data.pixels.store import Store, load_store, measure_mean_std
from vitreous.data.survey.facts import Survey
from vitreous.errors import DataError
from vitreous.model.weights.native import fingerprint
from vitreous.recipe.run_config import RunConfig
from vitreous.training.folder.records import Listener, Recorder
from vitreous.training.machine.device import precision_of, resolve_device
from vitreous.training.weights.pretrained import Pretrained
from vitreous.training.weights.teacher import open_teacher, with_head
from vitreous.wording import plural


@dataclass(frozen=True)
class Prepared:
    """The data of a run.

    The configuration has the measured mean and std, and `preprocess` turns any image into the model's input. The
    teacher is a trained model to distill from. Stores and teacher are None if there are none.
    """

    config: RunConfig
    survey: Survey
    preprocess: Preprocess
    train: Store
    val: Store | None
    test: Store | None
    teacher: Pretrained | None = None

    @property
    def precision(self) -> str:
        """Precision in which the run computes on its device."""
        return precision_of(self.config.train)

    @property
    def can_score(self) -> bool:
        """True if there are labeled validation images, by which models are compared."""
        return self.val is not None and self.config.objective.uses_labels


def load_data(config: RunConfig, surveyed: Survey, recorder: Recorder) -> Prepared:
    """Decode the images, and measure their mean and std unless the configuration sets them.

    Raises:
        DataError: The training images that can be decoded show fewer than two classes; or, with `data.on_error=error`,
            an image cannot be decoded.
    """
    data = config.data
    teacher = open_teacher(config.objective.teacher, config.objective.teacher_img_size)
    if teacher is not None:
        recorder.record("teacher", {"source": teacher.source, "fingerprint": fingerprint(teacher.model),
                                    "distill": config.objective.distill})  # fmt: skip
    teacher = with_head(teacher, config, surveyed.facts.classes)
    # Runs of earlier versions have no range for deep images; each was scaled by its own maximum.
    value_range = None if data.value_range is None and surveyed.facts.value_range else data.value_range or FULL_RANGE
    unnormalized = Preprocess(data.img_size, data.in_chans, data.fit, data.mean, data.std, value_range)
    device = resolve_device(config.train.device)
    loaded = _load_stores(data, surveyed, unnormalized, recorder.show)
    skipped = [*surveyed.facts.skipped, *(entry for store in loaded.values() for entry in store.skipped)]
    check_readable(skipped, data.on_error)
    stores = {split: store.to(device) for split, store in loaded.items() if len(store)}
    cache = {split: asdict(store.cache_use) for split, store in loaded.items() if store.cache_use}
    least = 2 if config.objective.uses_labels else 1
    if "train" not in stores or len(present(stores["train"].labels.cpu().numpy())) < least:
        way_out = "add images of another class"
        if skipped:
            way_out = f"fix the others, of which the first is {skipped[0][0]} ({skipped[0][1]})"
        raise DataError(
            f"data.source={data.source}: {plural(len(stores.get('train', ())), 'training image')} can be decoded, of "
            f"fewer than two classes; {way_out}"
        )
    recorder.record("data", asdict(surveyed.facts) | {"skipped": skipped, "num_skipped": len(skipped),
                                                      "num_undecodable": len(skipped) - len(surveyed.facts.skipped),
                                                      "findings": brief(surveyed, stores),
                                                      "cache": cache})  # fmt: skip
    if data.mean is None:
        mean, std = measure_mean_std(stores["train"])
        config = replace(config, data=replace(data, mean=mean, std=std))
    preprocess = replace(unnormalized, mean=config.data.mean, std=config.data.std)
    return Prepared(config, surveyed, preprocess, stores["train"], stores.get("val"), stores.get("test"), teacher)


def _load_stores(data: DataConfig, surveyed: Survey, preprocess: Preprocess, listener: Listener) -> dict[str, Store]:
    """Decode the images of each split that has any."""
    return {
        split: load_store(
            surveyed.source,
            indices,
            preprocess,
            memory_limit_bytes=data.memory_limit_bytes,
            digests=surveyed.digests[indices],
            cache=data.cache,
            progress=progress_to(listener, f"decoding {split}"),
        )
        for split, indices in surveyed.indices.items()
        if len(indices)
    }


def check_readable(skipped: Sequence[tuple[str, str]], on_error: str) -> None:
    """Raise DataError if files were skipped although `data.on_error=error`."""
    if skipped and on_error == "error":
        (which, why), is_one = skipped[0], len(skipped) == 1
        first, them = ("", "it") if is_one else ("the first is ", "them")
        raise DataError(
            f"data.on_error=error: {plural(len(skipped), 'unreadable file')}, {first}{which} ({why}); fix or remove "
            f"{them}, or set data.on_error=skip"
        )


def progress_to(listener: Listener, what: str) -> Callable[[int, int], None]:
    """Return a function (done, total) that reports progress to a listener."""

    def show(done: int, total: int) -> None:
        listener("reading", {"what": what, "done": done, "total": total})

    return show
