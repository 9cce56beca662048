"""Parts of one's own are trained, saved by their name, and needed to open what was trained with them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vitreous as vt
from vitreous import extensions
from vitreous.cli.main import main
from vitreous.errors import UnknownNameError
from vitreous.model.parts.attention import Attention
from vitreous.model.taps import taps

SMALL = {"model.embed_dim": 16, "model.depth": 2, "model.num_heads": 2, "model.patch_size": 4}
FILE = """
from torch import nn
import vitreous as vt

def change(model):
    model.fc_norm = nn.Linear(model.config.embed_dim, model.config.embed_dim)

vt.register("in_a_file", change_model=change)
"""


class CosineAttention(Attention):
    """Swin V2's attention, with a learned scale for each head."""

    def __init__(self, plain: Attention) -> None:
        super().__init__(num_heads=plain.num_heads, qkv=plain.qkv, proj=plain.proj)
        self.scale = nn.Parameter(torch.full((plain.num_heads, 1, 1), 10.0) + torch.rand(plain.num_heads, 1, 1))

    def project(self, *arguments):
        queries, keys, values = super().project(*arguments)
        scale = self.scale * queries.shape[-1] ** 0.5
        return scale * F.normalize(queries, dim=-1), F.normalize(keys, dim=-1), values


def use_cosines(model: nn.Module) -> None:
    for block in model.encoder.blocks:
        block.attn = CosineAttention(block.attn)


@pytest.fixture(autouse=True)
def only_those_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "_registered", {})
    monkeypatch.setenv(extensions.IMPORTED, "")


@pytest.fixture
def seen() -> list[str]:
    """Register all three parts under one name; the list has what was called."""
    called: list[str] = []

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        called.append("loss")
        return F.cross_entropy(logits, labels, reduction="none")

    def augment(images: Tensor, draw: torch.Generator) -> Tensor:
        called.append("augment")
        return images + 0.1 * torch.randn(images.shape, generator=draw)

    vt.register("mine", change_model=use_cosines, loss=loss, augment=augment)
    return called


def train(out: Path, **keys: object) -> vt.Run:
    config = {**SMALL, "model.extension": "mine", **keys}
    return vt.train("digits", epochs=0.5, seed=3, device="cpu", out=out, config=config)


def test_attention_of_ones_own_computes_the_softmax_of_scaled_cosines() -> None:
    model = vt.create_model("vit_pico_patch4_28", seed=0).eval()
    use_cosines(model)
    with torch.no_grad(), taps(model, "encoder.blocks.0.attn.maps") as maps:
        model(torch.randn(2, 3, 28, 28))
    attn, tokens = model.encoder.blocks[0].attn, torch.randn(2, 5, 64)
    queries, keys, _ = Attention.project(attn, tokens)
    expected = (attn.scale * F.cosine_similarity(queries.unsqueeze(3), keys.unsqueeze(2), dim=-1)).softmax(dim=-1)
    torch.testing.assert_close(attn.maps(tokens), expected)
    assert maps["encoder.blocks.0.attn.maps"].shape == (2, 4, 50, 50)


def test_a_run_trains_with_all_parts_and_opens_only_where_they_are_registered(
    seen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tmp_path / "run")
    assert {"loss", "augment"} <= set(seen)
    attn = run.model.encoder.blocks[0].attn
    assert type(attn) is CosineAttention
    new = vt.create_model("vit_pico_patch4_28", extension="mine", num_heads=2, seed=3)
    assert not torch.equal(attn.scale, new.encoder.blocks[0].attn.scale)
    example = run.path / "example.png"
    assert vt.load_run(run.path).predict(example)[0].label in run.classes
    assert vt.load_run(run.path).explain(example)[0].values.shape == (2, 2)
    monkeypatch.setattr(extensions, "_registered", {})
    with pytest.raises(UnknownNameError, match=r"model\.extension=mine: is not registered here; import the module"):
        vt.load_run(run.path).predict(example)


def test_the_same_seed_gives_the_same_weights(seen: list[str], tmp_path: Path) -> None:
    first, second = (train(tmp_path / name).model.state_dict() for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_model_without_an_extension_is_not_changed(seen: list[str]) -> None:
    plain = vt.create_model("vit_pico_patch4_28", seed=0)
    assert type(plain.encoder.blocks[0].attn) is Attention
    mine = vt.create_model("vit_pico_patch4_28", extension="mine", seed=0)
    for name, values in plain.state_dict().items():
        assert torch.equal(values, mine.state_dict()[name]), name


def test_an_unknown_name_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"model\.extension=other: is not registered here"):
        vt.train("digits", epochs=1, out=tmp_path / "run", config={**SMALL, "model.extension": "other"})
    assert not (tmp_path / "run").exists()


def test_the_command_line_imports_a_file_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "parts.py"
    file.write_text(FILE, encoding="utf-8")
    words = ["inspect", "vit_pico_patch4_28"]
    assert main([*words, "--import", str(file)]) == 0
    assert extensions.find_extension("in_a_file").change_model is not None
    assert main([*words, f"--import={tmp_path / 'none.py'}"]) == 2
    assert "none.py: no such Python file; give a .py file that exists" in capsys.readouterr().err


@pytest.mark.slow
def test_several_processes_train_a_model_with_parts_of_an_imported_file(tmp_path: Path) -> None:
    file, out = tmp_path / "parts.py", tmp_path / "run"
    file.write_text(FILE, encoding="utf-8")
    words = ["train", "digits", "--epochs", "0.2", "--nproc", "2", "--out", str(out), "--model.extension", "in_a_file"]
    sizes = [f"--{key}={value}" for key, value in SMALL.items()]
    done = subprocess.run([sys.executable, "-m", "vitreous", *words, *sizes, "--import", str(file)], check=False)
    assert done.returncode == 0
    extensions.import_file(file)
    assert vt.load_run(out).model.fc_norm.weight.shape == (16, 16)


def test_formats_of_other_libraries_and_pages_do_not_hold_parts_of_ones_own(seen: list[str], tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    assert main(["export", str(run.path), "--to", "html", "--out", str(tmp_path / "page.html")]) == 2
    assert main(["convert", str(run.path), "--to", "hf", "--out", str(tmp_path / "hf")]) == 2
    assert not (tmp_path / "page.html").exists()
