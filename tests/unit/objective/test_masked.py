import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitreous.objective.build import build_pretext_task
from vitreous.objective.config import ObjectiveConfig
from vitreous.objective.masked import MaskedModeling, draw_visible, hidden_from

SIDE, BATCH, CHANNELS, ROWS, COLUMNS = 3, 4, 2, 5, 7


class Fixed(nn.Module):
    """A model that predicts the same pixels whatever it sees, and remembers what it was shown."""

    def __init__(self, predicted: Tensor) -> None:
        super().__init__()
        self.predicted = nn.Parameter(predicted)

    def forward(self, images: Tensor, kept: Tensor) -> Tensor:
        self.kept = kept
        return self.predicted[: len(images)]


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(BATCH, CHANNELS, ROWS * SIDE, COLUMNS * SIDE, generator=generator, dtype=torch.float64)


@pytest.fixture
def model() -> Fixed:
    generator = torch.Generator().manual_seed(4)
    shape = BATCH, ROWS * COLUMNS, CHANNELS * SIDE**2
    return Fixed(torch.randn(shape, generator=generator, dtype=torch.float64))


def naive_loss(images: NDArray[np.float64], predicted: NDArray[np.float64], kept: Tensor, method: str) -> float:
    """The formulas of the papers, one patch after the other."""
    losses = []
    for number, image in enumerate(images):
        for patch in range(ROWS * COLUMNS):
            if patch in kept[number].tolist():
                continue
            row, column = divmod(patch, COLUMNS)
            target = image[:, row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE].reshape(-1)
            if method == "mae":
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
                losses.append(((predicted[number, patch] - target) ** 2).mean())
            else:
                losses.append(np.abs(predicted[number, patch] - target).mean())
    return float(np.mean(losses))


@pytest.mark.parametrize("method", ["mae", "simmim"])
def test_loss_is_that_of_the_paper_on_hidden_patches_only(method: str, images: Tensor, model: Fixed) -> None:
    config = ObjectiveConfig(loss=method, mask_ratio=0.6)  # type: ignore[arg-type]
    task = build_pretext_task(config, patch_size=SIDE, num_views=1)
    loss, predicted = task(model, images, torch.zeros(BATCH, dtype=torch.int64))
    expected = naive_loss(images.numpy(), model.predicted.detach().numpy(), model.kept, method)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)
    assert predicted.shape == (BATCH, ROWS * COLUMNS, CHANNELS * SIDE**2)


def test_losses_of_micro_batches_add_up_to_that_of_the_batch(images: Tensor, model: Fixed) -> None:
    task, labels = MaskedModeling(patch_size=SIDE, mask_ratio=0.5, normalizes=True), torch.zeros(BATCH)
    torch.manual_seed(0)
    whole, _ = task(model, images, labels)
    kept, total, parts = model.kept, task.total(labels), []
    for number in range(BATCH):
        one = Fixed(model.predicted[number : number + 1].detach())
        with pytest.MonkeyPatch.context() as patched:
            visible = kept[number : number + 1]
            patched.setattr("vitreous.objective.masked.draw_visible", lambda *_, visible=visible: visible)
            parts.append(task(one, images[number : number + 1], labels[:1], total)[0].detach())
    torch.testing.assert_close(sum(parts), whole.detach())


@pytest.mark.parametrize(("ratio", "visible"), [(0.75, 9), (0.999, 1), (0.001, 34), (0.5, 18)])
def test_every_image_has_the_same_number_of_visible_patches_at_least_one_and_not_all(
    ratio: float, visible: int
) -> None:
    kept = draw_visible(50, 35, ratio, torch.device("cpu"))
    assert kept.shape == (50, visible)
    assert (kept.diff(dim=1) > 0).all()
    hidden = hidden_from(kept, 35)
    assert hidden.sum(dim=1).tolist() == [35 - visible] * 50
    assert not hidden.gather(1, kept).any()


def test_every_patch_is_hidden_equally_often() -> None:
    torch.manual_seed(1)
    hidden = hidden_from(draw_visible(4000, 10, 0.7, torch.device("cpu")), 10).double().mean(dim=0)
    torch.testing.assert_close(hidden, torch.full((10,), 0.7, dtype=torch.float64), atol=0.03, rtol=0)


def cut(images: Tensor) -> Tensor:
    return images.unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def test_a_perfect_prediction_reconstructs_the_image_and_has_no_loss(images: Tensor) -> None:
    task, model = MaskedModeling(patch_size=SIDE, mask_ratio=0.75, normalizes=False), Fixed(cut(images))
    seen, completed = task.reconstruct(model, images)
    torch.testing.assert_close(completed.detach(), images)
    assert ((seen == images) | (seen == 0)).all()
    assert float((seen != 0).double().mean()) == pytest.approx(9 / 35)
    assert float(task(model, images, torch.zeros(BATCH))[0].detach()) == pytest.approx(0, abs=1e-10)


def test_normalized_reconstructions_use_nothing_of_the_hidden_patches(images: Tensor, model: Fixed) -> None:
    task = MaskedModeling(patch_size=SIDE, mask_ratio=0.75, normalizes=True)
    torch.manual_seed(0)
    seen, completed = task.reconstruct(model, images)
    changed = torch.where(seen == 0, 4 - 3 * images, images)
    torch.manual_seed(0)
    torch.testing.assert_close(task.reconstruct(model, changed)[1], completed)
    flat = torch.full_like(images, 0.3)  # the brightness of hidden patches is that of their surroundings
    found = cut(task.reconstruct(Fixed(torch.zeros_like(model.predicted)), flat)[1])
    torch.testing.assert_close(found.detach(), torch.full_like(found, 0.3))


def test_without_labels_no_image_is_right_or_wrong() -> None:
    task = MaskedModeling(patch_size=SIDE, mask_ratio=0.75, normalizes=True)
    labels = torch.tensor([1, 0, 2])
    assert int(task.num_correct(torch.zeros(3, 35, 18), labels)) == 0
    assert float(task.total(labels)) == 3
