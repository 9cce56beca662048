"""`vitreous convert`, and `vitreous inspect` on weights of other libraries."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.model import ModelConfig, build_model, export_weights

Cli = Callable[..., Any]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    config = ModelConfig(
        img_size=(12, 12), patch_size=4, in_chans=3, num_classes=7, embed_dim=20, depth=2, num_heads=5, mlp_ratio=2.0
    )
    return export_weights(build_model(config), tmp_path / "theirs.pth", to="torchvision")


def test_weights_are_written_and_compared(foreign: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "mine.safetensors"
    said = cli("convert", foreign, "--to", "vitreous", "--model.num_heads", "5", "--out", out, "--check")
    assert (said.code, said.err) == (0, "")
    note, first, second = said.out.splitlines()
    assert note.startswith("note: assumes act=gelu, norm_eps=1e-06, img_size=12x12 (")
    parameters = sum(p.numel() for p in build_model(ModelConfig(
        img_size=(12, 12), patch_size=4, in_chans=3, num_classes=7, embed_dim=20, depth=2, num_heads=5, mlp_ratio=2.0
    )).parameters())  # fmt: skip
    assert first == f"{out}: {parameters:,} parameters as vitreous"
    assert second.startswith("largest difference on a random batch, read by vitreous: 0 (largest output ")


def test_result_is_one_json_document_if_requested(foreign: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "mine.safetensors"
    said = cli("convert", foreign, "--to=timm", "--model.num_heads=5", "--out", out, "--json")
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out)["path"] == str(out)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("--to", "timm"),
            "num_heads=None: not known from the shapes, and no published model has width 20 and depth 2; ",
        ),
        (("--to", "tim"), "to=tim: no such format; did you mean timm?"),
        ((), "--to: missing argument"),
        (("--to", "timm", "--optim.lr", "1"), "optim.lr=1: not a property of the model; use --architecture.key"),
        (("--to", "timm", "--model.num_head", "5"), "architecture.num_head=5: no such key; did you mean num_heads?"),
    ],
)
def test_invalid_request_is_reported_in_one_line(words: tuple[str, ...], line: str, foreign: Path, cli: Cli) -> None:
    said = cli("convert", foreign, *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1


def test_weights_of_other_libraries_are_inspected(tmp_path: Path, cli: Cli) -> None:
    config = ModelConfig(
        img_size=(32, 32), patch_size=16, in_chans=3, num_classes=7, embed_dim=192, depth=12, num_heads=3
    )
    path = export_weights(build_model(config), tmp_path / "theirs.pth", to="torchvision")
    said = cli("inspect", path)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"weights {path}\nformat            torchvision\ntensors           152\n")
    assert "\nimage             3 x 32 x 32 px, 7 classes\n" in said.out
    assert json.loads(cli("inspect", path, "--json").out)["architecture"]["num_heads"] == 3


def test_check_says_what_the_new_file_leaves_open(foreign: Path, tmp_path: Path, cli: Cli) -> None:
    answers = ("--architecture.num_heads", "5", "--architecture.img_size", "12x12", "--architecture.act", "gelu")
    words = ("--architecture.norm_eps", "1e-6", "--out", tmp_path / "mine.pth", "--check")
    said = cli("convert", foreign, "--to", "timm", *answers, *words)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[1] == (
        "note: the new file does not say num_heads=5; give that when you open it, e.g. with --architecture.num_heads 5"
    )


def test_inspecting_weights_shows_their_tensors_and_takes_answers(foreign: Path, cli: Cli) -> None:
    said = cli("inspect", foreign)
    assert said.code == 0
    assert "open: num_heads=None: " in said.out
    assert "encoder.layers.encoder_layer_*.ln_1.weight" in said.out
    said = cli("inspect", foreign, "--architecture.num_heads", "5", "--weights", "raw", "--json")
    found = json.loads(said.out)
    assert (found["open"], found["architecture"]["num_heads"]) == ([], 5)
    assert found["assumed"].keys() == {"act", "norm_eps", "img_size"}
