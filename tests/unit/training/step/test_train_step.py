import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.data.augmentation.mix import Mix
from vitreous.objective.cross_entropy import CrossEntropy
from vitreous.objective.task import Criterion, Supervised
from vitreous.optim.config import OptimConfig
from vitreous.optim.schedule import learning_rate_share
from vitreous.seeding import derive
from vitreous.tensors import Images, Labels
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings, find_non_finite, train_step

MakeState = Callable[..., TrainState]
Snapshot = Callable[[TrainState], dict[str, Tensor]]
Pair = tuple[Images, Labels]
PLAIN = {"pos_drop_rate": 0.0, "drop_path_rate": 0.0}


class NanLoss(Criterion):
    """A criterion whose loss and gradient are NaN."""

    def forward(self, logits: Tensor, targets: Tensor, total: Tensor | None = None) -> Tensor:
        return logits.sum() * math.nan


class InfiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, logits: Tensor) -> Tensor:
        return logits.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, math.inf)


class FiniteLossInfiniteGradient(Criterion):
    def forward(self, logits: Tensor, targets: Tensor, total: Tensor | None = None) -> Tensor:
        return F.cross_entropy(InfiniteGradient.apply(logits), targets)


def test_loss_gradient_norm_and_count_equal_those_of_a_naive_step(
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    state = make_state(**PLAIN)
    model = copy.deepcopy(state.model)
    logits = model(batch[0])
    loss = F.cross_entropy(logits, batch[1], label_smoothing=0.1)
    loss.backward()
    norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in model.parameters() if p.grad is not None))
    result = train_step(state, *batch, settings)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-6)
    assert result.grad_norm == pytest.approx(norm, rel=1e-5)
    assert result.correct == int((logits.argmax(dim=1) == batch[1]).sum())
    assert result.applied


