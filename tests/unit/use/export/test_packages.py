"""`--to aoti`: a package of machine code gives the answers of Python, says what it is, and is opened like a program."""

import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for
from tests.unit.use.export.test_targets import photos_of
from torch._inductor.exc import InvalidCxxCompiler

from vitreous.errors import MissingDependencyError
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.export.description import describe
from vitreous.use.export.proof import python_answer
from vitreous.use.export.snippet import snippets
from vitreous.use.export.targets import TARGETS, check_compiler, is_package, open_program


@pytest.mark.slow
def test_package_gives_the_answers_of_python_and_says_what_it_is(tmp_path: Path) -> None:
    try:
        check_compiler()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    made, path = predictor_for(models.make_model()), tmp_path / "model.pt2"
    described = describe(made, RunFolder(tmp_path / "none"), "model")
    answers = [TARGETS["aoti"].write(made, path, described)]
    assert is_package(path)
    opened, about = open_program(path)
    assert {key: json.loads(about[key]) for key in described} == json.loads(json.dumps(described))
    for shape in ((1, 40, 31), (2, 8, 12), (7, 5, 60), (1, 90, 9)):
        photos = photos_of(*shape)
        for answer in (*answers, opened):
            np.testing.assert_allclose(answer(photos)[0], python_answer(made)(photos)[0], atol=0.01)
    photo = photos_of(1, 40, 31)[0]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    (tmp_path / "classify.py").write_text(snippets(path, "aoti", described)["python"], encoding="utf-8")
    command = [sys.executable, tmp_path / "classify.py", tmp_path / "photo.png"]
    printed = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    likely = int(python_answer(made)(photo[None])[0].argmax())
    assert printed.startswith(f"{made.classes[likely]} ")
    TARGETS["torch"].write(made, path, described)
    assert not is_package(path)


def test_missing_compiler_is_named() -> None:
    with (
        patch("torch._inductor.cpp_builder.get_cpp_compiler", side_effect=InvalidCxxCompiler),
        pytest.raises(MissingDependencyError, match=r"^to=aoti: needs a C\+\+ compiler; install g\+\+ or clang"),
    ):
        check_compiler()
