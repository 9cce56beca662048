"""OpenVINO's files: what they say about themselves, the precision they are computed in, and what is not reported."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for
from tests.unit.use.export.test_targets import DESCRIPTION, photos_of

from vitreous.use.export.openvino_ir import open_ir, smaller_ir
from vitreous.use.export.page.int8 import MATRICES
from vitreous.use.export.proof import Answer, python_answer
from vitreous.use.export.targets import TARGETS, silent

openvino = pytest.importorskip("openvino", reason="writes and runs OpenVINO's files")
PREDICTOR = predictor_for(models.make_model())
COMPILE = openvino.Core.compile_model


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as OpenVINO's files; do not modify."""
    folder = tmp_path_factory.mktemp("ir") / "float32"
    TARGETS["openvino"].write(PREDICTOR, folder, DESCRIPTION)
    return folder


def test_folder_says_what_it_classifies_and_in_which_precision(written: Path) -> None:
    about = {key: json.loads(value) for key, value in open_ir(written)[1].items()}
    assert about == {**DESCRIPTION, "precision": "f32", "unfamiliar": None}
    model = openvino.Core().read_model(written / "openvino_model.xml")
    assert [model.input(0).any_name, model.output(0).any_name] == ["photos", "probabilities"]
    assert str(model.input(0).get_partial_shape()) == "[?,?,?,3]"


def test_xml_file_is_opened_like_its_folder(written: Path) -> None:
    photos = photos_of(2, 30, 40)
    np.testing.assert_array_equal(open_ir(written)[0](photos), open_ir(written / "openvino_model.xml")[0](photos))


def smaller(written: Path, *, with_photos: bool) -> tuple[dict[str, Answer], list[str]]:
    """Return the answers of the smaller precisions, and the precision in which each was really compiled."""
    used = []

    def recorded(self: Any, *words: Any, **options: Any) -> Any:
        compiled = COMPILE(self, *words, **options)
        used.append(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        return compiled

    photos = (photos_of(1, 30 + number, 40) for number in range(6)) if with_photos else None
    with silent():
        if with_photos:
            return dict(smaller_ir(written, photos, DESCRIPTION)), []
        with patch.object(openvino.Core, "compile_model", recorded):
            return dict(smaller_ir(written, photos, DESCRIPTION)), used


def test_processor_with_bfloat16_computes_in_it(written: Path) -> None:
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not multiply bfloat16")
    found, used = smaller(written, with_photos=False)
    assert (list(found), used) == (["bfloat16"], ["bf16"])
    photos = photos_of(7, 30, 40)
    difference = np.abs(found["bfloat16"](photos)[0] - python_answer(PREDICTOR)(photos)[0]).max()
    assert 1e-5 < difference < 0.02
    assert json.loads(open_ir(written.with_name("bfloat16"))[1]["precision"]) == "bf16"


def test_other_processors_only_have_8_bits(written: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="finds the ranges of 8 bits")
    own = tmp_path / "float32"
    TARGETS["openvino"].write(PREDICTOR, own, DESCRIPTION)
    with patch.object(openvino.Core, "get_property", lambda self, *name: ["FP32", "INT8"]):
        assert smaller(own, with_photos=False)[0] == {}
        found, _ = smaller(own, with_photos=True)
    assert list(found) == ["int8"]


def test_only_products_with_weights_are_in_8_bits_and_neither_patches_nor_head(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nncf", reason="finds the ranges of 8 bits")
    own = tmp_path / "float32"
    TARGETS["openvino"].write(PREDICTOR, own, DESCRIPTION)
    found, _ = smaller(own, with_photos=True)
    photos = photos_of(7, 30, 40)
    assert 0 < np.abs(found["int8"](photos)[0] - python_answer(PREDICTOR)(photos)[0]).max() < 0.05
    model = openvino.Core().read_model(tmp_path / "int8" / "openvino_model.xml")
    rounded = [node for node in model.get_ops() if node.get_type_name() == "FakeQuantize"]
    users = {user.get_node().get_type_name() for node in rounded for user in node.output(0).get_target_inputs()}
    assert users == {"MatMul"}  # and none of those that resize, which have no weights
    kinds = [node.get_element_type().get_type_name() for node in model.get_ops() if node.get_type_name() == "Constant"]
    assert kinds.count("i8") == sum(isinstance(module, MATRICES) for module in PREDICTOR.model.modules()) - 2
    assert capsys.readouterr() == ("", "")  # no progress bars of NNCF


def test_use_of_openvino_is_not_reported_over_the_network(tmp_path: Path) -> None:
    """Its reporter leaves the number of the client in the home folder when it is imported."""
    try:
        version("openvino-telemetry")
    except PackageNotFoundError:
        pytest.skip("what would report the use is not installed")
    code = "from vitreous.use.export.openvino_ir import _openvino; _openvino().Core()"
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD", "JENKINS_URL")}
    environment |= {"HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=200)
    assert list(tmp_path.iterdir()) == []
