"""Distillation with tiny students and teachers, compared with numpy in float64."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.head import DistilledHead
from vitreous.model.vit import VisionTransformer
from vitreous.objective.build import build_task
from vitreous.objective.config import Distill, ObjectiveConfig
from vitreous.objective.distill import gram_distance, soft_distance
from vitreous.objective.task import Task
from vitreous.tensors import Images, Labels

COUNTS = (9, 3, 14, 1, 8)
KINDS: tuple[Distill, ...] = ("soft", "hard", "token", "token_soft", "feature")


class Patches(nn.Module):
    """Teacher of features: a model that returns its patch tokens as a map."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Images) -> Tensor:
        return self.model.forward_intermediates(images, 1, norm=True, intermediates_only=True)[0]


def model(seed: int, **changes: Any) -> VisionTransformer:
    values: dict[str, Any] = {
        "img_size": (8, 12), "patch_size": 4, "in_chans": 3, "num_classes": 5, "embed_dim": 16, "depth": 1,
        "num_heads": 2, "num_registers": 1, "init": "xavier",
    }  # fmt: skip
    return build_model(ModelConfig(**{**values, **changes}), generator=torch.Generator().manual_seed(seed))


def student_for(kind: Distill) -> VisionTransformer:
    return model(1, distill_token=kind.startswith("token"))


def teacher_for(kind: Distill, **changes: Any) -> nn.Module:
    teacher = model(2, embed_dim=24, **changes)
    return Patches(teacher) if kind == "feature" else teacher


def task_for(
    kind: Distill, teacher: nn.Module | None = None, counts: tuple[int, ...] | None = None, **keys: Any
) -> Task:
    config = ObjectiveConfig(distill=kind, teacher="a teacher", **keys)
    return build_task(config, counts, teacher_for(kind) if teacher is None else teacher)


@pytest.fixture
def batch() -> tuple[Images, Labels]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(7, 3, 8, 12, generator=generator), torch.randint(5, (7,), generator=generator)


@pytest.fixture
def mixed(batch: tuple[Images, Labels]) -> Tensor:
    own = torch.linspace(0.2, 1.0, 7)[:, None]
    eye = torch.eye(5)
    return own * eye[batch[1]] + (1 - own) * eye[batch[1].roll(3)]


