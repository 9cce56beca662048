"""Number of images, image size -> the numbers a recipe starts from, as tables to read.

The values come from our own runs (`benchmarks/front_door.py`, results beside it) on digits, Fashion-MNIST, sign-digits
and clothing-96px, and from Steiner et al. 2022, "How to train your ViT?" (2106.10270): small data wants smaller models,
more augmentation and more epochs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rung:
    """A model that a budget may take: its size, and into about how many tokens it cuts an image."""

    size: str
    num_tokens: int


LADDER = (
    Rung("pico", 16),
    Rung("nano", 16),
    Rung("nano", 64),
    Rung("micro", 64),
    Rung("mini", 64),
    Rung("tiny", 64),
    Rung("small", 64),
)
"""From cheap to dear; a budget that is too short for one takes the one before.

On Fashion-MNIST, in the same 100 s, nano with 16 tokens reached 84.3 %, micro with 16 tokens 83.6 % and pico with 49
tokens 82.5 % (one seed, a busy machine).
"""

MAX_STRETCH = 4.0
"""A budget may lengthen a run to this many times its usual epochs; more showed no gain."""


@dataclass(frozen=True)
class SizeRule:
    """What suits a training set of up to `max_images`.

    Attributes:
        max_images: The rule holds up to this many training images.
        size: Model size.
        epochs: Passes over the images where no budget says otherwise.
        least_epochs: Below this many a smaller model does better in the same time.
        batch_size: Images a step.
    """

    max_images: float
    size: str
    epochs: float
    least_epochs: float
    batch_size: int


BY_NUM_IMAGES = (
    SizeRule(500, "nano", 200, 60, 16),
    SizeRule(1_000, "nano", 120, 40, 32),
    SizeRule(5_000, "micro", 80, 25, 32),
    SizeRule(20_000, "micro", 40, 10, 64),
    SizeRule(200_000, "micro", 20, 5, 128),
    SizeRule(float("inf"), "small", 30, 3, 512),
)


def by_num_images(num_train: int) -> SizeRule:
    """The row of the table for so many training images."""
    return next(rule for rule in BY_NUM_IMAGES if num_train <= rule.max_images)


VARIATION_KEYS = (
    "data.max_shift",
    "data.max_rotate_deg",
    "data.max_scale",
    "data.erase_rate",
    "data.color_jitter",
    "data.policy_rate",
    "data.mix_rate",
    "model.drop_path_rate",
)
"""What varies images and hinders the model, beside crops, mirroring and label smoothing."""

VARIED_BY = {"data.policy_rate": ("data.policy",), "data.mix_rate": ("data.mixup_alpha", "data.cutmix_alpha")}
"""A rate -> the keys by which a recipe asks for what happens at that rate."""

VARIATION_BY_EPOCHS = ((40.0, 1.0), (20.0, 0.5), (0.0, 0.0))
"""(from so many epochs on, this share of the recipe's variation). On Fashion-MNIST one epoch reaches 5 points more with
hardly any; on the digits 60 epochs reach 2 points more with all."""


def variation_share(epochs: float) -> float:
    """The share for so many passes over the images, in [0, 1]."""
    return next(share for least, share in VARIATION_BY_EPOCHS if epochs >= least)


def learning_rate(batch_size: int, embed_dim: int) -> float:
    """Peak rate for AdamW: √batch (Malladi et al. 2022, 2205.10287) and 1/√width from 2e-3 at batch 64, width 128."""
    return float(f"{2e-3 * (batch_size / 64) ** 0.5 * (128 / embed_dim) ** 0.5:.2g}")


@dataclass(frozen=True)
class OptimizerRule:
    """What becomes of a recipe, all of which are written for AdamW, under another optimiser.

    Attributes:
        lr_ratio: Its learning rate as a multiple of AdamW's.
        decay_ratio: Its weight decay as a multiple of AdamW's.
        values: Keys that it wants otherwise.
        reason: One clause.
    """

    lr_ratio: float
    decay_ratio: float
    values: Mapping[str, Any]
    reason: str


BY_OPTIMIZER = {
    "adamw": OptimizerRule(1.0, 1.0, {}, ""),
    "lion": OptimizerRule(
        0.2, 5.0, {"optim.beta2": 0.99}, "Lion's steps are all signs: a fifth of AdamW's rate, five times its decay"
    ),
    "adafactor": OptimizerRule(1.0, 1.0, {}, "Adafactor takes AdamW's rate (2106.04560)"),
    "muon": OptimizerRule(1.0, 1.0, {}, "Muon's steps are scaled to the size of AdamW's (2502.16982)"),
    "schedule_free": OptimizerRule(
        1.0, 1.0, {"optim.schedule": "constant"}, "an average takes the place of a schedule (2405.15682)"
    ),
    "lamb": OptimizerRule(3.0, 1.0, {}, "LAMB's steps are shares of a matrix's length: three times AdamW's rate"),
}
"""`vitreous train digits --epochs 20 --optim.name NAME`, seeds 0 to 2, of 441 test images: muon 99.4 %, adafactor 99.1,
adamw 98.9, schedule_free 98.6, lion 98.5; lamb 98.4 with one seed. In 8 epochs, rates up to twice as high or low moved
lion, adafactor and adamw by less than a point, which is noise there; schedule_free lost one at 2.5 times its rate."""


def tileable_size(height_px: int, width_px: int) -> tuple[int, int]:
    """The size nearest to that of the images that patches tile into about 8 × 8 tokens: 61×53 becomes 63×56."""
    side = max(1, round((height_px * width_px / 64) ** 0.5))
    return max(1, round(height_px / side)) * side, max(1, round(width_px / side)) * side


def patch_size_for(img_size: tuple[int, int], num_tokens: int = 64) -> int:
    """The patch that cuts the image into nearest to so many tokens: fewer blur the image, more cost time."""
    height, width = img_size
    tiling = [side for side in range(1, min(height, width) + 1) if height % side == 0 and width % side == 0]
    return min(tiling, key=lambda side: abs((height // side) * (width // side) - num_tokens))
