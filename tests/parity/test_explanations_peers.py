"""Explanations are those of other code: the rule of Chefer et al. on maps of transformers, Captum, pytorch-grad-cam.

Captum and pytorch-grad-cam are not installed with the tests; their tests are skipped without them.
"""

import numpy as np
import pytest
import torch
from tests.parity.test_vit_transformers import CONFIG, DEPTH, as_ours
from tests.unit.use.explain.models import KINDS, draw_images, make_model
from transformers import ViTConfig, ViTForImageClassification

from vitreous.model import build_model
from vitreous.use.explain.methods import METHODS
from vitreous.use.explain.target import Target


def test_gradient_attention_is_equation_5_and_6_on_the_attention_of_transformers():
    """Chefer et al. 2021 (2103.15679): A = E_h((dy/dA * A)+), R = R + A R, and the row of the class token."""
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=CONFIG.img_size, patch_size=CONFIG.patch_size, num_channels=3, hidden_size=CONFIG.embed_dim,
        num_hidden_layers=DEPTH, num_attention_heads=CONFIG.num_heads, intermediate_size=CONFIG.mlp_dim,
        num_labels=CONFIG.num_classes, layer_norm_eps=CONFIG.norm_eps, attn_implementation="eager",
    )  # fmt: skip
    theirs = ViTForImageClassification(config).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    ours = build_model(CONFIG).double()
    ours.load_state_dict(as_ours(theirs.state_dict()), strict=True)
    images, classes = torch.randn(2, 3, *CONFIG.img_size, dtype=torch.float64), torch.tensor([6, 2])

    output = theirs(images, output_attentions=True)
    score = output.logits.gather(1, classes[:, None]).sum()
    gradients = torch.autograd.grad(score, output.attentions)
    relevance = torch.eye(16, dtype=torch.float64).repeat(2, 1, 1)
    for maps, gradient in zip(output.attentions, gradients, strict=True):
        relevance = relevance + (gradient * maps).clamp(min=0).mean(dim=1) @ relevance
    expected = relevance[:, 0, 1:].reshape(2, 3, 5)

    found = METHODS["gradient-attention"](ours, images, Target(classes)).values
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["token", "mean", "registers", "max", "map", "axial", "layer_scale"])
def test_integrated_gradients_are_those_of_captum(kind):
    """The same quadrature in float64, with values summed over the pixels of each patch."""
    attr = pytest.importorskip("captum.attr")
    assert kind in KINDS
    model, images = make_model(kind, torch.float64), draw_images(2, torch.float64)
    classes = torch.tensor([3, 0])
    found = METHODS["integrated-gradients"](model, images, Target(classes), steps=20).values
    peer = attr.IntegratedGradients(model).attribute(images, target=classes, n_steps=20, method="gausslegendre")
    expected = peer.detach().reshape(2, 3, 2, 4, 3, 4).sum(dim=(1, 3, 5))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)


def their_layout(tensor, height=14, width=14):
    """Drop one prefix token and arrange the others in 14 rows, as pytorch-grad-cam documents for ViT."""
    result = tensor[:, 1:, :].reshape(tensor.size(0), height, width, tensor.size(2))
    return result.transpose(2, 3).transpose(1, 2)


def test_grad_cam_is_that_of_pytorch_grad_cam_where_its_assumptions_hold():
    """14x14 patches, one prefix token, and the norm before the last attention; before it scales and enlarges them."""
    peer = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    model, images = make_model(img_size=(56, 56), depth=3), draw_images(2, size=(56, 56))
    classes, layer = [3, 0], model.encoder.blocks[-1].norm1
    chosen = [targets.ClassifierOutputTarget(number) for number in classes]
    with peer.GradCAM(model=model, target_layers=[layer], reshape_transform=their_layout) as cam:
        cam(input_tensor=images, targets=chosen)
        seen = cam.activations_and_grads
        arrays = (seen.activations[0].numpy(), seen.gradients[0].numpy())
        values = np.maximum(cam.get_cam_image(images, layer, chosen, *arrays), 0)
    found = METHODS["grad-cam"](model, images, Target(torch.tensor(classes))).values
    assert (found > 0).any()
    torch.testing.assert_close(found, torch.from_numpy(values), rtol=1e-4, atol=1e-6)
