import doctest

import pytest
import torch

from vitreous.errors import ShapeError
from vitreous.model import create_model, vit


def test_the_docstrings_example_runs():
    results = doctest.testmod(vit)
    assert (results.attempted, results.failed) == (4, 0)


def test_forward_is_its_six_parts_one_after_the_other():
    model = create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4)
    images = torch.randn(2, 3, 12, 20)
    tokens = model.encoder(model.prefix(model.position(model.tokenizer(images))))
    torch.testing.assert_close(model.forward_features(images), tokens, rtol=0, atol=0)
    torch.testing.assert_close(model(images), model.head(model.pool(tokens)), rtol=0, atol=0)


def test_images_of_another_size_are_refused():
    model = create_model("vit_pico", num_classes=7, img_size=(12, 20), patch_size=4)
    with pytest.raises(ShapeError, match="images 16x20 px"):
        model(torch.randn(2, 3, 16, 20))
