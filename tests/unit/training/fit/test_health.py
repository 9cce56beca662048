"""Statistics of attention heads against naive sums; every note appears when it should, once, with the right numbers."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.keys import rules
from vitreous.training.fit.evaluate import Score
from vitreous.training.fit.health import Heads, HealthCheck, Watch, measure_heads
from vitreous.training.folder.records import Recorder
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings, train_step

HEADS, DEPTH = 4, 2


@pytest.fixture
def model() -> VisionTransformer:
    config = ModelConfig(
        img_size=(8, 12), patch_size=4, in_chans=3, num_classes=5, embed_dim=24, depth=DEPTH, num_heads=HEADS
    )
    model = build_model(config, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 8, 12, generator=torch.Generator().manual_seed(2))


def test_entropy_equals_that_of_naive_probabilities(model: VisionTransformer, images: torch.Tensor) -> None:
    heads = measure_heads(model, images)
    with torch.no_grad():
        tokens, _ = model.eval().embed(images)
        for number, block in enumerate(model.encoder.blocks):
            normed = block.norm1(tokens).double().numpy()
            weight, bias = (p.detach().double().numpy() for p in (block.attn.qkv.weight, block.attn.qkv.bias))
            stacked = (normed @ weight.T + bias).reshape(3, -1, 3, HEADS, 6)
            entropies = []
            for image in range(3):
                for head in range(HEADS):
                    queries, keys = stacked[image, :, 0, head], stacked[image, :, 1, head]
                    for query in queries:
                        scores = np.exp(keys @ query / math.sqrt(6))
                        share = scores / scores.sum()
                        entropies.append(-(share * np.log(share)).sum() / math.log(len(keys)))
            assert heads.entropy[number] == pytest.approx(np.mean(entropies), abs=1e-5)
            tokens = block(tokens)
    assert heads.num_heads == HEADS * DEPTH


def test_even_fixed_and_dead_heads_are_counted(model: VisionTransformer, images: torch.Tensor) -> None:
    first, second = (block.attn for block in model.encoder.blocks)
    with torch.no_grad():
        first.qkv.weight[:6] = 0  # queries of head 0 are zero
        first.qkv.bias[:6] = 0
        second.qkv.weight[:24] *= 1e4  # queries of the whole block are huge, so attention is one-hot
        second.proj.weight[:, 6:18] = 0  # the output of two heads is ignored
    heads = measure_heads(model, images)
    assert (heads.num_even, heads.num_fixed, heads.num_dead) == (1, HEADS, 2)


class Average(torch.nn.Module):
    """Attention of an extension, which has no heads."""

    def forward(self, tokens: torch.Tensor, relation: object) -> torch.Tensor:
        return tokens.mean(dim=1, keepdim=True).expand_as(tokens)


def test_only_heads_of_our_attention_are_measured(model: VisionTransformer, images: torch.Tensor) -> None:
    whole = measure_heads(model, images)
    model.encoder.blocks[1].attn = Average()
    found = measure_heads(model, images)
    assert (found.num_heads, found.entropy) == (HEADS, whole.entropy[:1])
    model.encoder.blocks[0].attn = Average()
    assert measure_heads(model, images) == Heads((), 0, 0, 0, 0)
    assert HealthCheck(num_classes=5, clip_norm=1.0).heads(1.0, Heads((), 0, 0, 0, 0)) == []


def test_measuring_heads_changes_neither_random_state_nor_weights(
    model: VisionTransformer, images: torch.Tensor
) -> None:
    before, state = torch.get_rng_state(), {name: p.clone() for name, p in model.state_dict().items()}
    measure_heads(model, images, "bf16")
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)


def test_note_on_a_high_first_loss_has_both_numbers() -> None:
    check = HealthCheck(num_classes=7, clip_norm=1.0)
    assert check.first_loss(1.4 * math.log(7)) == []
    (note,) = check.first_loss(5.31)
    assert note.startswith("the first loss is 5.31, but random guessing gives ln(7) = 1.95: ")
    assert check.first_loss(5.31) == []
    assert HealthCheck(num_classes=7, clip_norm=1.0, compares_losses=False).first_loss(50.0) == []


def test_clipped_and_long_steps_are_noted_only_after_the_warm_up() -> None:
    check = HealthCheck(num_classes=7, clip_norm=0.25)
    assert check.clipping(0.1, 0.99) == check.clipping(0.4, 0.99) == check.clipping(0.5, 0.8) == []
    assert HealthCheck(num_classes=10, clip_norm=1.0, fixed_steps=True).clipping(0.5, 0.99) == []
    assert check.step_length(0.1, 0.5) == check.step_length(0.5, 0.001) == []
    (clipped,), (large,) = check.clipping(0.5, 0.93), check.step_length(0.5, 0.066)
    assert clipped.startswith("the gradient was clipped in 93% of the steps: optim.clip_norm=0.25 limits ")
    assert large.startswith("one step changed the weights by 6.6% of their norm, but 0.1% is typical: ")


@pytest.mark.parametrize(
    ("counts", "beginning"),
    [
        ((13, 0, 0), "13 of 24 attention heads attend to all tokens equally: "),
        ((0, 14, 0), "14 of 24 attention heads attend to a single token: attention has collapsed; "),
        ((0, 0, 3), "3 of 24 attention heads contribute almost nothing: "),
    ],
)
def test_useless_heads_are_noted_once(counts: tuple[int, int, int], beginning: str) -> None:
    check, heads = HealthCheck(num_classes=7, clip_norm=1.0), Heads((0.5,), 24, *counts)
    assert check.heads(0.1, heads) == []
    (note,) = check.heads(0.4, heads)
    assert note.startswith(beginning)
    assert check.heads(0.6, heads) == []


def test_healthy_heads_are_not_noted() -> None:
    assert HealthCheck(num_classes=7, clip_norm=1.0).heads(0.9, Heads((0.5, 0.7), 24, 2, 1, 0)) == []


def test_note_on_overfitting_has_both_accuracies() -> None:
    check = HealthCheck(num_classes=7, clip_norm=1.0)
    assert check.overfitting(0.9, 0.75) == []
    (note,) = check.overfitting(0.99, 0.71)
    assert note.startswith("the model is overfitting: training accuracy is 99%, validation accuracy is 71%; ")


def test_every_key_that_a_note_suggests_exists() -> None:
    check = HealthCheck(num_classes=7, clip_norm=0.25)
    heads = Heads(entropy=(0.5,), num_heads=24, num_even=13, num_fixed=14, num_dead=3)
    notes = [
        *check.first_loss(5.31),
        *check.clipping(0.5, 0.93),
        *check.step_length(0.5, 0.066),
        *check.heads(0.4, heads),
        *check.overfitting(0.99, 0.71),
    ]
    assert len(notes) == 7
    names = {name for note in notes for name in re.findall(r"\b(?:data|model|optim|train)\.\w+", note)}
    assert names
    assert names <= set(rules())


def test_watched_run_takes_the_same_steps_and_records_them(
    make_state: Callable[..., TrainState],
    settings: StepSettings,
    batch: tuple[torch.Tensor, torch.Tensor],
    snapshot: Callable[[TrainState], dict[str, torch.Tensor]],
    tmp_path: Path,
) -> None:
    records: list[dict[str, Any]] = []
    recorder = Recorder(tmp_path / "records.jsonl", lambda kind, fields: records.append({"kind": kind, **fields}))
    check = HealthCheck(num_classes=5, clip_norm=1e-3)
    watch = Watch(check=check, images=batch[0], precision="fp32", recorder=recorder)
    plain, watched = make_state(end_step=4), make_state(end_step=4)
    for state in (plain, watched):
        for _ in range(3):
            before = [parameter.detach().clone() for parameter in state.model.parameters()]
            result = train_step(state, *batch, settings)
            state.step += 1
            if state is watched:
                watch.after_step(state, result)
                if state.step < 3:
                    watch.after_evaluation(state, {"trained": Score(num_images=10, num_correct=2, loss=1.5)})
    torch.testing.assert_close(snapshot(watched), snapshot(plain), rtol=0, atol=0)
    first, evaluated, moved = records[0], records[1], records[-1]
    assert [record["kind"] for record in records] == ["health"] * 5
    assert first["first_loss"] > 0
    assert (evaluated["clipped_share"], evaluated["num_heads"], len(evaluated["attention_entropy"])) == (1.0, 2, 1)
    after = [parameter.detach() for parameter in watched.model.parameters()]
    distance = math.sqrt(sum(float(((b - a) ** 2).sum()) for a, b in zip(before, after, strict=True)))
    norm = math.sqrt(sum(float((a**2).sum()) for a in before))
    assert moved["update_ratio"] == pytest.approx(distance / norm, rel=1e-4)
