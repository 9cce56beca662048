"""Keys and values -> DataConfig: which images, how they are shaped, split, varied and batched."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from vitreous.errors import ConfigError, UnknownNameError, nearest

Fit = Literal["crop", "squash", "pad"]
"""How an image of another aspect ratio becomes `img_size`: cut its ends, distort it, or extend it by its edge."""

FITS: tuple[str, ...] = get_args(Fit)

Fill = Literal["edge", "black", "reflect"]
"""What comes in from outside where an image is moved: its edge repeated, black, or the image mirrored at its edge."""

PolicyName = Literal["none", "randaugment", "trivialaugment", "3-augment"]
"""Which operations images go through beside crops, shifts and turns."""

MixPer = Literal["batch", "pair"]
"""One draw for all images of a batch, or one for each image and its partner."""

SamplerName = Literal["shuffle", "balanced", "weighted"]
"""Each image once an epoch; all classes equally often; or each image as often as the weights of the data say."""

OnError = Literal["skip", "error"]
"""Files that are no readable images are left out, with a note; or the run does not begin."""

_CHOICES = {"fill": Fill, "policy": PolicyName, "mix_per": MixPer, "sampler": SamplerName, "on_error": OnError}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """All that decides what a model sees. Ranges are checked on construction.

    Attributes:
        source: A set's name (`digits`, `cifar10`, …), the path of a folder or table, `hf://organisation/name`, or for
            what was given from Python `python:NAME`.
        root: The folder that a table's paths are relative to, and must not leave; None: the table's own.
        img_size: Height and width of every image the model gets, px.
        in_chans: 1 (gray) or 3 (RGB).
        num_classes: At least 2.
        fit: How an image of another aspect ratio becomes `img_size`.
        mean: Per channel, of pixels in [0, 1]; None: measured on the training images.
        std: As `mean`; above 0.
        test_ratio: Share of all images held out for the test where the source brings no test split, in [0, 1).
        val_ratio: Share of the images outside the test held out for validation where the source brings none, in [0, 1).
        split_seed: Another seed, another split.
        num_folds: 0: a single split. K: the images are divided into K folds, and one of them is the test instead of a
            `test_ratio`; a test set that the source brings stays untouched then.
        fold: Which of them, in [0, K).
        batch_size: Images a step, in total.
        flip: Mirror left and right half of the time.
        min_crop_area: A random crop keeps a share of the area in [`min_crop_area`, 1]; 1: no crop.
        max_shift: Largest shift, as a share of the side, in [0, 0.5].
        max_rotate_deg: Largest rotation to either side, in [0, 180].
        max_scale: Zoom is drawn from [1 − s, 1 + s]; s in [0, 1).
        erase_rate: Probability that a random rectangle is erased, in [0, 1].
        fill: What comes in from outside where an image is moved: `edge` (repeated), `black` or `reflect`.
        policy: `none`, `randaugment`, `trivialaugment` or `3-augment`.
        policy_rate: Share of the images that the policy varies, in [0, 1].
        policy_num_ops: RandAugment: operations an image.
        policy_strength: RandAugment: as a share of each operation's largest, in [0, 1]; 0.9 is known as magnitude 9.
        color_jitter: Brightness, contrast and saturation are multiplied by factors from [1 − j, 1 + j]; j in [0, 1].
        mixup_alpha: Images are blended in shares from Beta(α, α); 0: no mixup.
        cutmix_alpha: Rectangles whose shares are from Beta(α, α) come from another image; 0: no CutMix.
        cutmix_rate: Where both are asked, how often it is CutMix, in [0, 1].
        mix_rate: How often anything is mixed, in [0, 1].
        mix_per: `batch` or `pair`.
        mix_until: Progress of the run from which on nothing is mixed, in [0, 1]; 0.9: not in the last tenth.
        sampler: `shuffle`, `balanced` or `weighted`.
        repeats: How many times each image stands in its batch, each time varied anew.
        on_error: What a file that is no readable image does: `skip` leaves it out and says so, `error` ends the run.
        memory_limit_bytes: Decoded images are kept in memory up to this size; None: a quarter of the machine's.
        cache: The folder that keeps decoded images for later runs; `auto`: in this user's cache; None: none does.

    Raises:
        ConfigError: A value outside its range, or `mean` and `std` that do not fit each other or `in_chans`.
        UnknownNameError: A `fit`, `fill`, `policy`, `mix_per`, `sampler` or `on_error` that does not exist.
    """

    source: str
    root: str | None = None
    img_size: tuple[int, int]
    in_chans: int
    num_classes: int
    fit: Fit = "crop"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    test_ratio: float = 0.2
    val_ratio: float = 0.1
    split_seed: int = 0
    num_folds: int = 0
    fold: int = 0
    batch_size: int = 64
    flip: bool = False
    min_crop_area: float = 1.0
    max_shift: float = 0.0
    max_rotate_deg: float = 0.0
    max_scale: float = 0.0
    erase_rate: float = 0.0
    fill: Fill = "edge"
    policy: PolicyName = "none"
    policy_rate: float = 1.0
    policy_num_ops: int = 2
    policy_strength: float = 0.9
    color_jitter: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    cutmix_rate: float = 0.5
    mix_rate: float = 1.0
    mix_per: MixPer = "batch"
    mix_until: float = 1.0
    sampler: SamplerName = "shuffle"
    repeats: int = 1
    on_error: OnError = "skip"
    memory_limit_bytes: int | None = None
    cache: str | None = "auto"

    def __post_init__(self) -> None:
        _require(
            isinstance(self.source, str) and self.source != "", "source", self.source, "must name a set or a folder"
        )
        _require(self.root is None or self.root != "", "root", self.root, "must name a folder")
        check_image_shape("data", self.img_size, self.in_chans, self.fit)
        check_statistics("data", self.mean, self.std, self.in_chans)
        _require_integer("num_classes", self.num_classes, 2, "a classifier needs two classes")
        _require_integer("batch_size", self.batch_size, 1, "use 64, or what memory allows")
        _require_integer("split_seed", self.split_seed, 0, "use 0")
        check_folds(self.num_folds, self.fold)
        if self.memory_limit_bytes is not None:
            _require_integer(
                "memory_limit_bytes", self.memory_limit_bytes, 0, "leave it out for a quarter of the memory"
            )
        _require(self.cache is None or self.cache != "", "cache", self.cache, "must be auto, none or a folder")
        _require(isinstance(self.flip, bool), "flip", self.flip, "must be true or false")
        for key in ("test_ratio", "val_ratio", "max_scale"):
            _require_range(key, getattr(self, key), "[0, 1)")
        _require_range("min_crop_area", self.min_crop_area, "(0, 1]")
        _require_range("max_shift", self.max_shift, "[0, 0.5]")
        _require_range("max_rotate_deg", self.max_rotate_deg, "[0, 180]")
        for key in ("erase_rate", "policy_rate", "policy_strength", "color_jitter"):
            _require_range(key, getattr(self, key), "[0, 1]")
        for key in ("cutmix_rate", "mix_rate", "mix_until"):
            _require_range(key, getattr(self, key), "[0, 1]")
        for key in ("mixup_alpha", "cutmix_alpha"):
            _require_range(key, getattr(self, key), "[0, inf)")
        for key, choices in _CHOICES.items():
            _require_name(key, getattr(self, key), get_args(choices))
        _require_integer("policy_num_ops", self.policy_num_ops, 1, "use 2, or leave policy out for none")
        _require_integer("repeats", self.repeats, 1, "use 1 for no repetition")
        at_most = f"must be at most data.batch_size={self.batch_size}, which holds all copies of an image"
        _require(self.repeats <= self.batch_size, "repeats", self.repeats, at_most)


def check_image_shape(owner: str, img_size: tuple[int, int], in_chans: int, fit: str) -> None:
    """Check what describes one image.

    Args:
        owner: What the keys belong to, for the message, e.g. `data`.
        img_size: Height and width, px, each at least 1.
        in_chans: 1 or 3.
        fit: One of `FITS`.

    Raises:
        ConfigError: `img_size` is no pair of positive integers, or `in_chans` is neither 1 nor 3.
        UnknownNameError: `fit` does not exist.
    """
    is_pair = isinstance(img_size, tuple) and len(img_size) == 2
    if not is_pair or not all(_is_integer(side) and side >= 1 for side in img_size):
        raise ConfigError(f"{owner}.img_size={img_size}: must be (height, width) in px, each at least 1; use (32, 32)")
    if not _is_integer(in_chans) or in_chans not in (1, 3):
        raise ConfigError(f"{owner}.in_chans={in_chans}: must be 1 (gray) or 3 (RGB); convert other images first")
    if fit not in FITS:
        raise UnknownNameError(f"{owner}.fit={fit}: no such fit; {nearest(str(fit), FITS)}")


def check_folds(num_folds: int, fold: int) -> None:
    """Raise ConfigError unless `num_folds` is 0 or at least 2, and `fold` is one of them (0 without folds)."""
    _require_integer("num_folds", num_folds, 0, "use 5, or 0 for a single split")
    if num_folds == 1:
        raise ConfigError("data.num_folds=1: leaves nothing to train on; use 5, or 0 for a single split")
    _require_integer("fold", fold, 0, "the first one is 0")
    if fold >= max(1, num_folds):
        way_out = f"use 0 to {num_folds - 1}" if num_folds else "set that too, or leave it out"
        raise ConfigError(f"data.fold={fold}: is none of data.num_folds={num_folds} folds; {way_out}")


def check_statistics(owner: str, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, in_chans: int) -> None:
    """Check that mean and std are both unknown, or both one number a channel, in range.

    Args:
        owner: What the keys belong to, for the message.
        mean: Of pixels in [0, 1], or None.
        std: Above 0, or None.
        in_chans: How many numbers each must hold.

    Raises:
        ConfigError: One is given without the other, a length differs from `in_chans`, or a value is out of range.
    """
    if mean is None and std is None:
        return
    if mean is None or std is None:
        missing, given = ("mean", "std") if mean is None else ("std", "mean")
        raise ConfigError(f"{owner}.{missing}=None: must be given with {owner}.{given}; give both or neither")
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != in_chans:
            raise ConfigError(
                f"{owner}.{key}={values}: has {len(values)} values for {in_chans} channels; give one a channel"
            )
    if not all(0.0 <= value <= 1.0 for value in mean):
        raise ConfigError(f"{owner}.mean={mean}: must lie in [0, 1], the range of pixels/255; divide by 255")
    if not all(0.0 < value < math.inf for value in std):
        raise ConfigError(f"{owner}.std={std}: must be above 0; leave mean and std out to have them measured")


def _require(holds: bool, key: str, got: object, rule: str) -> None:
    if not holds:
        raise ConfigError(f"data.{key}={got}: {rule}; see DataConfig")


def _require_name(key: str, got: object, known: tuple[str, ...]) -> None:
    if got not in known:
        raise UnknownNameError(f"data.{key}={got}: no such choice; {nearest(str(got), known)}")


def _require_integer(key: str, got: int, least: int, way_out: str) -> None:
    if not _is_integer(got) or got < least:
        raise ConfigError(f"data.{key}={got}: must be an integer of at least {least}; {way_out}")


def _require_range(key: str, got: float, interval: str) -> None:
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    is_number = isinstance(got, int | float) and not isinstance(got, bool)
    above = is_number and (got >= low if interval[0] == "[" else got > low)
    if not above or not (got <= high if interval[-1] == "]" else got < high):
        raise ConfigError(f"data.{key}={got}: must be a number in {interval}; leave it out for the default")


def _is_integer(got: object) -> bool:
    return isinstance(got, int) and not isinstance(got, bool)
