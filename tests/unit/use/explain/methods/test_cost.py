"""What a method costs: matrix products, and memory for the backward pass."""

import weakref

import pytest
import torch
from tests.unit.use.explain.models import draw_images, make_model
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vitreous.model import create_model
from vitreous.use.explain.methods import METHODS

MOST_PASSES = {"gradient-attention": 3.5, "legrad": 5, "grad-cam": 3.5, "rollout": 1.5, "attention": 1.5}


def vit_small(kernel, **changes):
    model = create_model("vit_small_patch16_224", num_classes=10, seed=0, **changes).eval()
    model.set_attention_kernel(kernel)
    return model


def flops(run, *args, **options):
    with FlopCounterMode(display=False) as counter:
        run(*args, **options)
    return counter.get_total_flops()


@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
@pytest.mark.parametrize("name", MOST_PASSES)
def test_methods_take_few_forward_passes(name, kernel):
    """Counted for the 12 blocks of ViT-S/16."""
    model, images = vit_small(kernel), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        forward = flops(model, images)
    assert forward > 8e9  # two operations per product and sum
    assert flops(METHODS[name], model, images) <= MOST_PASSES[name] * forward


def test_integrated_gradients_run_the_whole_batch_once_per_step_and_twice_more():
    model, sizes = make_model(), []
    model.encoder.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    METHODS["integrated-gradients"](model, draw_images(5), steps=7)
    assert sizes == [5] * 9


@pytest.mark.parametrize("name", [*MOST_PASSES, "attention-attribution"])
def test_declared_cost_is_that_of_the_matrix_products(name):
    """`--check` says by it how long it will take."""
    model, images = vit_small("explicit", img_size=96, embed_dim=48, num_heads=3), torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        forward = flops(model, images)
    assert flops(METHODS[name], model, images) == pytest.approx(METHODS[name].cost(36) * forward, rel=0.2)


@pytest.mark.parametrize("name", ["occlusion", "shapley", "integrated-gradients"])
def test_declared_cost_is_that_of_the_tokens(name):
    """Those that the encoder computes; PyTorch cannot count products in gradients that end at images."""
    model, tokens = make_model(img_size=(16, 24)), []
    model.encoder.register_forward_hook(lambda module, args, output: tokens.append(output[..., 0].numel()))
    METHODS[name](model, draw_images(1, size=(16, 24)))
    passes = sum(tokens) / model.config.num_tokens
    if name == "integrated-gradients":  # all but two passes also go back
        passes = 2 * passes - 2
    assert passes == pytest.approx(METHODS[name].cost(24), rel=0.1)


class Saved:
    """The most bytes that are kept for a backward pass at once, weights excluded."""

    def __init__(self, model):
        self.weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.counts, self.now, self.most = {}, 0, 0

    def pack(self, tensor):
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        kept = Kept(tensor.detach())  # an output with its graph would keep itself
        if key in self.weights:
            return kept
        if not self.counts.get(key):
            self.now += size
        self.counts[key] = self.counts.get(key, 0) + 1
        self.most = max(self.most, self.now)
        weakref.finalize(kept, self.drop, key, size)
        return kept

    def drop(self, key, size):
        self.counts[key] -= 1
        if not self.counts[key]:
            self.now -= size


class Kept:
    def __init__(self, tensor):
        self.tensor = tensor


def most_saved(model, run):
    saved = Saved(model)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda kept: kept.tensor):
        run()
    return saved.most


@pytest.mark.parametrize("name", MOST_PASSES | {"integrated-gradients": 0})
def test_a_batch_takes_no_more_memory_than_a_training_step_of_it(name):
    """What is kept grows with the batch, so 3 images are enough to compare."""
    model, images = vit_small("sdpa", depth=4), torch.randn(3, 3, 224, 224)

    def step():
        F.cross_entropy(model.train()(images), torch.tensor([1, 2, 3])).backward()

    trained = most_saved(model, step)
    assert trained > 3 * 4 * 10 * 197 * 384 * 4
    options = {"steps": 2} if name == "integrated-gradients" else {}
    explained = most_saved(model, lambda: METHODS[name](model, images, **options))
    assert explained <= trained
    assert (explained == 0) is (name in ("rollout", "attention"))
