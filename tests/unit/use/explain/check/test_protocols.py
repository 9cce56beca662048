"""Each protocol equals a loop over images, steps and pixels in float64, written as it was published."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from torch import Tensor

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.model import create_model
from vitreous.model.vit import VisionTransformer
from vitreous.seeding import derive, permutation
from vitreous.use.explain.check.orders import center_maps, in_order, random_maps, upsampled
from vitreous.use.explain.check.protocols import PROTOCOLS, Curves, Subject, blur

SIZE, GRID, NUM_CLASSES, SEED = (8, 12), (2, 3), 3, 5
CLASSES = torch.tensor([2, 0])
TRUTH = torch.tensor([[False, True, False], [False, False, True]])
# Multiples of 64 and patches of 4 px: every interpolated value is a whole number, so both ways find the same ties.
MAPS = 64.0 * torch.tensor([[[3.0, -1, 4], [1, 5, 9]], [[2, 6, 5], [3, 5, 8]]])


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    """A model with a class token and a register, and a head that is not zero."""
    made = create_model("vit_pico", num_classes=NUM_CLASSES, img_size=SIZE, patch_size=4, embed_dim=12, depth=2,
                        num_heads=3, num_registers=1, pool="token", seed=3).eval()  # fmt: skip
    draw = torch.Generator().manual_seed(SEED)
    for weight in made.parameters():
        if weight.ndim > 1:  # so large that black pixels change the top class
            torch.nn.init.normal_(weight, std=0.5, generator=draw)
    return made.requires_grad_(False)


def subject_of(model: VisionTransformer, *, is_multilabel: bool = False) -> Subject:
    pixels = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    preprocess = Preprocess(img_size=SIZE, in_chans=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    return Subject(model, preprocess, pixels, CLASSES, TRUTH, is_multilabel=is_multilabel)


def loop_order(values: list[float]) -> list[int]:
    """Return the positions by descending value, equal ones in the seeded random order."""
    places = {int(number): place for place, number in enumerate(permutation(derive(0, "ties"), len(values)))}
    return sorted(range(len(values)), key=lambda number: (-values[number], places[number]))


def loop_upsampled(values: Tensor) -> list[float]:
    """Interpolate between the centers of patches, one pixel after the other."""
    found = []
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            total = 0.0
            row, column = (min(max((p + 0.5) / 4 - 0.5, 0.0), n - 1.0) for p, n in ((y, GRID[0]), (x, GRID[1])))
            for r in range(GRID[0]):
                for c in range(GRID[1]):
                    total += max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c)) * float(values[r, c])
            found.append(total)
    return found


def normalized(subject: Subject, pixels: Tensor) -> Tensor:
    """Return one image in float64."""
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    return (pixels.double() / 255 - mean) / std


def expected(points: int, value: Callable[[int, int], float]) -> Tensor:
    return torch.tensor([[value(image, step) for step in range(points)] for image in range(2)], dtype=torch.float64)


def assert_curves(found: Curves, x: list[float], first: Tensor, second: Tensor) -> None:
    for got, wanted in zip(found, (torch.tensor(x), first, second), strict=True):
        torch.testing.assert_close(got.double(), wanted.double(), rtol=0, atol=2e-5)


def test_perturbation_is_the_published_loop(model: VisionTransformer) -> None:
    subject, exact = subject_of(model), copy.deepcopy(model).double()

    def accuracy(image: int, tenths: int, sign: int) -> float:
        order = loop_order(loop_upsampled(MAPS[image]))[::sign]
        pixels = subject.pixels[image].clone().flatten(1)
        for pixel in order[: int(tenths / 10 * len(order))]:
            pixels[:, pixel] = 0
        top = int(exact(normalized(subject, pixels.view(3, *SIZE))[None])[0].argmax())
        return float(TRUTH[image, top])

    curves = PROTOCOLS["perturbation"].run(subject, MAPS)
    both = [expected(10, lambda image, step, sign=sign: accuracy(image, step, sign)) for sign in (1, -1)]
    assert_curves(curves, [tenths / 10 for tenths in range(10)], *both)
    assert len(both[0].unique()) == 2, "the test images should be both right and wrong"
    scores = PROTOCOLS["perturbation"].scores(curves)
    for measure, curve in zip(("positive", "negative"), both, strict=True):
        by_numpy = [100 * np.trapezoid(row, np.arange(10) / 10) for row in curve.numpy()]
        np.testing.assert_allclose(scores[measure].numpy(), by_numpy, atol=1e-5)


@pytest.mark.parametrize("is_multilabel", [False, True])
def test_deletion_and_insertion_are_the_published_loops(model: VisionTransformer, is_multilabel: bool) -> None:
    subject, exact = subject_of(model, is_multilabel=is_multilabel), copy.deepcopy(model).double()
    kernel = np.zeros((11, 11))
    kernel[5, 5] = 1
    kernel = gaussian_filter(kernel, 5)

    def probability(image: int, step: int, *, inserting: bool) -> float:
        whole = normalized(subject, subject.pixels[image])
        blurred = np.stack([convolve2d(channel, kernel, mode="same") for channel in whole.numpy()])
        start, finish = (torch.from_numpy(blurred), whole) if inserting else (whole, torch.zeros_like(whole))
        changed = start.clone().flatten(1)
        for pixel in loop_order(loop_upsampled(MAPS[image]))[: step * 96 // 28]:
            changed[:, pixel] = finish.flatten(1)[:, pixel]
        logits = exact(changed.view(1, 3, *SIZE))[0]
        every = logits.sigmoid() if is_multilabel else logits.softmax(dim=0)
        return float(every[CLASSES[image]])

    curves = PROTOCOLS["rise"].run(subject, MAPS)
    both = [expected(29, lambda image, step, i=i: probability(image, step, inserting=i)) for i in (False, True)]
    assert_curves(curves, [step / 28 for step in range(29)], *both)


def test_flipping_sets_embeddings_to_zero_before_the_position(model: VisionTransformer) -> None:
    subject, exact = subject_of(model), copy.deepcopy(model).double()

    def logit(image: int, step: int, sign: int) -> float:
        tokens = exact.tokenizer(normalized(subject, subject.pixels[image])[None])
        for patch in loop_order(MAPS[image].flatten().tolist())[::sign][:step]:
            tokens[0, patch] = 0
        tokens = exact.position(tokens, GRID)
        return float(exact.forward_head(exact.encoder(exact.prefix(tokens), None))[0, CLASSES[image]])

    both = [expected(7, lambda image, step, sign=sign: logit(image, step, sign)) for sign in (1, -1)]
    curves = PROTOCOLS["flipping"].run(subject, MAPS)
    assert_curves(curves, [step / 6 for step in range(7)], *both)
    areas = [sum((row[k] + row[k + 1]) / 2 / 6 for k in range(6)) for row in (both[1] - both[0]).tolist()]
    np.testing.assert_allclose(PROTOCOLS["flipping"].scores(curves)["flipping"].numpy(), areas, atol=1e-5)


def test_removal_leaves_tokens_out(model: VisionTransformer) -> None:
    subject, exact = subject_of(model), copy.deepcopy(model).double()

    def logit(image: int, step: int, sign: int) -> float:
        tokens, _ = exact.embed(normalized(subject, subject.pixels[image])[None])
        gone = loop_order(MAPS[image].flatten().tolist())[::sign][:step]
        kept = [0, 1, *(2 + patch for patch in range(6) if patch not in gone)]
        return float(exact.forward_head(exact.encoder(tokens[:, kept], None))[0, CLASSES[image]])

    both = [expected(7, lambda image, step, sign=sign: logit(image, step, sign)) for sign in (1, -1)]
    assert_curves(PROTOCOLS["removal"].run(subject, MAPS), [step / 6 for step in range(7)], *both)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocols_leave_the_model_as_it_was(protocol: str, model: VisionTransformer) -> None:
    subject = subject_of(model)
    before, hooks = subject.logits(subject.images), len(model.patch_norm._forward_hooks)
    PROTOCOLS[protocol].run(subject, MAPS)
    assert len(model.patch_norm._forward_hooks) == hooks
    torch.testing.assert_close(subject.logits(subject.images), before, rtol=0, atol=0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scores_of_an_image_do_not_depend_on_its_batch(protocol: str, model: VisionTransformer) -> None:
    whole, run = subject_of(model), PROTOCOLS[protocol].run
    together = run(whole, MAPS)
    for number in range(2):
        one = slice(number, number + 1)
        part = Subject(model, whole.preprocess, whole.pixels[one], CLASSES[one], TRUTH[one])
        for a, b in zip(together[1:], run(part, MAPS[one])[1:], strict=True):
            torch.testing.assert_close(a[one], b, rtol=1e-5, atol=1e-5)


def test_upsampling_is_bilinear_between_the_centers_of_patches() -> None:
    wanted = torch.tensor([loop_upsampled(values) for values in MAPS])
    torch.testing.assert_close(upsampled(MAPS, SIZE), wanted, rtol=0, atol=0)


def test_equal_values_are_in_random_order_instead_of_row_by_row() -> None:
    order = in_order(torch.zeros(2, 500), seed=4)
    assert order[0].sort().values.tolist() == list(range(500))
    assert abs(float(np.corrcoef(order[0].numpy(), np.arange(500))[0, 1])) < 0.15
    assert not torch.equal(order, in_order(torch.zeros(2, 500), seed=5))


def test_random_maps_of_an_image_do_not_depend_on_other_images() -> None:
    numbers = np.array([7, 3, 5])
    assert torch.equal(random_maps(numbers, GRID)[1], random_maps(np.array([3]), GRID)[0])
    assert not torch.equal(random_maps(numbers, GRID), random_maps(numbers, GRID, seed=1))


def test_center_maps_fall_with_the_distance_from_the_center() -> None:
    maps = center_maps(2, (3, 5))
    assert maps.shape == (2, 3, 5)
    assert maps[0].flatten().argmax() == 7
    torch.testing.assert_close(maps[1, 0], -torch.tensor([5.0, 2, 1, 2, 5]).sqrt())


def test_blur_keeps_the_mean_color_inside_and_fades_to_zero_at_the_border() -> None:
    blurred = blur(torch.ones(1, 2, 31, 31))
    torch.testing.assert_close(blurred[0, 1, 15, 15], torch.tensor(1.0))
    assert 0.2 < float(blurred[0, 0, 0, 0]) < 0.4


# Cost.


def count_images(model: VisionTransformer, run: Callable[[], object]) -> int:
    """Return how many images pass through the encoder."""
    sizes: list[int] = []
    handle = model.encoder.register_forward_hook(lambda _module, args, _output: sizes.append(len(args[0])))
    try:
        run()
    finally:
        handle.remove()
    return sum(sizes)


PASSES = {
    "perturbation": [18, 18, 6],  # 9 steps of 10%, from both ends; then 3 of 30%
    "rise": [54, 26, 12],  # 27 steps between the ends, deleted and inserted
    "flipping": [10, 10, 6],  # 5 of 6 patches, from both ends; then 3 of 4 steps
    "removal": [10, 10, 6],
}
ENDS = {"perturbation": 1, "rise": 4, "flipping": 2, "removal": 2}
"""The unchanged image, and the image without anything; an insertion begins with the blurred image."""


@pytest.mark.parametrize("coarseness", [0, 1, 2])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_map_costs_the_stated_passes_and_all_maps_share_both_ends(
    name: str, coarseness: int, model: VisionTransformer
) -> None:
    subject, protocol = subject_of(model), PROTOCOLS[name]
    expected = PASSES[name][coarseness]
    first = count_images(model, lambda: protocol.run(subject, MAPS, coarseness))
    second = count_images(model, lambda: protocol.run(subject, -MAPS, coarseness))
    assert (first, second) == (2 * (expected + ENDS[name]), 2 * expected)
    num_units = {"pixels": SIZE[0] * SIZE[1], "patches": GRID[0] * GRID[1]}[protocol.units]
    assert protocol.passes(num_units, coarseness) == expected * (0.5 if name == "removal" else 1)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_fewer_steps_are_some_of_the_points_of_the_same_curves(name: str, model: VisionTransformer) -> None:
    subject, protocol = subject_of(model), PROTOCOLS[name]
    fine, coarse = protocol.run(subject, MAPS, 0), protocol.run(subject, MAPS, 2)
    shared = [(i, j) for i, x in enumerate(fine.x) for j, y in enumerate(coarse.x) if abs(x - y) < 1e-6]
    assert len(shared) >= 3
    for one, other in zip(fine[1:], coarse[1:], strict=True):
        for i, j in shared:
            torch.testing.assert_close(one[:, i], other[:, j])
