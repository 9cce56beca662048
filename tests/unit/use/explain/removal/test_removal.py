"""Logits without some patches: against plain indexing of tokens, training's own patch dropout, and cropped images."""

from typing import Any

import pytest
import torch
from tests.unit.use.explain.removal_models import KINDS, LINEAR, draw_images, logits_of, make_model
from torch import Tensor

from vitreous.errors import ConfigError
from vitreous.model.change.reshape import make_flexible
from vitreous.model.parts.patch_drop import PatchDrop
from vitreous.use.explain.removal import patch_removal as module
from vitreous.use.explain.removal.patch_removal import PatchRemoval
from vitreous.use.explain.target import Target

SETS = [[0], [5], [1, 4], [0, 2, 3], [1, 2, 4, 5], [0, 1, 2, 3, 4, 5]]


def as_kept(sets: list[list[int]], num_patches: int = 6) -> Tensor:
    """Return sets of numbers as truth values, one row per set."""
    return torch.tensor([[number in chosen for number in range(num_patches)] for chosen in sets])


def assert_same(got: Tensor, expected: Tensor) -> None:
    """Compare logits, which are returned in float32, with logits in float64."""
    torch.testing.assert_close(got.double(), expected.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_removed_patches_do_not_exist_for_the_model(kind: str) -> None:
    model, images = make_model(kind), draw_images()
    numbers = torch.tensor([0, 1, 0, 1, 1, 0])
    got = PatchRemoval(model, images).logits(numbers, as_kept(SETS))
    expected = [logits_of(model, images[n : n + 1], kept) for n, kept in zip(numbers.tolist(), SETS, strict=True)]
    assert_same(got, torch.stack(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_with_all_patches_the_logits_are_those_of_the_model(kind: str) -> None:
    model, images = make_model(kind), draw_images()
    got = PatchRemoval(model, images).logits(torch.tensor([1, 0]), torch.ones(2, 6, dtype=torch.bool))
    assert_same(got, model(images).detach().flip(0))


@pytest.mark.parametrize("kind", LINEAR)
def test_removal_is_what_patch_dropout_does_in_training(kind: str) -> None:
    model, images = make_model(kind, patch_drop_rate=0.5), draw_images(3)
    seen: list[Tensor] = []
    model.patch_drop.register_forward_hook(lambda part, given, result: seen.append(result[1]))
    assert isinstance(model.patch_drop, PatchDrop)
    torch.manual_seed(0)
    expected = model.train()(images).detach()
    kept = torch.zeros(3, 6, dtype=torch.bool).scatter(1, seen[0], True)
    assert kept.sum(dim=1).tolist() == [3, 3, 3]
    assert len(kept.unique(dim=0)) > 1
    assert_same(PatchRemoval(model.eval(), images).logits(torch.arange(3), kept), expected)


@pytest.mark.parametrize("changes", [{}, {"rotary": "axial"}, {"stem": "shifted"}, {"pool": "token_mean"}])
def test_without_absolute_positions_removing_a_side_is_cropping_it(changes: dict[str, Any]) -> None:
    model, images = make_model(position="none", dynamic_img_size=True, **changes), draw_images()
    left = as_kept([[0, 1, 3, 4]]).expand(2, -1)
    assert_same(PatchRemoval(model, images).logits(torch.arange(2), left), model(images[..., :8]).detach())


def _by_class_token(model: Any, features: int) -> Tensor:
    """Return what the pool reads of a sequence of prefix tokens only, with zeros in place of the mean of patches."""
    tokens, relations = model.embed(draw_images(1))
    count = model.num_prefix_tokens
    if relations is not None:
        relations = [type(r)(*(x if x is None else x[:, :, :count, :count] for x in r)) for r in relations]
    read = model.encoder(tokens[:, :count], relations)[:, : 2 if model.config.distill_token else 1].flatten(1)
    return torch.cat([read, read.new_zeros(1, features - read.shape[1])], dim=1)


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_registers": 2}, {"distill_token": True}, {"locality": True}, {"relative_bias": True},
     {"pool": "token_mean", "fc_norm": True}, {"stem": "conv"}, {"kind": "merged"}],
)  # fmt: skip
def test_without_patches_the_class_token_sees_only_prefix_tokens(changes: dict[str, Any]) -> None:
    model = make_model(**changes)
    expected = model.head(model.fc_norm(_by_class_token(model, model.num_features))).detach()
    got = PatchRemoval(model, draw_images()).logits(torch.tensor([1]), as_kept([[]]))
    assert_same(got, expected)


@pytest.mark.parametrize("pool", ["mean", "max", "sequence"])
@pytest.mark.parametrize(
    "changes", [{}, {"class_token": True, "fc_norm": True}, {"kind": "merged"}, {"rotary": "axial"}]
)
def test_without_patches_pools_of_patches_give_zeros(pool: str, changes: dict[str, Any]) -> None:
    model = make_model(pool=pool, **changes)
    expected = model.head(model.fc_norm(torch.zeros(1, 24, dtype=torch.float64))).detach()
    assert_same(PatchRemoval(model, draw_images()).logits(torch.tensor([1]), as_kept([[]])), expected)


def test_without_patches_an_attention_pool_reads_one_token_of_zeros() -> None:
    model = make_model(pool="map")
    expected = model.forward_head(torch.zeros(1, 1, 24, dtype=torch.float64)).detach()
    assert_same(PatchRemoval(model, draw_images()).logits(torch.tensor([1]), as_kept([[]])), expected)


@pytest.mark.parametrize("kind", ["token", "mixed", "merged with relative_bias", "conv"])
def test_results_do_not_depend_on_the_size_of_batches(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = make_model(kind), draw_images()
    every = torch.cartesian_prod(*[torch.tensor([False, True])] * 6)
    whole = PatchRemoval(model, images).scores(Target(3), every)
    monkeypatch.setattr(module, "BATCH_TOKENS", 10)
    lengths: list[tuple[int, ...]] = []
    model.encoder.register_forward_hook(lambda part, given, result: lengths.append(tuple(result.shape[:2])))
    torch.testing.assert_close(PatchRemoval(model, images).scores(Target(3), every), whole, rtol=1e-6, atol=1e-6)
    assert max(sets * length for sets, length in lengths) <= 10


def test_an_image_that_enters_the_stem_as_a_whole_counts_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few patches left, thousands of sets have few tokens, but the stem would see thousands of images."""
    model, images = make_model(stem="conv"), draw_images(1)
    monkeypatch.setattr(module, "BATCH_TOKENS", 14)
    batches: list[int] = []
    removal = PatchRemoval(model, images)
    model.tokenizer.register_forward_hook(lambda part, given, result: batches.append(len(result)))
    removal.logits(torch.zeros(9, dtype=torch.int64), torch.zeros(9, 6, dtype=torch.bool))
    assert batches == [2, 2, 2, 2, 1]


def test_scores_are_those_of_each_images_own_target() -> None:
    model, images = make_model(), draw_images(3)
    target = Target([4, 0, 2], versus=1)
    kept = as_kept(SETS)
    removal = PatchRemoval(model, images)
    scores = removal.scores(removal.fixed(target), kept)
    for number, label in enumerate([4, 0, 2]):
        logits = removal.logits(torch.full((len(SETS),), number), kept).double()
        torch.testing.assert_close(scores[number], logits[:, label] - logits[:, 1], rtol=1e-6, atol=1e-6)


def test_the_predicted_class_is_that_of_the_whole_image() -> None:
    model, images = make_model("distill"), draw_images(20)
    removal = PatchRemoval(model, images)
    kept = as_kept([[2]])
    scores = removal.scores(removal.fixed(Target()), kept)[:, 0]
    alone = removal.logits(torch.arange(20), kept.expand(20, -1))
    predicted = model(images).argmax(dim=1)
    assert (predicted != alone.argmax(dim=1)).any(), "the test needs an image whose prediction changes"
    torch.testing.assert_close(scores, alone.gather(1, predicted[:, None])[:, 0].double())


def test_bf16_rounds_and_fp32_does_not() -> None:
    model, images = make_model().float(), draw_images().float()
    exact = torch.stack([logits_of(model.double(), images.double()[:1], kept) for kept in SETS])
    numbers = torch.zeros(len(SETS), dtype=torch.int64)
    model.float()
    precise, rounded = (PatchRemoval(model, images, name).logits(numbers, as_kept(SETS)) for name in ("fp32", "bf16"))
    assert (precise - exact).abs().max() < 1e-4 < (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_weights_in_bf16_work() -> None:
    model, images = make_model("dinov3").bfloat16(), draw_images().bfloat16()
    got = PatchRemoval(model, images).logits(torch.tensor([0, 1]), as_kept([[1, 2], []]))
    assert got.dtype == torch.float32
    assert got.isfinite().all()


@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
def test_every_attention_kernel_gives_the_same(kernel: Any) -> None:
    model, images = make_model(locality=True, relative_bias=True), draw_images()
    numbers = torch.zeros(len(SETS), dtype=torch.int64)
    model.set_attention_kernel(kernel)
    expected = torch.stack([logits_of(model, images[:1], kept) for kept in SETS])
    assert_same(PatchRemoval(model, images).logits(numbers, as_kept(SETS)), expected)


def test_patch_size_in_use_is_that_of_a_flexible_model() -> None:
    model = make_flexible(make_model(), (2, 4))
    model.tokenizer.patch_size = 2
    removal = PatchRemoval(model, draw_images())
    assert removal.grid_size == (4, 6)
    kept = torch.ones(1, 24, dtype=torch.bool)
    assert_same(removal.logits(torch.tensor([1]), kept), model(draw_images()).detach()[1:])


def test_no_gradient_is_kept_and_the_results_can_be_used_in_one() -> None:
    model, images = make_model(), draw_images()
    logits = PatchRemoval(model, images).logits(torch.tensor([0]), as_kept([[1, 2]]))
    weight = torch.ones(5, requires_grad=True)
    (logits * weight).sum().backward()
    assert not logits.requires_grad
    assert weight.grad is not None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_impossible_target_is_refused_before_patches_are_removed() -> None:
    with pytest.raises(ConfigError, match=r"^target=5: no such class; the model has classes 0 to 4$"):
        PatchRemoval(make_model(), draw_images()).fixed(Target(5))


def test_no_sets_give_no_scores() -> None:
    removal = PatchRemoval(make_model(), draw_images())
    assert removal.scores(Target(0), torch.zeros(0, 6, dtype=torch.bool)).shape == (2, 0)
