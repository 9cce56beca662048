"""The page and the package compute the same function."""

import runpy
import subprocess
import sys

import torch
from tests.contract.sources import ROOT

from vitreous import create_model

PAGE = ROOT / "examples" / "vit_on_one_page.py"


def their_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of `create_model` under the names of the page."""
    positions = torch.cat([state["prefix.class_position"][None], state["position.grid"].flatten(0, 1)])
    renamed = {"cls_token": state["prefix.class_token"][None, None], "pos_embed": positions[None]}
    for name, tensor in state.items():
        if name.startswith(("encoder.", "head.")):
            renamed[name.removeprefix("encoder.")] = tensor
        elif name.startswith("tokenizer.proj."):
            renamed[name.replace("tokenizer.proj", "patch_embed")] = tensor
    return renamed


@torch.no_grad()
def test_page_and_create_model_give_the_same_logits() -> None:
    page = runpy.run_path(str(PAGE))["VisionTransformer"]
    theirs = page(img_size=28, patch_size=4, in_chans=3, num_classes=5, dim=64, depth=4, num_heads=4)
    ours = create_model("vit_pico_patch4_28", num_classes=5, seed=0).eval()
    for parameter in ours.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    theirs.load_state_dict(their_state(ours.state_dict()))
    images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(theirs(images), ours(images), rtol=0, atol=2e-5)


def test_page_has_the_parameters_of_vit_small() -> None:
    done = subprocess.run([sys.executable, str(PAGE)], capture_output=True, text=True, check=True)
    assert done.stdout == "(2, 1000) logits, 22,050,664 parameters\n"


def test_page_is_one_page() -> None:
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 90