def exact(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().double().numpy()


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def naive_labels(logits: NDArray[np.float64], labels: Labels, smoothing: float = 0.1) -> NDArray[np.float64]:
    """Cross-entropy of each image with smoothed labels."""
    target = (1 - smoothing) * np.eye(5)[labels.numpy()] + smoothing / 5
    return -(target * np.log(softmax(logits))).sum(axis=1)


def naive_soft(student: NDArray[np.float64], teacher: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(axis=1)


def naive_gram(student: NDArray[np.float64], teacher: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean squared difference of cosine similarities, pair by pair."""
    found = []
    for own, given in zip(student, teacher, strict=True):
        sums = 0.0
        for i in range(len(own)):
            for j in range(len(own)):
                cosines = [x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for x in (own, given)]
                sums += (cosines[0] - cosines[1]) ** 2
        found.append(sums / len(own) ** 2)
    return np.array(found)


def test_soft_loss_equals_the_definition_in_float64(batch: tuple[Images, Labels]) -> None:
    student, teacher = student_for("soft"), teacher_for("soft")
    loss, logits = task_for("soft", teacher, distill_temperature=3.0, distill_weight=0.3)(student, *batch)
    own, given = exact(student(batch[0])), exact(teacher(batch[0]))
    expected = 0.7 * naive_labels(own, batch[1]).mean() + 0.3 * naive_soft(own, given, 3.0).mean()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(logits, student(batch[0]))


def test_hard_loss_equals_the_definition_in_float64(batch: tuple[Images, Labels]) -> None:
    student, teacher = student_for("hard"), teacher_for("hard")
    loss, _ = task_for("hard", teacher, distill_weight=0.3)(student, *batch)
    own, predicted = exact(student(batch[0])), teacher(batch[0]).argmax(dim=1)
    # Label smoothing does not apply to the teacher's prediction, as in DeiT's code.
    expected = 0.7 * naive_labels(own, batch[1]).mean() + 0.3 * naive_labels(own, predicted, 0.0).mean()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["token", "token_soft"])
def test_class_token_learns_from_labels_and_distillation_token_from_the_teacher(
    batch: tuple[Images, Labels], kind: Distill
) -> None:
    student, teacher = student_for(kind), teacher_for(kind)
    loss, logits = task_for(kind, teacher, distill_weight=0.4, distill_temperature=2.0)(student, *batch)
    assert isinstance(student.head, DistilledHead)
    features = student.forward_head(student.forward_features(batch[0]), pre_logits=True)
    by_label, by_teacher = (exact(found) for found in student.head.both(features))
    given = teacher(batch[0])
    distances = naive_labels(by_teacher, given.argmax(dim=1), 0.0) if kind == "token" else naive_soft(
        by_teacher, exact(given), 2.0)  # fmt: skip
    expected = 0.6 * naive_labels(by_label, batch[1]).mean() + 0.4 * distances.mean()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(logits, student(batch[0]))


def test_teacher_does_not_train_the_head_of_the_class_token(batch: tuple[Images, Labels]) -> None:
    student = student_for("token")
    task_for("token", distill_weight=1.0)(student, *batch)[0].backward()
    assert isinstance(student.head, DistilledHead)
    assert student.head.teacher.weight.grad is not None
    assert float(student.head.teacher.weight.grad.abs().sum()) > 0
    assert student.head.label.weight.grad is None or not student.head.label.weight.grad.any()


def test_feature_loss_equals_the_definition_in_float64(batch: tuple[Images, Labels]) -> None:
    student, teacher = student_for("feature"), teacher_for("feature")
    loss, _ = task_for("feature", teacher, distill_weight=0.3)(student, *batch)
    own = exact(student.forward_features(batch[0])[:, 2:])
    given = exact(teacher(batch[0])).reshape(7, 24, 6).transpose(0, 2, 1)
    labels = naive_labels(exact(student(batch[0])), batch[1]).mean()
    assert float(loss.detach()) == pytest.approx(0.7 * labels + 0.3 * naive_gram(own, given).mean(), rel=1e-5)


def test_features_of_another_grid_are_resized_to_the_students(batch: tuple[Images, Labels]) -> None:
    finer = teacher_for("feature", patch_size=2)
    student = student_for("feature")
    loss, _ = task_for("feature", finer, distill_weight=1.0)(student, *batch)
    resized = F.interpolate(finer(batch[0]), (2, 3), mode="bicubic", antialias=True)
    given = exact(resized).reshape(7, 24, 6).transpose(0, 2, 1)
    assert float(loss.detach()) == pytest.approx(
        naive_gram(exact(student.forward_features(batch[0])[:, 2:]), given).mean(), rel=1e-5
    )


def test_rotating_and_scaling_features_does_not_change_the_distance() -> None:
    patches = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64))[0]
    torch.testing.assert_close(gram_distance(patches, 3 * patches @ turn), torch.zeros(2, dtype=torch.float64))


def test_soft_distance_equals_torchs_divergence() -> None:
    generator = torch.Generator().manual_seed(3)
    student, teacher = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    expected = 4 * F.kl_div(
        (student / 2).log_softmax(1), (teacher / 2).log_softmax(1), reduction="none", log_target=True
    )
    torch.testing.assert_close(soft_distance(student, teacher, 2.0), expected.sum(dim=1))


def test_high_temperature_gives_the_squared_distance_of_centered_logits() -> None:
    generator = torch.Generator().manual_seed(3)
    student, teacher = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    difference = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    found = soft_distance(student, teacher, 1e4)  # Hinton et al. 2015, eq. 4
    torch.testing.assert_close(found, difference.square().sum(dim=1) / 10, rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", ["soft", "feature"])
def test_student_equal_to_its_teacher_has_loss_and_gradient_zero(batch: tuple[Images, Labels], kind: Distill) -> None:
    student = model(1)
    twin = copy.deepcopy(student)
    loss, _ = task_for(kind, Patches(twin) if kind == "feature" else twin, distill_weight=1.0)(student, *batch)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    for parameter in student.parameters():
        assert parameter.grad is None or float(parameter.grad.abs().max()) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_teacher_does_not_train_or_draw_random_numbers(batch: tuple[Images, Labels], kind: Distill) -> None:
    teacher = teacher_for(kind, pos_drop_rate=0.5, drop_path_rate=0.5).train()
    before = copy.deepcopy(teacher.state_dict())
    task = task_for(kind, teacher).train()
    assert not any(module.training for module in teacher.modules())
    state = torch.get_rng_state()
    losses = [task(student_for(kind).eval(), *batch)[0] for _ in range(2)]
    losses[0].backward()
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss_kind", ["cross_entropy", "bce"])
@pytest.mark.parametrize("num_micro_batches", [2, 7])
def test_micro_batches_add_up_to_the_loss_and_gradient_of_the_batch(
    batch: tuple[Images, Labels], mixed: Tensor, kind: Distill, loss_kind: Any, num_micro_batches: int
) -> None:
    task = task_for(kind, counts=COUNTS, loss=loss_kind, class_weights="balanced")
    whole, split = student_for(kind), student_for(kind)
    loss = task(whole, batch[0], mixed)[0]
    loss.backward()
    total, added = task.total(mixed), torch.zeros(())
    for images, targets in zip(
        batch[0].tensor_split(num_micro_batches), mixed.tensor_split(num_micro_batches), strict=True
    ):
        part_loss = task(split, images, targets, total)[0]
        part_loss.backward()
        added += part_loss.detach()
    torch.testing.assert_close(added, loss.detach())
    gradients = [{name: p.grad for name, p in student.named_parameters()} for student in (split, whole)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_class_weights_equal_showing_rare_classes_more_often(batch: tuple[Images, Labels], kind: Distill) -> None:
    images, labels = batch
    student, teacher = student_for(kind).eval(), teacher_for(kind)
    counts = (4, 2, 1, 4, 2)  # The class weights are in the ratio 1 : 2 : 4 : 1 : 2.
    times = torch.tensor([1, 2, 4, 1, 2])[labels]
    weighted, _ = task_for(kind, teacher, counts, class_weights="balanced")(student, images, labels)
    shown = task_for(kind, teacher)(student, images.repeat_interleave(times, 0), labels.repeat_interleave(times))[0]
    torch.testing.assert_close(weighted, shown)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_gives_a_float32_loss_near_the_exact_one(batch: tuple[Images, Labels], kind: Distill) -> None:
    task, student = task_for(kind), student_for(kind)
    expected = task(student, *batch)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task(student, *batch)[0]
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_are_removed_from_the_student(batch: tuple[Images, Labels], kind: Distill) -> None:
    student = student_for(kind)
    task_for(kind)(student, *batch)
    assert not any(module._forward_hooks for module in student.modules())


def test_task_without_a_teacher_is_supervised() -> None:
    images, labels = torch.randn(4, 5), torch.tensor([0, 3, 1, 4])
    loss, _ = build_task(ObjectiveConfig(label_smoothing=0.0))(nn.Identity(), images, labels)
    torch.testing.assert_close(loss, F.cross_entropy(images, labels))
