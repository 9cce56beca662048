"""Cases of backbones on the hub, of versions of torch's format, and of fitted heads."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from huggingface_hub import constants
from tests.advice.walk import Refusals, case
from tests.hub_server import Hub, serving

from vitreous.cli.train.models import models
from vitreous.model.weights.reading import torch_file
from vitreous.model.weights.reading.files import open_weights
from vitreous.model.weights.reading.hub import fetch, stored
from vitreous.recipe import keys
from vitreous.training.weights.backbones import backbone_named

NAME = "org/tiny"
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(200)) * 9}


@contextmanager
def hub_in(folder: Path) -> Iterator[Hub]:
    """Serve a hub with one repository, which huggingface_hub asks in this process."""
    with serving({NAME: dict(FILES)}) as hub, pytest.MonkeyPatch.context() as changes:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        changes.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        changes.setattr(constants, "ENDPOINT", hub.url)
        changes.setattr(constants, "HF_HUB_CACHE", str(folder / "hf"))
        changes.setenv("VITREOUS_CACHE", str(folder / "v"))
        yield hub


@case
def downloads_from_the_hub(folder: Path) -> Refusals:
    record = folder / "v" / "hub" / "org--tiny.json"
    with hub_in(folder) as hub:
        yield lambda: fetch("../x/y"), "write hf://organization/name"
        hub.repos[NAME].pop("model.safetensors")
        yield lambda: fetch(NAME), "give one that has"
        hub.repos[NAME].update(FILES)
        hub.lies.add("model.safetensors")
        yield lambda: fetch(NAME), "download again"
        hub.lies.clear()
        path = fetch(NAME) / "model.safetensors"
        path.resolve().write_bytes(b"x")
        yield lambda: fetch(NAME), f"run `vitreous models get {NAME}` to replace it"
        with redirect_stdout(StringIO()):
            models("get", NAME)
        assert fetch(NAME)
        record.write_text("{")
        yield lambda: stored(NAME), "remove it, and the next download is recorded again"
        record.unlink()
        assert fetch(NAME)
        shutil.rmtree(folder / "hf")
        hub.repos[NAME]["model.safetensors"] = FILES["model.safetensors"][::-1]
        yield lambda: fetch(NAME), f"if you trust the new file, remove {record}"
        record.unlink()
        assert fetch(NAME)


@case
def names_of_backbones(folder: Path) -> Refusals:
    yield lambda: models("got"), "write `vitreous models` or `vitreous models get NAME`"
    yield lambda: models("get"), "give one of dinov2-small, "
    yield lambda: backbone_named("dinov2-smal"), "did you mean dinov2-small?"
    assert backbone_named("dinov2-small")
    with redirect_stdout(StringIO()):
        models()


@case
def versions_of_the_format_of_torch(folder: Path) -> Refusals:
    path = folder / "x.pt"
    torch.save({"weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)

    def opened() -> bool:
        with open_weights(str(path)) as file:
            return bool(file.readers)

    with patch.object(torch_file, "_LEGACY_VERSION", 7):
        yield opened, "download it again"
    assert opened()


@case
def heads_that_cannot_be_fitted(folder: Path) -> Refusals:
    values = {"data.source": "x", "data.num_classes": 3, "data.img_size": (8, 8), "data.in_chans": 3}
    values |= {"model.patch_size": 4, "model.embed_dim": 8, "model.depth": 1, "model.num_heads": 2}
    fitted = values | {"train.head_init": "fitted"}
    token = {"model.pool": "token", "model.distill_token": True}
    several = {"objective.loss": "multilabel", "objective.label_smoothing": 0.0, "data.task": "multilabel"}
    for changes in (token, several):
        yield lambda changes=changes: keys.assemble("fine-tune", fitted | changes), "use train.head_init=zero"
        assert keys.assemble("fine-tune", values | changes | {"train.head_init": "zero"})