def test_weights_after_a_step_equal_naive_clipping_and_adamw(make_state: MakeState, batch: Pair) -> None:
    optim = OptimConfig(lr=0.02, weight_decay=0.3, clip_norm=0.25)
    state = make_state(optim=optim, **PLAIN)
    model = copy.deepcopy(state.model).double()
    F.cross_entropy(model(batch[0].double()), batch[1]).backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None))  # type: ignore[arg-type]
    assert norm > optim.clip_norm
    lr = optim.lr * learning_rate_share(0.5 / 20, optim)
    expected = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        gradient = parameter.grad * optim.clip_norm / (norm + 1e-6)
        is_matrix = name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight", "head.weight"))
        decayed = parameter.detach() * (1 - lr * optim.weight_decay * is_matrix)
        expected[name] = (decayed - lr * gradient / (gradient.abs() + 1e-8)).float()  # AdamW's first step
    settings = StepSettings(task=Supervised(CrossEntropy()), optim=optim, precision="fp32", seed=3)
    train_step(state, *batch, settings)
    updated = {name: parameter.detach() for name, parameter in state.model.named_parameters()}
    # AdamW's first step uses only the sign of the gradient. Biases of keys have a gradient of zero plus rounding error.
    clear = {name: parameter.grad.abs() > 1e-6 for name, parameter in model.named_parameters()}  # type: ignore[union-attr]
    assert sum(int(mask.sum()) for mask in clear.values()) > 0.95 * sum(mask.numel() for mask in clear.values())
    for name, weights in expected.items():
        weights = torch.where(clear[name], weights, updated[name])
        torch.testing.assert_close(updated[name], weights, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", {"highest"}), ("tf32", {"medium"})])
def test_forward_and_backward_use_the_same_precision(
    make_state: MakeState, settings: StepSettings, batch: Pair, precision: str, expected: set[str]
) -> None:
    seen = []

    class Note(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, values: Tensor) -> Tensor:
            seen.append(torch.get_float32_matmul_precision())
            return values.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            seen.append(torch.get_float32_matmul_precision())
            return gradient

    state = make_state()
    state.model.head.register_forward_pre_hook(lambda module, inputs: Note.apply(inputs[0]))
    train_step(state, *batch, replace(settings, precision=precision))
    assert len(seen) == 2
    assert set(seen) == expected
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("clip_norm", [0.0, 0.1, 1e9])
def test_reported_gradient_norm_is_from_before_clipping(make_state: MakeState, batch: Pair, clip_norm: float) -> None:
    norms = []
    for clip in (clip_norm, 1.0):
        optim = OptimConfig(clip_norm=clip)
        settings = StepSettings(task=Supervised(CrossEntropy()), optim=optim, precision="fp32", seed=3)
        norms.append(train_step(make_state(optim=optim), *batch, settings).grad_norm)
    assert norms[0] == norms[1] > 0.1


def test_clip_norm_of_zero_does_not_clip(make_state: MakeState, batch: Pair, snapshot: Snapshot) -> None:
    moments = []
    for clip_norm in (0.0, 1e9):
        optim = OptimConfig(clip_norm=clip_norm)
        state = make_state(optim=optim)
        settings = StepSettings(task=Supervised(CrossEntropy()), optim=optim, precision="fp32", seed=3)
        train_step(state, *batch, settings)
        moments.append(snapshot(state))
    torch.testing.assert_close(moments[0], moments[1], rtol=0, atol=0)


def test_learning_rate_is_that_of_the_schedule_in_the_middle_of_each_step(
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    state = make_state(end_step=8)
    rates = []
    for _ in range(8):
        rates.append(train_step(state, *batch, settings).lr)
        state.step += 1
    peak = settings.optim.lr
    assert rates == pytest.approx([peak * learning_rate_share((s + 0.5) / 8, settings.optim) for s in range(8)])
    assert min(rates) > 0


def test_learning_rate_is_scaled_after_a_rollback(make_state: MakeState, settings: StepSettings, batch: Pair) -> None:
    normal, halved = make_state(), make_state()
    halved.lr_scale = 0.5
    assert train_step(halved, *batch, settings).lr == 0.5 * train_step(normal, *batch, settings).lr


def test_average_follows_the_weights(make_state: MakeState, settings: StepSettings, batch: Pair) -> None:
    state = make_state(end_step=1000)
    for _ in range(3):
        before = [parameter.detach().clone() for parameter in state.ema.model.parameters()]
        train_step(state, *batch, settings)
        decay = state.step / (state.step + 10)
        for old, new, weights in zip(before, state.ema.model.parameters(), state.model.parameters(), strict=True):
            torch.testing.assert_close(new, decay * old + (1 - decay) * weights.detach())
        state.step += 1


def test_average_that_is_switched_off_equals_the_weights(
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    optim = OptimConfig(ema_window_ratio=0)
    state = make_state(optim=optim)
    for step in range(3):
        state.step = step
        train_step(state, *batch, replace(settings, optim=optim))
    torch.testing.assert_close(state.ema.model.state_dict(), state.model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("criterion", [NanLoss(), FiniteLossInfiniteGradient()])
def test_refused_step_changes_no_bit_of_weights_average_and_moments(
    make_state: MakeState, settings: StepSettings, batch: Pair, snapshot: Snapshot, criterion: Criterion
) -> None:
    state = make_state()
    for _ in range(2):
        train_step(state, *batch, settings)
        state.step += 1
    before, numbers = snapshot(state), state.numbers()
    result = train_step(state, *batch, replace(settings, task=Supervised(criterion)))
    assert not result.applied
    torch.testing.assert_close(snapshot(state), before, rtol=0, atol=0)
    assert state.numbers() == numbers
    assert all(parameter.grad is None for parameter in state.model.parameters())


def test_result_of_a_refused_step_has_the_non_finite_numbers(
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    assert math.isnan(train_step(make_state(), *batch, replace(settings, task=Supervised(NanLoss()))).loss)
    result = train_step(make_state(), *batch, replace(settings, task=Supervised(FiniteLossInfiniteGradient())))
    assert math.isfinite(result.loss)
    assert not math.isfinite(result.grad_norm)


def test_step_after_a_refused_step_is_not_affected_by_it(
    make_state: MakeState, settings: StepSettings, batch: Pair, snapshot: Snapshot
) -> None:
    plain, troubled = make_state(), make_state()
    train_step(troubled, *batch, replace(settings, task=Supervised(NanLoss())))
    for state in (plain, troubled):
        train_step(state, *batch, settings)
    torch.testing.assert_close(snapshot(troubled), snapshot(plain), rtol=0, atol=0)


@pytest.mark.parametrize("changes", [{"seed": 4}, {"step": 1}, {"attempt": 1}])
def test_draws_depend_only_on_seed_step_and_attempt(
    make_state: MakeState, settings: StepSettings, batch: Pair, changes: dict[str, int]
) -> None:
    def loss(seed: int = 3, step: int = 0, attempt: int = 0, *, noise: int = 0) -> float:
        torch.manual_seed(noise)
        state = make_state(pos_drop_rate=0.5)
        state.step, state.attempt = step, attempt
        return train_step(state, *batch, replace(settings, seed=seed)).loss

    assert loss() == loss(noise=1)
    assert loss(**changes) == loss(**changes, noise=1)
    assert loss(**changes) != loss()


def test_dropout_is_active_again_after_an_evaluation(
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    state, other = make_state(pos_drop_rate=0.5), make_state(pos_drop_rate=0.5)
    state.model.eval()
    assert train_step(state, *batch, settings).loss == train_step(other, *batch, settings).loss


def test_bf16_changes_the_products_and_not_the_type_of_the_weights(
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    state = make_state(**PLAIN)
    exact = train_step(make_state(**PLAIN), *batch, settings).loss
    result = train_step(state, *batch, replace(settings, precision="bf16"))
    assert result.applied
    assert result.loss != exact
    assert result.loss == pytest.approx(exact, rel=0.02)
    assert {parameter.dtype for parameter in state.model.parameters()} == {torch.float32}


# Mixed images


def mix_of(**changes: float) -> Mix:
    return Mix(num_classes=5, mixup_alpha=0.8, cutmix_alpha=1.0, per_pair=True, **changes)  # type: ignore[arg-type]


def test_mixed_step_equals_a_naive_step_on_mixed_images_and_targets(
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    state = make_state(**PLAIN)
    state.step, state.attempt = 7, 2
    images, targets = mix_of()(*batch, derive(3, "mix", 7, 2))
    logits = state.model(images)
    loss = -((0.9 * targets + 0.1 / 5) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    correct = int((logits.argmax(dim=1) == targets.argmax(dim=1)).sum())
    result = train_step(state, *batch, replace(settings, mix=mix_of()))
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert result.correct == correct
    assert result.applied


def test_mixed_image_is_correct_if_the_class_of_the_larger_share_is_predicted(
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    class KnownShares(Mix):
        def __call__(self, images: Images, labels: Labels, seed: int) -> tuple[Images, Tensor]:
            predicted = make_state(**PLAIN).model(images).argmax(dim=1)
            share = torch.tensor([0.9, 0.6, 0.51, 0.45, 0.3, 0.0])[:, None]
            eye = torch.eye(5)
            return images, share * eye[predicted] + (1 - share) * eye[(predicted + 1) % 5]

    mix = KnownShares(num_classes=5, mixup_alpha=1.0)
    assert train_step(make_state(**PLAIN), *batch, replace(settings, mix=mix)).correct == 3


@pytest.mark.parametrize("changes", [{"seed": 4}, {"step": 1}, {"attempt": 1}])
def test_mixing_depends_only_on_seed_step_and_attempt(
    make_state: MakeState, settings: StepSettings, batch: Pair, changes: dict[str, int]
) -> None:
    def loss(seed: int = 3, step: int = 0, attempt: int = 0, *, noise: int = 0) -> float:
        torch.manual_seed(noise)
        state = make_state(**PLAIN)
        state.step, state.attempt = step, attempt
        return train_step(state, *batch, replace(settings, seed=seed, mix=mix_of())).loss

    assert loss() == loss(noise=1)
    assert loss(**changes) == loss(**changes, noise=1)
    assert loss(**changes) != loss()


def test_images_are_not_mixed_after_mix_until(make_state: MakeState, settings: StepSettings, batch: Pair) -> None:
    losses = []
    for step in (14, 15, 19):  # of 20
        state, plain = make_state(**PLAIN), make_state(**PLAIN)
        state.step = plain.step = step
        mixed = train_step(state, *batch, replace(settings, mix=mix_of(until=0.75))).loss
        losses.append(mixed == train_step(plain, *batch, settings).loss)
    assert losses == [False, True, True]


def test_search_for_the_cause_uses_the_mixed_images_of_the_refused_step(
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Remember(Criterion):
        def forward(self, logits: Tensor, targets: Tensor, total: Tensor | None = None) -> Tensor:
            seen.append((logits.detach(), targets))
            return logits.sum() * math.nan

    state = make_state(**PLAIN)
    state.step, state.attempt = 7, 2
    troubled = replace(settings, task=Supervised(Remember()), mix=mix_of())
    train_step(state, *batch, troubled)
    assert find_non_finite(state, *batch, troubled) == "the loss"
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)
    assert seen[0][1].shape == (6, 5)


# The cause of a refused step


@pytest.mark.parametrize(
    ("module", "found"),
    [
        ("tokenizer.proj", "tokenizer.proj"),
        ("position", "position"),
        ("encoder.blocks.0.attn.qkv", "encoder.blocks.0.attn.qkv"),
        ("encoder.blocks.1.mlp.fc2", "encoder.blocks.1.mlp.fc2"),
        ("encoder.norm", "encoder.norm"),
        ("head", "head"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_first_module_with_a_non_finite_output_is_named(
    make_state: MakeState, settings: StepSettings, batch: Pair, module: str, found: str, value: float
) -> None:
    state = make_state(depth=2, **PLAIN)
    with torch.no_grad():
        next(state.model.get_submodule(module).parameters()).view(-1)[0] = value
    assert find_non_finite(state, *batch, settings) == f"the output of {found}"


def test_non_finite_image_is_the_cause(make_state: MakeState, settings: StepSettings, batch: Pair) -> None:
    images = batch[0].clone()
    images[2, 1, 3, 4] = math.nan
    assert find_non_finite(make_state(), images, batch[1], settings) == "an image of the batch"


def test_loss_or_gradient_is_the_cause_if_all_outputs_are_finite(
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    state = make_state()
    assert find_non_finite(state, *batch, replace(settings, task=Supervised(NanLoss()))) == "the loss"
    cause = find_non_finite(state, *batch, replace(settings, task=Supervised(FiniteLossInfiniteGradient())))
    assert cause == "the gradient of head.bias"
    assert find_non_finite(state, *batch, settings) == "the gradient's norm"


def test_search_for_the_cause_does_not_change_the_state(
    make_state: MakeState, settings: StepSettings, batch: Pair, snapshot: Snapshot
) -> None:
    state = make_state()
    train_step(state, *batch, settings)
    before = snapshot(state)
    for criterion in (NanLoss(), FiniteLossInfiniteGradient()):
        find_non_finite(state, *batch, replace(settings, task=Supervised(criterion)))
    torch.testing.assert_close(snapshot(state), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in state.model.parameters())
    assert not any(module._forward_hooks for module in state.model.modules())


@pytest.mark.parametrize("num_micro_batches", [1, 3])
def test_search_for_the_cause_repeats_the_micro_batches_of_the_refused_step(
    make_state: MakeState, settings: StepSettings, batch: Pair, num_micro_batches: int
) -> None:
    losses: list[float] = []

    class Remember(FiniteLossInfiniteGradient):
        def forward(self, logits: Tensor, targets: Tensor, total: Tensor | None = None) -> Tensor:
            losses.append(float(F.cross_entropy(logits, targets).detach()))
            return super().forward(logits, targets, total)

    state = make_state(pos_drop_rate=0.5)
    state.step, state.attempt = 7, 2
    remembering = replace(settings, task=Supervised(Remember()), num_micro_batches=num_micro_batches)
    train_step(state, *batch, remembering)
    assert find_non_finite(state, *batch, remembering) == "the gradient of head.bias"
    assert losses[:num_micro_batches] == losses[num_micro_batches:]
    assert len(set(losses)) == num_micro_batches


def test_learning_rate_of_the_only_step_of_a_run_is_above_zero(
    make_state: MakeState, settings: StepSettings, batch: Pair
) -> None:
    state = make_state()
    state.horizon, state.step = Horizon(1), 0
    assert train_step(state, *batch, settings).lr > 0


@pytest.mark.parametrize("num_micro_batches", [2, 4, 6, 100])
@pytest.mark.parametrize("class_weights", [None, (0.2, 3.0, 1.0, 0.0, 2.0)])
@pytest.mark.parametrize("mixed", [False, True])
def test_micro_batches_give_the_step_of_the_whole_batch(
    make_state: MakeState, batch: Pair, num_micro_batches: int, class_weights: tuple[float, ...] | None, mixed: bool
) -> None:
    task = Supervised(CrossEntropy(label_smoothing=0.1, class_weights=class_weights))
    mix = Mix(num_classes=5, mixup_alpha=0.8, cutmix_alpha=1.0) if mixed else None
    settings = StepSettings(task=task, optim=OptimConfig(clip_norm=0.0), precision="fp32", seed=3, mix=mix)
    whole, split = make_state(**PLAIN), make_state(**PLAIN)
    expected = train_step(whole, *batch, settings)
    result = train_step(split, *batch, replace(settings, num_micro_batches=num_micro_batches))
    assert (result.loss, result.grad_norm) == pytest.approx((expected.loss, expected.grad_norm), rel=1e-5)
    assert result.correct == expected.correct
    moments = (whole.optimizer.state_dict()["state"], split.optimizer.state_dict()["state"])
    torch.testing.assert_close(moments[1], moments[0], rtol=1e-4, atol=1e-7)


def test_gradient_checkpointing_changes_no_bit(
    make_state: MakeState, settings: StepSettings, batch: Pair, snapshot: Snapshot
) -> None:
    plain, frugal = make_state(drop_path_rate=0.4, depth=3), make_state(drop_path_rate=0.4, depth=3)
    frugal.model.set_grad_checkpointing()
    for state in (plain, frugal):
        train_step(state, *batch, settings)
    torch.testing.assert_close(snapshot(frugal), snapshot(plain), rtol=0, atol=0)
