"""One forward pass that can be differentiated."""

import pytest
import torch
from tests.unit.use.explain.models import KINDS, draw_images, make_model

from vitreous.model.change.merge import Merged, merge_tokens, unmerge
from vitreous.use.explain.flow import through_block
from vitreous.use.explain.trace import evaluating, trace


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bf16"])
def test_a_trace_has_the_logits_of_the_model_and_the_tokens_that_its_pool_reads(kind):
    model, images = make_model(kind), draw_images()
    with evaluating(model) as vit:
        found = trace(vit, images)
        tokens = vit.encoder.norm(found.states[-1])
    torch.testing.assert_close(found.logits, model(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.tokens, model.forward_features(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(unmerge(tokens, found.merged[-1]), found.tokens)
    depth = len(model.encoder.blocks)
    assert len(found.maps) == depth
    assert len(found.states) == len(found.merged) == depth + 1
    for state, maps in zip(found.states, found.maps, strict=False):
        torch.testing.assert_close(maps.sum(dim=3), torch.ones(maps.shape[:3]))
        assert maps.shape[2:] == (state.shape[1], state.shape[1])


def test_the_first_state_is_what_enters_the_first_block():
    model, images = make_model("embed_norm"), draw_images()
    with evaluating(model) as vit:
        found = trace(vit, images)
        torch.testing.assert_close(found.states[0], vit.encoder.norm_pre(vit.embed(images)[0]))
        torch.testing.assert_close(found.states[1], vit.encoder.blocks[0](found.states[0]))


def test_the_gradient_of_a_state_is_that_of_the_rest_of_the_model():
    model, images = make_model("registers", torch.float64), draw_images(dtype=torch.float64)
    with evaluating(model) as vit:
        found = trace(vit, images)
        (got,) = torch.autograd.grad(found.logits[:, 2].sum(), found.states[1])
    state = found.states[1].detach().requires_grad_()
    logits = model.forward_head(model.encoder.norm(model.encoder.blocks[1](state)))
    (expected,) = torch.autograd.grad(logits[:, 2].sum(), state)
    torch.testing.assert_close(got, expected)


def test_without_gradients_nothing_is_kept():
    model, images = make_model(), draw_images()
    with evaluating(model) as vit, torch.no_grad():
        found = trace(vit, images)
    assert not any(tensor.requires_grad for tensor in (found.tokens, found.logits, *found.maps, *found.states[1:]))


@pytest.mark.parametrize("heads", [1, 3])
def test_tokens_that_have_merged_share_a_key_and_have_the_row_of_their_query(heads):
    """Against the matrix between all tokens, entry by entry."""
    generator = torch.Generator().manual_seed(0)
    source = torch.tensor([[0, 1, 1, 2, 1, 3], [0, 3, 2, 2, 1, 1]])
    sizes = torch.tensor([[1.0, 3, 1, 1], [1.0, 2, 2, 1]])
    weights, rows = torch.rand(2, heads, 4, 4, generator=generator), torch.rand(2, 1, 6, generator=generator)
    expected = torch.zeros(2, heads, 6)
    for image in range(2):
        for head in range(heads):
            for query in range(6):
                for key in range(6):
                    merged_key = source[image, key]
                    between = weights[image, head, source[image, query], merged_key] / sizes[image, merged_key]
                    expected[image, head, key] += rows[image, 0, query] * between
    torch.testing.assert_close(through_block(rows, weights, Merged(source, sizes)), expected)


def test_a_model_that_is_being_trained_goes_on_training():
    model = make_model("lora").train()
    model.encoder.blocks[1].eval()
    model.pool.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    requires = [weight.requires_grad for weight in model.parameters()]
    with evaluating(model) as vit:
        assert not any(module.training for module in vit.modules())
        assert not any(weight.requires_grad for weight in vit.parameters())
    assert [module.training for module in model.modules()] == modes
    assert [weight.requires_grad for weight in model.parameters()] == requires
    model(draw_images()).sum().backward()
    assert model.head.weight.grad.abs().sum() > 0


def test_models_that_share_weights_are_explained_one_inside_the_other():
    model = make_model()
    merging = merge_tokens(model, 1)
    with evaluating(model), evaluating(merging):
        pass
    assert all(weight.requires_grad for weight in model.parameters())
