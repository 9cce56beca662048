"""Binary cross-entropy of sets of labels, compared with PyTorch's."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.data.augmentation.mix import Mix
from vitreous.errors import ConfigError
from vitreous.objective.build import build_criterion, build_task
from vitreous.objective.config import ObjectiveConfig
from vitreous.objective.multilabel import MultiLabelCrossEntropy


def draw() -> tuple[Tensor, Tensor]:
    """Logits and labels of 5 images and 7 classes; the second image has no label, the third all of them."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5, 7, generator=generator, dtype=torch.float64)
    labels = (torch.rand(5, 7, generator=generator) < 0.4).float()
    labels[1], labels[2] = 0, 1
    return logits, labels


def test_loss_is_that_of_pytorch() -> None:
    logits, labels = draw()
    expected = F.binary_cross_entropy_with_logits(logits, labels.double())
    torch.testing.assert_close(MultiLabelCrossEntropy()(logits, labels), expected)


def test_smoothing_moves_every_decision_towards_one_half() -> None:
    logits, labels = draw()
    expected = F.binary_cross_entropy_with_logits(logits, 0.8 * labels.double() + 0.1)
    torch.testing.assert_close(MultiLabelCrossEntropy(label_smoothing=0.2)(logits, labels), expected)


def test_balanced_weights_give_present_and_absent_labels_the_same_total() -> None:
    logits, labels = draw()
    counts = [(5 - int(count), int(count)) for count in labels.sum(dim=0)]
    criterion = build_criterion(ObjectiveConfig(loss="multilabel", label_smoothing=0, class_weights="balanced"), counts)
    expected = torch.zeros((), dtype=torch.float64)
    for number, (absent, present) in enumerate(counts):
        losses = F.binary_cross_entropy_with_logits(logits[:, number], labels[:, number].double(), reduction="none")
        weights = torch.where(labels[:, number] > 0, 5 / (2 * present), 5 / (2 * absent))
        expected += (losses * weights).mean() / 7
    assert all(absent and present for absent, present in counts)
    torch.testing.assert_close(criterion(logits, labels), expected)


def test_micro_batches_add_up_to_the_batch() -> None:
    logits, labels = draw()
    criterion = MultiLabelCrossEntropy()
    parts = [criterion(logits[:2], labels[:2], torch.tensor(5.0)), criterion(logits[2:], labels[2:], torch.tensor(5.0))]
    torch.testing.assert_close(sum(parts), criterion(logits, labels))


def test_image_is_correct_if_all_its_labels_are_right() -> None:
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    logits = torch.tensor([[2.0, -1.0, 0.1], [-1.0, -2.0, -0.1], [3.0, -0.1, -1.0]])
    assert int(build_task(ObjectiveConfig(loss="multilabel")).num_correct(logits, labels)) == 2


def test_mixed_images_have_the_labels_of_both_in_their_shares() -> None:
    _, labels = draw()
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 4, 6)
    mixed, targets = Mix(num_classes=7, mixup_alpha=1.0)(images, labels, seed=3)
    partner_images, partner_labels = images.roll(-2, 0), labels.roll(-2, 0)
    share = ((mixed - partner_images) / (images - partner_images))[0, 0, 0, 0]
    assert 0.01 < float(share) < 0.99
    torch.testing.assert_close(targets, share * labels + (1 - share) * partner_labels)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"logit_adjustment": 1.0}, "objective.logit_adjustment=1.0: has no effect with objective.loss=multilabel; set "
         "it to 0, or use objective.class_weights=balanced"),
        ({"bce_threshold": 0.2}, "objective.bce_threshold=0.2: has no effect with objective.loss=multilabel; use "),
        ({"teacher": "runs/x"}, "objective.distill=soft: learns one class per image from the teacher, but the images "
         "have several labels; use objective.distill=feature"),
    ],
)  # fmt: skip
def test_keys_for_one_label_per_image_are_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ObjectiveConfig(loss="multilabel", **keys)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
