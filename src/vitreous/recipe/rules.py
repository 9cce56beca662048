"""Number of images, image size -> the numbers a recipe starts from, as tables.

The values come from our own runs on digits, Fashion-MNIST, CIFAR-10, sign-digits and clothing-96px
(`benchmarks/front_door.py` and `benchmarks/small_data.py`, with stored results), and from Steiner et al. 2022, "How to
train your ViT?" (2106.10270): with less data, smaller models, stronger augmentation and more epochs work better.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitreous.data.survey.facts import DataFacts
from vitreous.model.config.divisibility import divisors, is_power_of_two, patch_sizes

LADDER = (
    ("pico", 16), ("nano", 16), ("micro", 16),
    ("nano", 64), ("micro", 64), ("mini", 64), ("tiny", 64), ("small", 64),
)  # fmt: skip
"""Models that a budget may choose, by increasing cost: size, and about the number of tokens per image. If the budget is
too short for one of them, the planner tries the next smaller one.

On Fashion-MNIST, within 180 s, micro with 16 tokens reached 91.1% in 2.9 epochs, nano with 16 tokens 90.7% in 4.2, and
pico with 49 tokens 90.4% in 3.1 (one seed, two cores with AMX; a stem of convolutions, Muon). Few tokens are cheap, and
the convolutions before them see all pixels.
"""
COARSE_TOKENS = 32
"""Images of up to this many tokens are cheap."""

MAX_STRETCH = 4.0
"""With a budget, a run may take up to this many times its usual epochs; longer runs showed no gain."""


@dataclass(frozen=True)
class SizeRule:
    """Model size, epochs and batch size for training sets of up to `max_images` images.

    `epochs` are the passes over the images without a budget. With fewer than `least_epochs`, a smaller model is more
    accurate in the same time; a model of more than `COARSE_TOKENS` tokens needs `least_fine_epochs`.
    """

    max_images: float
    size: str
    epochs: float
    least_epochs: float
    least_fine_epochs: float
    batch_size: int

    def enough_epochs(self, num_tokens: int) -> float:
        """Return the epochs from which a model with this number of tokens is worth its time."""
        return self.least_epochs if num_tokens <= COARSE_TOKENS else self.least_fine_epochs


BY_NUM_IMAGES = (
    SizeRule(500, "nano", 200, 60, 60, 16),
    SizeRule(1_000, "nano", 120, 40, 40, 32),
    SizeRule(5_000, "micro", 80, 25, 25, 32),
    SizeRule(20_000, "micro", 40, 10, 10, 64),
    SizeRule(200_000, "micro", 20, 2.5, 10, 256),
    SizeRule(float("inf"), "small", 30, 3, 3, 512),
)


def by_num_images(num_train: int) -> SizeRule:
    """Return the rule for a number of training images."""
    return next(rule for rule in BY_NUM_IMAGES if num_train <= rule.max_images)


AUGMENTATION_KEYS = (
    "data.max_shift",
    "data.max_rotate_deg",
    "data.max_scale",
    "data.erase_rate",
    "data.color_jitter",
    "data.policy_rate",
    "data.mix_rate",
    "model.drop_path_rate",
)
"""Keys of augmentation and regularization that scale with their strength; 0 switches each of them off."""

ENABLED_BY = {"data.policy_rate": ("data.policy",), "data.mix_rate": ("data.mixup_alpha", "data.cutmix_alpha")}
"""A rate -> the keys by which a recipe enables what happens at that rate."""

STRENGTH_BY_EPOCHS = ((30.0, 1.0), (10.0, 0.5), (0.0, 0.0))
"""(least epochs, strength of augmentation and regularization relative to the recipe's). On Fashion-MNIST, a run of one
epoch is 5 points more accurate with hardly any augmentation. One of 16 epochs is a point more accurate with half of it:
93.2% instead of 92.2%, one seed. On the digits, a run of 60 epochs is 2 points more accurate with all of it."""


FEWEST_PX = 64
"""Images with a shorter side are not treated as photos: recipes for small images learn them well from scratch."""


def why_not_photos(facts: DataFacts) -> str:
    """Return why the images are not treated as photos, a clause; empty if they are."""
    shortest = min(facts.height_px, facts.width_px)
    if facts.in_chans != 3 or facts.value_range:
        return "the images are not color images of 8 bits"
    if shortest < FEWEST_PX:
        return f"the shorter side of most images has {shortest} px, fewer than {FEWEST_PX}"
    return ""


LEAST_STEPS = 400
"""Runs of fewer steps have no augmentation and no regularization: they are too short to learn the images."""


def augmentation_strength(epochs: float, steps: float) -> float:
    """Return the strength of augmentation and regularization for a number of epochs and of steps, in [0, 1]."""
    if steps < LEAST_STEPS:
        return 0.0
    return next(strength for least, strength in STRENGTH_BY_EPOCHS if epochs >= least)


WARMUP_STEPS, LONGEST_WARMUP = 30, 0.4
"""Warm-up of runs from pretrained weights: the number of steps, and the largest share of a short run."""


def learning_rate(batch_size: int, embed_dim: int) -> float:
    """Return the peak learning rate for AdamW: 2e-3 at batch size 64 and width 128.

    It grows with the square root of the batch size (Malladi et al. 2022, 2205.10287) and falls with that of the width.
    """
    return float(f"{2e-3 * (batch_size / 64) ** 0.5 * (128 / embed_dim) ** 0.5:.2g}")


@dataclass(frozen=True)
class OptimizerRule:
    """How to change a recipe, which is written for AdamW, for another optimizer.

    Learning rate and weight decay are multiples of AdamW's; the reason is one clause, shown to the user.
    """

    lr_ratio: float
    decay_ratio: float
    values: Mapping[str, Any]
    reason: str


BY_OPTIMIZER = {
    "adamw": OptimizerRule(1.0, 1.0, {}, "AdamW's usual value"),
    "lion": OptimizerRule(
        0.2, 5.0, {"optim.beta2": 0.99}, "Lion's steps are signs: a fifth of AdamW's rate, five times its decay"
    ),
    "adafactor": OptimizerRule(1.0, 1.0, {}, "Adafactor uses AdamW's learning rate (2106.04560)"),
    "muon": OptimizerRule(1.0, 1.0, {}, "Muon's steps are scaled to the size of AdamW's (2502.16982)"),
    "schedule_free": OptimizerRule(
        1.0, 1.0, {"optim.schedule": "constant"}, "averaging the weights replaces the schedule (2405.15682)"
    ),
    "lamb": OptimizerRule(
        3.0, 1.0, {}, "LAMB scales each step to the norm of its weights: three times AdamW's learning rate"
    ),
}
"""Accuracy on the 441 test images of the digits with `vitreous train digits --epochs 20 --optim.name NAME`, seeds 0 to
2: muon 99.4%, adafactor 99.1%, adamw 98.9%, schedule_free 98.6%, lion 98.5%; lamb 98.4% with one seed. In runs of 8
epochs, doubling or halving the learning rate changed lion, adafactor and adamw by less than a point, which is within
the noise; schedule_free lost a point at 2.5 times its rate."""


def tileable_size(height_px: int, width_px: int) -> tuple[int, int]:
    """Return the nearest image size that square patches tile into about 8 × 8 tokens, e.g. 63×56 for 61×53."""
    side = max(1, round((height_px * width_px / 64) ** 0.5))
    return max(1, round(height_px / side)) * side, max(1, round(width_px / side)) * side


def halvable_size(height_px: int, width_px: int) -> tuple[int, int]:
    """Return the nearest size that convolutions can halve three times, or twice if it is small: 32×32 for 28×28."""
    factor = 8 if min(height_px, width_px) >= 24 else 4
    height, width = (max(1, (side + factor // 2) // factor) * factor for side in (height_px, width_px))
    return height, width


def suits_convolutions(img_size: tuple[int, int], patch_size: int) -> bool:
    """Return True if a stem of convolutions can make these patches, and they are a number that small images need."""
    return is_power_of_two(patch_size) and 16 <= math.prod(side // patch_size for side in img_size) <= 256


def patch_size_for(img_size: tuple[int, int], num_tokens: int = 64, stem: str = "linear") -> int:
    """Return the patch size that tiles an image into about `num_tokens` tokens; more tokens cost time, fewer detail.

    A stem of convolutions needs a power of two; if none tiles the image, the sizes of other stems are returned.
    """
    height, width = img_size
    sides = patch_sizes(stem, height, width) or divisors(math.gcd(height, width))
    return min(sides, key=lambda side: abs((height // side) * (width // side) - num_tokens))
