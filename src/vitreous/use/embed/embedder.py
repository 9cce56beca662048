"""Run or weights of any library -> Embedder (model and preprocessing in one object); images -> Embeddings."""

import warnings
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.doctor.summaries import thumbnails_of_batch
from vitreous.errors import ConfigError
from vitreous.model.change.reshape import resize_model
from vitreous.model.change.trim import trim_last_block
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import is_native, read_metadata
from vitreous.model.weights.open import open_model
from vitreous.model.weights.reading import hub_names
from vitreous.model.weights.reading.files import IN_FOLDER, SUFFIXES, open_weights
from vitreous.model.weights.table import Hints
from vitreous.paths import expanded
from vitreous.tensor_file import parsing
from vitreous.tensors import Features, Pixels
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.weights.provenance import read_provenance, statistics_for
from vitreous.training.weights.transfer import image_sizes
from vitreous.use.embed.embeddings import Embeddings
from vitreous.use.predict.inputs import each_image, images_of, name_of, read_batch, unreadable_text
from vitreous.use.predict.predictor import BATCH_SIZE, Predictor, find_model

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Used for weights whose files do not say how images were normalized; DINO, DINOv2 and most of timm use them."""


@dataclass(frozen=True, eq=False)
class Embedder:
    """A model that describes images by its features, the input of its head.

    The model is in evaluation mode. The preprocessing is that of training, as far as known. Notes say what was assumed
    about the weights, one sentence each.
    """

    model: VisionTransformer
    preprocess: Preprocess
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        img_size: tuple[int, int] | None = None,
        hints: Hints | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Load a run, or weights in any format that `load_model` opens.

        Args:
            source: A run folder, a file or folder of weights, or `hf://organization/name`.
            img_size: Height and width in px; positions are resized. None: the size of a run, and that of other weights
                up to 256 patches.
            hints: What the user says about a file of weights.
            device: Where the model computes.

        Raises:
            NotARunError: There is no model at that path.
            DamagedFileError: The file is damaged.
            ConfigError: The file leaves something open, or patches do not tile images of this size.
        """
        where = located(source)
        opened = open_model(where, hints or Hints())
        model, notes = opened.model.float(), list(opened.notes)
        with open_weights(where) as file:
            provenance, path = read_provenance(file), file.path
        metadata = read_metadata(path) if is_native(path) else {}
        if "pretraining" in metadata:
            with parsing(path, "use the model file of a run"):
                preprocess = Preprocess.from_dict(metadata["preprocess"])
        elif "preprocess" in metadata:
            preprocess = Predictor.from_model(model, metadata, path).preprocess
        else:
            mean, std, config = provenance.mean, provenance.std, model.config
            if mean is None or std is None:
                mean, std = IMAGENET_MEAN, IMAGENET_STD
                notes.append(
                    "assumes mean and std of ImageNet, since its files give none; if wrong, put a "
                    "preprocessor_config.json with image_mean and image_std next to the weights"
                )
            preprocess = Preprocess(
                img_size=next(image_sizes(config, config.patch_size)),
                in_chans=config.in_chans,
                mean=statistics_for(mean, config.in_chans),
                std=statistics_for(std, config.in_chans),
            )
        if img_size is not None:
            _check_size(img_size, model.config.patch_size)
            preprocess = replace(preprocess, img_size=img_size)
        if preprocess.img_size != model.config.img_size:
            model = resize_model(model, preprocess.img_size)
        return cls(trim_last_block(model).to(device), preprocess, tuple(notes))

    def embed(self, images: Any, total: int = 0, listener: Listener = ignore) -> Embeddings:
        """Compute the features of images: of all that `each_image` takes.

        A file or bytes that cannot be decoded get no row, but an entry in `errors`. The progress needs the `total`.

        Raises:
            DataError: Something that is not an image, or an array whose shape or values have no clear meaning.
        """
        rest = each_image(images, self.preprocess.in_chans)
        names, errors, positions = list[str](), list[str](), list[int]()
        rows = [np.zeros((0, self.model.num_features), dtype=np.float32)]
        thumbnails = [thumbnails_of_batch(torch.zeros((0, 1, 1, 1), dtype=torch.uint8))]
        while batch := list(islice(rest, BATCH_SIZE)):
            start = len(names)
            names += [name_of(image, start + offset) for offset, image in enumerate(batch)]
            found = read_batch(self.preprocess, batch, names[start:])
            errors += [reason for reason in found if isinstance(reason, str)]
            positions += [start + offset for offset, image in enumerate(found) if not isinstance(image, str)]
            pixels = [image for image in found if not isinstance(image, str)]
            if pixels:
                rows.append(self.features(torch.stack(pixels)).numpy())
                thumbnails.append(thumbnails_of_batch(torch.stack(pixels)))
            listener("reading", {"what": "computing features", "done": len(names), "total": max(total, len(names))})
        self.preprocess.scale.warn_of_clipped()
        readable = tuple(names[position] for position in positions)
        gray, color = map(np.concatenate, zip(*thumbnails, strict=True))
        where = np.array(positions, dtype=np.int64)
        return Embeddings(readable, np.concatenate(rows), where, (gray, color), tuple(errors))

    def embed_given(self, images: Any) -> Embeddings:
        """Compute the features of what a user passes in Python: folders too, with a warning about unreadable files.

        Raises:
            DataNotFoundError: A path does not exist, or a folder contains no images.
            DataError: As in `embed`.
        """
        found = self.embed(images_of(images, self.preprocess.in_chans))
        if found.errors:
            total = len(found.names) + len(found.errors)
            warnings.warn(unreadable_text(found.errors, total, "embedded"), UserWarning, stacklevel=3)
        return found

    @torch.inference_mode()
    def features(self, pixels: Pixels) -> Features:
        """Return the input of the head, float32 on the CPU, for the output of `preprocess.pixels`, `[n, features]`."""
        images = self.preprocess.normalize(pixels.to(next(self.model.parameters()).device))
        return self.model.pooled(images).float().cpu()


def _check_size(img_size: tuple[int, int], patch_size: int) -> None:
    if any(side % patch_size or side < patch_size for side in img_size):
        near = "x".join(f"{max(1, round(side / patch_size)) * patch_size}" for side in img_size)
        raise ConfigError(
            f"img_size={'x'.join(map(str, img_size))}: not divisible by the model's patches of {patch_size} px; "
            f"use {near}"
        )


def located(source: str | Path, *, or_best: bool = False) -> str | Path:
    """Return what `open_model` takes; explain what a path is that holds no model.

    `or_best` takes the best model so far of a run that is not finished.

    Raises:
        NotARunError: There is no model at that path.
    """
    if hub_names.name_in(source) is not None:
        return hub_names.shown(source)
    path = expanded(source)
    is_foreign = path.is_dir() and not RunFolder(path).config.is_file()
    if is_foreign and any(file.name.endswith((*SUFFIXES, *IN_FOLDER)) for file in path.iterdir()):
        return path
    return find_model(path, or_best=or_best)
