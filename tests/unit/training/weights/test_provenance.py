import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vitreous.model.weights.reading.files import open_weights
from vitreous.training.weights.provenance import Provenance, read_provenance, statistics_for


def read(folder: Path, **files: Any) -> Provenance:
    """Write weights with these JSON files next to them, and read their provenance."""
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    with open_weights(folder) as file:
        return read_provenance(file)


def test_timm_has_everything_in_one_file(tmp_path: Path) -> None:
    config = {"architecture": "vit", "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]},
              "label_names": ["cat", "dog"]}  # fmt: skip
    assert read(tmp_path, config=config) == Provenance(("cat", "dog"), (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


def test_transformers_has_two_files(tmp_path: Path) -> None:
    labels = {str(number): name for number, name in enumerate("abcdefghijkl")}
    shuffled = dict(sorted(labels.items()))
    found = read(tmp_path, config={"model_type": "vit", "id2label": shuffled},
                 preprocessor_config={"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]})  # fmt: skip
    assert found == Provenance(tuple("abcdefghijkl"), (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


def test_weights_without_description_have_unknown_provenance(tmp_path: Path) -> None:
    assert read(tmp_path) == Provenance()


@pytest.mark.parametrize("statistics", [{"image_mean": [0.5]}, {"image_mean": 3, "image_std": [1]},
                                        {"image_mean": [7, 7, 7], "image_std": [1, 1, 1]},
                                        {"image_mean": ["a"], "image_std": [1]}])  # fmt: skip
@pytest.mark.parametrize("labels", [["a"], {"0": 5}, {"0": "LABEL_0", "1": "LABEL_1"}, {"3": "cat"}])
def test_invalid_descriptions_are_ignored(tmp_path: Path, statistics: Any, labels: Any) -> None:
    assert read(tmp_path, config={"id2label": labels}, preprocessor_config=statistics) == Provenance()


def test_statistics_are_averaged_for_another_number_of_channels() -> None:
    assert statistics_for((0.25, 0.5, 0.75), 3) == (0.25, 0.5, 0.75)
    assert statistics_for((0.125, 0.5, 0.875), 1) == (0.5,)
    assert statistics_for((0.25,), 3) == (0.25, 0.25, 0.25)
