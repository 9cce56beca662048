"""State of a run without labels -> model.safetensors without the decoder, a check for collapse, reconstructions.jpg."""

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch.nn import functional as F

from vitreous import atomic
from vitreous.data.loader import EvalLoader
from vitreous.model.pretext import without_pretext
from vitreous.model.weights import save_model
from vitreous.objective.masked import MaskedModeling
from vitreous.seeding import derive
from vitreous.tensors import Features, Images
from vitreous.training.folder.images import write_images
from vitreous.training.folder.records import Recorder
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import Prepared
from vitreous.training.preliminary import describe_model
from vitreous.training.step.learner import pretext_task
from vitreous.training.step.state import TrainState

MOST_IMAGES, BATCH = 512, 64
"""Images from which loss and spread of the features are measured, and images at once."""
NUM_PICTURES, PICTURE_PX = 8, 160
"""Rows of the picture of reconstructions, and about the longer side of each image on it."""
_GAP_PX = 4
LEAST_RANK, LEAST_SPREAD, LEAST_IMAGES = 2.0, 0.01, 16
"""Effective rank and spread of features below which the model has collapsed: all images look the same to it. Of fewer
images, even different ones have a low rank."""


@dataclass(frozen=True)
class FeatureSpread:
    """How much the features of different images differ.

    `effective_rank` is from 1 to the width of the features. `spread` is the root mean square distance from the mean
    feature, relative to the root mean square feature, from 0 to 1.
    """

    num_images: int
    width: int
    effective_rank: float
    spread: float

    @property
    def warning(self) -> str:
        """What is wrong with a model whose features have collapsed; empty if they have not."""
        if self.num_images < LEAST_IMAGES or (self.effective_rank >= LEAST_RANK and self.spread >= LEAST_SPREAD):
            return ""
        return (
            f"features={self.width}: have collapsed, as {self.num_images:,} images hardly differ in them (effective "
            f"rank {self.effective_rank:.1f}, spread {self.spread:.2g}); train longer, or lower optim.lr"
        )


def measure_spread(features: Features) -> FeatureSpread:
    """Measure how much features differ between images.

    Source: the effective rank is the exponential of the entropy of the singular values, Roy & Vetterli 2007, as in
    RankMe, Garrido et al. 2023 (2210.02885). We subtract the mean feature first.
    """
    features = features.double()
    centered = features - features.mean(dim=0)
    singular = torch.linalg.svdvals(centered)
    shares = singular / singular.sum().clamp(min=torch.finfo(singular.dtype).tiny)
    spread = centered.norm() / features.norm().clamp(min=torch.finfo(singular.dtype).tiny)
    rank = math.exp(float(torch.special.entr(shares).sum()))
    return FeatureSpread(len(features), features.shape[1], rank, float(spread))


def finish_without_labels(state: TrainState, prepared: Prepared, folder: RunFolder, recorder: Recorder) -> None:
    """Save the average of the weights, without decoder or projector, and what it has learned.

    Measured on validation images, or on training images if there are none. The picture shows, for some of them, the
    image, the part that the model sees, and what it makes of it.

    Raises:
        SaveError: A file could not be written; the checkpoints are complete, so the run can be resumed from here.
    """
    config, learner = prepared.config, state.ema.model
    store = prepared.train if prepared.val is None else prepared.val
    chosen = np.random.default_rng(derive(config.train.seed, "pictures")).permutation(len(store))[:MOST_IMAGES]
    loader, task = EvalLoader(store, prepared.preprocess, BATCH, chosen=chosen), pretext_task(config)
    losses, features, pictures = [], [], None
    learner.eval()
    torch.manual_seed(derive(config.train.seed, "masks"))
    with torch.no_grad():
        for batch in loader:
            features.append(learner.pooled(batch.images).float().cpu())
            if isinstance(task, MaskedModeling):
                losses.append(float(task(learner, batch.images, batch.labels)[0]) * len(batch.images))
                if pictures is None:
                    shown = batch.images[:NUM_PICTURES]
                    pictures = shown, *task.reconstruct(learner, shown)
    found = measure_spread(torch.cat(features))
    numbers: dict[str, Any] = asdict(found) | {"loss": sum(losses) / len(chosen) if losses else None}
    recorder.record("health", {"step": state.step, **asdict(found), "notes": [found.warning] if found.warning else []})
    end = {"step": state.step, "elapsed_s": state.elapsed_s, "refused": state.refused, "weights": "average"}
    recorder.record("end", end | {"metrics": {}, "pretraining": numbers})
    if pictures is not None:
        atomic.write_bytes(folder.reconstructions, _drawn(pictures, prepared.preprocess.as_dict()))
    write_images(folder.images, prepared.survey)
    metadata = describe_model(state, prepared) | {"classes": [], "temperature": 1.0, "metrics": {}} | {
        "weights": "average", "pretraining": numbers | {"method": config.objective.loss, "elapsed_s": state.elapsed_s},
    }  # fmt: skip
    save_model(folder.model, without_pretext(learner), metadata)


def _drawn(columns: tuple[Images, ...], preprocess: Mapping[str, Any]) -> bytes:
    """Return a JPEG with one column for each batch of normalized images, and one row for each image."""
    std, mean = (torch.tensor(preprocess[key]).view(-1, 1, 1) for key in ("std", "mean"))
    grid = torch.stack([column.float().cpu() * std + mean for column in columns], dim=1)  # [rows, columns, c, h, w]
    grid = grid[:, :, :3] if grid.shape[2] >= 3 else grid[:, :, :1].expand(-1, -1, 3, -1, -1)
    zoom = max(1, PICTURE_PX // max(grid.shape[-2:]))
    enlarged = grid.repeat_interleave(zoom, dim=3).repeat_interleave(zoom, dim=4)
    framed = F.pad(enlarged, (_GAP_PX,) * 4, value=1.0)
    pixels = rearrange((framed.clamp(0, 1) * 255).round().byte(), "row column c h w -> (row h) (column w) c")
    content = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(content, format="jpeg", quality=90)
    return content.getvalue()
