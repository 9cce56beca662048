"""The score that is explained."""

import pytest
import torch

from vitreous.errors import ConfigError
from vitreous.use.explain.target import Target

LOGITS = torch.tensor([[0.5, 3.0, -1.0], [4.0, 0.0, 2.0]])


@pytest.mark.parametrize(
    ("target", "scores"),
    [
        (Target(), [3.0, 4.0]),
        (Target(2), [-1.0, 2.0]),
        (Target([0, 1]), [0.5, 0.0]),
        (Target(torch.tensor([2, 0], dtype=torch.uint8)), [-1.0, 4.0]),
        (Target(0, versus=1), [-2.5, 4.0]),
        (Target([1, 0], versus=[0, 2]), [2.5, 2.0]),
        (Target(versus=1), [-2.5, 4.0]),  # the most probable class other than 1
        (Target(versus=torch.tensor([2, 0])), [4.0, -2.0]),
    ],
)
def test_scores_are_logits_or_their_differences(target, scores):
    torch.testing.assert_close(target.scores(LOGITS), torch.tensor(scores))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target(3), "target=3: no such class; the model has classes 0 to 2"),
        (Target(-1), "target=-1: no such class; the model has classes 0 to 2"),
        (Target(0, versus=7), "versus=7: no such class; the model has classes 0 to 2"),
        (Target([0]), "target: has 1 class number for 2 images; give one number for all images, or one for each"),
        (Target([]), "target: has 0 class numbers for 2 images; give one number for all images, or one for each"),
        (Target([1, 2], versus=[0, 2]), "versus=2: is the target itself; choose another class"),
        (Target(1.5), "target=1.5: is not a class number; give whole numbers"),
        (Target([0, 1], versus=torch.tensor([0.0, 2.0])), "versus=0.0: is not a class number; give whole numbers"),
        (Target(torch.tensor([True, False])), "target=True: is not a class number; give whole numbers"),
    ],
)
def test_wrong_classes_are_errors(target, message):
    with pytest.raises(ConfigError) as error:
        target.scores(LOGITS)
    assert str(error.value) == message


def test_a_fixed_target_keeps_its_class_when_the_logits_change():
    fixed = Target().fixed(LOGITS)
    torch.testing.assert_close(fixed.scores(-LOGITS), torch.tensor([-3.0, -4.0]))
