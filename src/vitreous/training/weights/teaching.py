"""Teacher, training images -> what it gives before the first step: a fitted head, or targets with its probabilities."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitreous.data.decoding.depth import FULL_RANGE
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.loader import EvalLoader
from vitreous.data.pixels.store import LazyStore, Store
from vitreous.data.survey.facts import Survey
from vitreous.errors import DamagedFileError
from vitreous.recipe.run_config import RunConfig
from vitreous.seeding import derive
from vitreous.tensor_file import open_tensor_file, write_tensor_file
from vitreous.tensors import Probabilities
from vitreous.training.folder.records import Recorder
from vitreous.training.machine.device import precision_of, resolve_device
from vitreous.training.machine.distributed import Group
from vitreous.training.step.features import MOST_OUTPUT_BYTES, compute_features, feature_batch
from vitreous.training.weights.fitted_head import LEAST_PER_CLASS, MOST_IMAGES, fit_head
from vitreous.training.weights.pretrained import Pretrained
from vitreous.training.weights.teacher import build_teacher, has_head, own_statistics
from vitreous.wording import plural, show

MOST_SHARE = 0.3
"""Share of a time budget after which the teacher sees no more images; the others keep their labels."""


def teach(
    teacher: Pretrained | None,
    config: RunConfig,
    survey: Survey,
    store: Store,
    file: Path,
    recorder: Recorder,
    group: Group,
    clock: Callable[[], float],
) -> Probabilities | None:
    """Let the teacher see the training images before the first step; the first process does it for all.

    A teacher without a head for the classes gets one, in place. What it gives is kept in a file, so that a resumed run
    continues with the same numbers. The store has the training images as the student gets them; the teacher is as
    `with_head` returns it.

    Returns:
        For `objective.teacher_views=fixed`, targets of the training images, `[images, classes]`: (1 - w) times the
        label plus w times the probabilities of the teacher, where w is `objective.distill_weight`. Otherwise None.

    Raises:
        DamagedFileError: The file does not belong to this run.
        SaveError: The file cannot be written.
    """
    objective, classes = config.objective, survey.facts.classes
    is_complete = teacher is not None and objective.runs_teacher and has_head(teacher, classes)
    if teacher is None or objective.distill == "feature" or is_complete:
        return None

    def give() -> Mapping[str, Tensor]:
        if not file.is_file():
            given, fields = _ask(teacher, config, survey, store, clock)
            write_tensor_file(file, given, {})
            recorder.record("taught", fields)
        return _read(file, teacher, config, len(store))

    given = group.from_first(give)
    if objective.runs_teacher:
        teacher.model.head.load_state_dict(given)
        return None
    return given["targets"]


def _read(file: Path, teacher: Pretrained, config: RunConfig, num_images: int) -> dict[str, Tensor]:
    way_out = "delete it to let the teacher see the images again"
    num_classes = config.data.num_classes
    expected: dict[str, tuple[int, ...]] = {"targets": (num_images, num_classes)}
    if config.objective.runs_teacher:
        expected = {"weight": (num_classes, teacher.model.config.num_features), "bias": (num_classes,)}
    with open_tensor_file(file, way_out=way_out) as opened:
        if opened.shapes() != expected:
            raise DamagedFileError(f"{file}: does not belong to this run; {way_out}")
        return opened.read_all()


def _ask(
    teacher: Pretrained, config: RunConfig, survey: Survey, store: Store, clock: Callable[[], float]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what the teacher gives, by name, and fields for the records."""
    began_s, objective, num_classes = clock(), config.objective, config.data.num_classes
    features, positions = _features(teacher, config, survey, store, clock)
    labels, size = store.labels.cpu()[positions], show(teacher.model.config.img_size)
    fields: dict[str, Any] = {"num_images": len(positions), "img_size": size, "method": None, "cross_validated": None}
    seen = plural(len(positions), "training image")
    seen = seen if len(positions) == len(store) else f"{len(positions):,} of {plural(len(store), 'training image')}"
    if has_head(teacher, survey.facts.classes):
        with torch.no_grad():
            logits, text = teacher.model.head(features), ""
    else:
        families = survey.families(store.source_indices)[positions]
        head = fit_head(features[:MOST_IMAGES], labels[:MOST_IMAGES], num_classes, families[:MOST_IMAGES])
        logits, text = head.logits(features), f"; a head by {head.method} was fitted to its features"
        fields["method"] = head.method
        if head.cross_validated is not None:
            fields["cross_validated"] = head.cross_validated.as_dict()
            text += f", cross-validated accuracy {head.cross_validated.accuracy:.1%}"
    seconds = clock() - began_s
    fields |= {"seconds": round(seconds, 1), "text": f"teacher: saw {seen} at {size} px in {seconds:.0f} s{text}"}
    if objective.runs_teacher:
        return {"weight": head.weight, "bias": head.bias}, fields
    targets = F.one_hot(store.labels.cpu(), num_classes).float()
    probabilities = (logits / objective.distill_temperature).softmax(dim=1)
    targets[positions] = torch.lerp(targets[positions], probabilities, objective.distill_weight)
    return {"targets": targets}, fields


def _features(
    teacher: Pretrained, config: RunConfig, survey: Survey, store: Store, clock: Callable[[], float]
) -> tuple[Tensor, NDArray[np.int64]]:
    """Return the input of the teacher's head for training images in random order, and their positions in the store.

    For `fixed` views, they are those of the whole images in the teacher's own size, and the mean over each image and
    its mirror image if the run mirrors.
    """
    data, model = config.data, teacher.model
    device, precision = resolve_device(config.train.device), precision_of(config.train)
    deadline_s = clock() + MOST_SHARE * config.train.budget_s if config.train.budget_s else float("inf")
    preprocess = Preprocess(data.img_size, data.in_chans, data.fit, data.mean, data.std, data.value_range or FULL_RANGE)
    most = MOST_OUTPUT_BYTES // (4 * (model.config.num_features + data.num_classes))
    convert, mirrors = build_teacher(teacher, config), False
    if convert is not None:
        convert, most = convert.to(device), min(most, MOST_IMAGES)
    else:
        mean, std = own_statistics(teacher, config)
        size, in_chans, mirrors = model.config.img_size, model.config.in_chans, data.flip
        preprocess = replace(preprocess, img_size=size, in_chans=in_chans, mean=mean, std=std)
        store = LazyStore(survey.source, preprocess, store.source_indices).to(device)
    order = np.random.default_rng(derive(config.train.seed, "teacher")).permutation(len(store))[:most]
    labels, features, num_seen = store.labels.cpu()[order], list[Tensor](), 0
    model = model.to(device)
    for batch in EvalLoader(store, preprocess, feature_batch(config), chosen=order):
        images = batch.images if convert is None else convert.convert(batch.images)
        views = [images, images.flip(-1)] if mirrors else [images]
        outputs = [compute_features(model, [replace(batch, images=view)], precision) for view in views]
        features.append(torch.stack(outputs).mean(dim=0).cpu())
        num_seen += len(images)
        is_enough = num_seen >= LEAST_PER_CLASS * data.num_classes and len(labels[:num_seen].unique()) > 1
        if is_enough and clock() > deadline_s:
            break
    model.cpu()
    return torch.cat(features), order[:num_seen]
