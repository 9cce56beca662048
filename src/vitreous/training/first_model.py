"""Pretrained weights, training images -> a head fitted to their features, and the first model of the run with it."""

from vitreous.data.loader import TrainLoader
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.run_config import RunConfig
from vitreous.training.best import save_preliminary
from vitreous.training.finish import evaluate_state
from vitreous.training.folder.records import Recorder
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import Prepared
from vitreous.training.machine.device import resolve_device, resolve_precision
from vitreous.training.machine.distributed import Group
from vitreous.training.step.features import FEATURE_BATCH, compute_features
from vitreous.training.step.state import TrainState
from vitreous.training.weights.fitted_head import MOST_IMAGES, FittedHead, fit_head


def fitted_head(model: VisionTransformer, config: RunConfig, loader: TrainLoader, group: Group) -> FittedHead:
    """Return a head fitted to the features of pretrained weights; the first process fits it for all.

    Source: Kumar et al. 2022, LP-FT (2202.10054): starting from a good head, fine-tuning changes the features less.
    """
    precision = resolve_precision(config.train.precision, resolve_device(config.train.device))

    def fit_it() -> FittedHead:
        images = loader.each_once(FEATURE_BATCH, MOST_IMAGES)
        return fit_head(compute_features(model, images, precision), images.labels, config.data.num_classes)

    return group.from_first(fit_it)


def keep_first_model(
    state: TrainState,
    head: FittedHead,
    prepared: Prepared,
    folder: RunFolder,
    recorder: Recorder,
    *,
    group: Group,
    seconds: float,
) -> None:
    """Save the pretrained weights with the fitted head, `seconds` after the start of the run, and record its scores."""
    train, found = prepared.config.train, None
    if prepared.val is not None:
        precision = resolve_precision(train.precision, resolve_device(train.device))
        found = evaluate_state(state, prepared, precision, group)["trained"]
        state.best_loss = found.loss
    save_preliminary(folder.first, state, "trained", found, prepared, group)
    fields = {
        "method": head.method,
        "seconds": round(seconds, 1),
        "val": None if found is None else found.as_dict(),
        "cross_validated": None if head.cross_validated is None else head.cross_validated.as_dict(),
        "neighbors_accuracy": head.neighbors_accuracy,
    }
    recorder.record("first_model", fields)
