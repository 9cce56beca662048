"""Generated outliers have the shape of the familiar images, and are what their names say."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.training.fit.probe import make_outliers

KINDS = {"noise", "plain colors", "blurred images", "shuffled pixels", "photos of a temple and a flower"}


def pixels(num: int = 7, channels: int = 3, size: tuple[int, int] = (10, 14)) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(256, (num, channels, *size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("size", [(8, 8), (10, 14), (3, 2), (40, 31)])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_every_kind_has_the_number_shape_and_type_of_the_familiar_images(channels: int, size: tuple[int, int]) -> None:
    familiar = pixels(channels=channels, size=size)
    found = make_outliers(familiar, ["cat", "dog"], seed=1)
    assert set(found) == KINDS | {"handwritten digits"}
    for images in found.values():
        assert (images.shape, images.dtype) == (familiar.shape, torch.uint8)
        assert images.is_contiguous()


def test_digits_are_left_out_if_they_may_be_familiar() -> None:
    assert set(make_outliers(pixels(), ["a", "7", "b"], seed=1)) == KINDS


def test_the_seed_decides_the_outliers() -> None:
    first, again, other = (make_outliers(pixels(), ["cat"], seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[kind], again[kind]) for kind in first)
    assert [kind for kind in first if torch.equal(first[kind], other[kind])] == ["blurred images"]


def test_outliers_are_what_their_names_say() -> None:
    familiar = pixels()
    found = make_outliers(familiar, ["cat"], seed=1)
    assert torch.equal(found["plain colors"].flatten(2).amin(dim=2), found["plain colors"].flatten(2).amax(dim=2))
    shuffled, originals = (images.flatten(2).numpy() for images in (found["shuffled pixels"], familiar))
    for image, original in zip(shuffled, originals, strict=True):
        colors, original_colors = (np.sort(values.T.copy().view("u1,u1,u1").ravel()) for values in (image, original))
        assert (colors == original_colors).all()
        assert (image != original).any()
    assert found["blurred images"].float().std() < 0.5 * familiar.float().std()
    torch.testing.assert_close(found["blurred images"].float().mean(), familiar.float().mean(), rtol=0.05, atol=0)
    assert len({image.numpy().tobytes() for image in found["noise"]}) == len(familiar)
    assert found["handwritten digits"].float().flatten(1).amax(dim=1).min() > 100
    for kind in ("handwritten digits", "photos of a temple and a flower"):
        assert len({image.numpy().tobytes() for image in found[kind]}) == len(familiar)
