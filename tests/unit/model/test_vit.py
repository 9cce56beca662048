import sys

import pytest
import torch

from vitreous.errors import ShapeError
from vitreous.model import create_model


def test_forward_applies_its_parts_in_order():
    model = create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4)
    images = torch.randn(2, 3, 12, 20)
    tokens = model.encoder(model.prefix(model.position(model.tokenizer(images))))
    torch.testing.assert_close(model.forward_features(images), tokens, rtol=0, atol=0)
    torch.testing.assert_close(model(images), model.head(model.pool(tokens)), rtol=0, atol=1e-6)


def test_images_of_another_size_are_refused():
    model = create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4)
    with pytest.raises(ShapeError, match="images 16x20 px"):
        model(torch.randn(2, 3, 16, 20))


def test_plain_forward_runs_little_code():
    """To follow a plain forward pass, a reader needs at most 6 files and 19 functions of this package."""
    model = create_model("vit_tiny_patch16_224", num_classes=5).eval()
    images, called = torch.zeros(1, 3, 224, 224), set()

    def trace(frame, event, _):
        if event == "call" and "vitreous" in frame.f_code.co_filename:
            called.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    with torch.no_grad():
        sys.setprofile(trace)
        try:
            model(images)
        finally:
            sys.setprofile(None)
    assert 1 < len({file for file, _ in called}) <= 6
    assert len(called) <= 19
