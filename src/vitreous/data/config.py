"""Keys and values -> DataConfig: which images, and how they are resized, split, augmented and batched."""

from dataclasses import dataclass
from typing import Annotated, Literal

from vitreous.data.label_cells import Task
from vitreous.errors import ConfigError
from vitreous.ranges import Hint, Interval, check_fields

Fit = Literal["crop", "squash", "pad"]
"""How an image with a different aspect ratio is fitted to `img_size`: cut off its ends, distort it, or pad it."""

Fill = Literal["edge", "black", "reflect"]
"""What fills the pixels that a shift or rotation uncovers: the repeated edge, black, or the mirrored image."""

PolicyName = Literal["none", "randaugment", "trivialaugment", "3-augment"]
"""Operations applied after crop, zoom, rotation, shift and flip."""

MixPer = Literal["batch", "pair"]
"""Draw the mixing share once for the whole batch, or separately for each pair of images."""

SamplerName = Literal["shuffle", "balanced", "weighted"]
"""Show each image once per epoch, all classes equally often, or each image in proportion to its weight in the data."""

OnError = Literal["skip", "error"]
"""Leave out files that cannot be decoded and report them, or raise an error before training."""

ImageSize = Annotated[tuple[int, int], Interval("[1, 2**31)", "give a height and a width in px, e.g. 64x48")]
Channels = Annotated[int, Interval("[1, 16]", "use 1 for gray, 3 for RGB, or the number that the images have")]
Mean = Annotated[tuple[float, ...], Interval("[0, 1]", "give means of pixels that are divided by 255")]
Std = Annotated[tuple[float, ...], Interval("(0, inf)", "leave mean and std out to have them measured")]
ValueRange = Annotated[tuple[float, ...], Interval("(-inf, inf)", "give the values of black and white, e.g. 0,4095")]
_Ratio = Annotated[float, Interval("[0, 1)")]
_Rate = Annotated[float, Interval("[0, 1]")]
_Alpha = Annotated[float, Interval("[0, inf)")]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images the model sees, and how they are resized, split, augmented and batched.

    Attributes:
        source: Data set: the name of a built-in set (`digits`, `cifar10`, ...), the path of a folder, table, tar file
            or export of a labeling tool, or `hf://organization/name`. Data passed from Python is recorded as
            `python:NAME`.
        root: Folder of the images of a table or an export; paths that lead outside it are rejected. `none` uses the
            folder of the file.
        task: Labels of an image: `single` is exactly one, `multilabel` any number. `auto` decides by the data: a table
            is multi-label if it has one column of 0 and 1 per label, or if at least 5% of its rows hold several labels
            (`cat;dog`) or repeat an image with another label. The export of a labeling tool is if any image has several
            labels. `unlabeled` reads all images of a folder, at any depth, without labels; only `vitreous pretrain` can
            use them, and decides it for a folder without class folders.
        corrections: CSV file that corrects labels and splits, and drops images; `vitreous inspect DATA --fix FILE`
            proposes one. Each run keeps a copy.
        img_size: Height and width of the images that the model gets, in px, e.g. `64` or `64x48`. Other sizes are
            resized.
        in_chans: Channels of the images that the model gets: 1 for gray, 3 for RGB, or another number up to 16 for
            other images, such as those of satellites. 2 and 4 do not treat the last channel as opacity.
        num_classes: Number of classes.
        fit: How an image with a different aspect ratio is fitted to `img_size`. `crop` cuts off its ends and keeps the
            center, `squash` distorts it, `pad` keeps all of it and repeats its edge pixels.
        mean: Mean of each channel, which normalization subtracts from pixels divided by 255. `none` measures it on the
            training images.
        std: Standard deviation of each channel, by which normalization then divides. Must be set together with
            `data.mean`.
        value_range: Values that become black and white in images of more than 8 bits, e.g. `0,4095`, or black and white
            of each channel in turn. Values beyond are clipped. Images of 8 bits keep their own full scale, 0 to 255.
            The plan decides it from all images; `none` is for sets without deeper images.
        test_ratio: Fraction of all images that is held out as the test split. Has no effect if the data has a test
            split already. By default 0 if the data has a validation split and fewer than 1,000 images.
        val_ratio: Fraction of the images outside the test split that is held out as the validation split. Has no effect
            if the data has a validation split already.
        split_seed: Seed of the random splits; a different seed gives different test and validation images.
        num_folds: Number of folds for cross-validation. One fold is the test split instead of a `data.test_ratio`; a
            test split that comes with the data is not used. 0 makes a single split.
        fold: Number of the fold that is the test split, from 0 to `data.num_folds` - 1.
        batch_size: Images per optimizer step, over all devices and micro-batches together.
        flip: Mirror each image left to right with probability 1/2.
        min_crop_area: Smallest random crop, as a fraction of the image's area. Each crop keeps between this fraction
            and all of the image and is resized to `data.img_size`. 1 turns cropping off.
        max_shift: Largest random shift, up, down, left or right, as a fraction of the image's side.
        max_rotate_deg: Largest random rotation to either side, in degrees.
        max_scale: Largest random zoom `s`: images are scaled by a factor between 1 - `s` and 1 + `s`.
        erase_rate: Probability that a random rectangle of an image is painted over with the image's mean color.
        fill: What fills the pixels that a shift or rotation uncovers. `edge` repeats the edge pixels, `black` is black,
            `reflect` mirrors the image.
        policy: Additional random operations on color and shape. `randaugment` applies `data.policy_num_ops` operations
            of a given strength, `trivialaugment` one of random strength, `3-augment` one of the three of DeiT III
            (grayscale, solarize, blur). `none` applies none.
        policy_rate: Probability that the policy is applied to an image.
        policy_num_ops: Operations per image, for `data.policy=randaugment`.
        policy_strength: Strength of each operation as a fraction of its largest, for `data.policy=randaugment`. 0.9 is
            known as magnitude 9.
        color_jitter: Largest change `j` of brightness, contrast and saturation: each is multiplied by a random factor
            between 1 - `j` and 1 + `j`.
        mixup_alpha: Parameter of mixup: images and labels are blended in proportions drawn from Beta(alpha, alpha). 0
            turns mixup off.
        cutmix_alpha: Parameter of CutMix: a rectangle is replaced by the same rectangle of another image; its area is
            drawn from Beta(alpha, alpha). 0 turns CutMix off.
        cutmix_rate: Probability of CutMix instead of mixup if both are on.
        mix_rate: Probability that images are mixed at all.
        mix_per: Draw the kind and proportion of mixing once per `batch`, or separately for each `pair` of images.
        mix_until: Point in the run after which images are no longer mixed; 0.9 leaves the last tenth unmixed.
        sampler: How often each image is shown. `shuffle` shows each once per epoch, `balanced` shows all classes
            equally often, `weighted` follows the weights that come with the data.
        repeats: Copies of each image in its batch, each augmented differently (repeated augmentation). At most
            `data.batch_size`.
        on_error: What to do about a file that cannot be decoded: `skip` leaves it out and reports it, `error` ends the
            run before training.
        memory_limit_bytes: Largest size of the decoded images that are kept in memory, in bytes; larger data sets are
            read from the cache or decoded again. `none` allows a quarter of this machine's memory.
        cache: Folder that keeps decoded images for later runs. `auto` is a folder in the user's cache; `none` keeps
            nothing.

    Raises:
        UnknownNameError: A name is not among the choices of its key.
        ConfigError: Another value has the wrong type, is out of range, or contradicts another key.
    """

    source: Annotated[str, Hint("name a data set, or give the path of a folder or table")]
    root: Annotated[str, Hint("give the folder of the images of a table or an export")] | None = None
    task: Task = "auto"
    corrections: Annotated[str, Hint("give the path of a CSV file, or none")] | None = None
    img_size: ImageSize
    in_chans: Channels
    num_classes: Annotated[int, Interval("[1, 2**31)", "a classifier needs two classes or more")]
    fit: Fit = "crop"
    mean: Mean | None = None
    std: Std | None = None
    value_range: ValueRange | None = None
    test_ratio: _Ratio = 0.2
    val_ratio: _Ratio = 0.1
    split_seed: Annotated[int, Interval("[0, 2**64)")] = 0
    num_folds: Annotated[int, Interval("[0, 2**31)", "use 5, or 0 for a single split")] = 0
    fold: Annotated[int, Interval("[0, 2**31)", "the first fold is 0")] = 0
    batch_size: Annotated[int, Interval("[1, 2**31)", "use 64, or fewer if memory is short")] = 64
    flip: bool = False
    min_crop_area: Annotated[float, Interval("(0, 1]", "1 turns cropping off")] = 1.0
    max_shift: Annotated[float, Interval("[0, 0.5]")] = 0.0
    max_rotate_deg: Annotated[float, Interval("[0, 180]")] = 0.0
    max_scale: _Ratio = 0.0
    erase_rate: _Rate = 0.0
    fill: Fill = "edge"
    policy: PolicyName = "none"
    policy_rate: _Rate = 1.0
    policy_num_ops: Annotated[int, Interval("[1, 100]", "use 2, or data.policy=none")] = 2
    policy_strength: _Rate = 0.9
    color_jitter: _Rate = 0.0
    mixup_alpha: _Alpha = 0.0
    cutmix_alpha: _Alpha = 0.0
    cutmix_rate: _Rate = 0.5
    mix_rate: _Rate = 1.0
    mix_per: MixPer = "batch"
    mix_until: _Rate = 1.0
    sampler: SamplerName = "shuffle"
    repeats: Annotated[int, Interval("[1, 2**31)", "use 1 for no repeated augmentation")] = 1
    on_error: OnError = "skip"
    memory_limit_bytes: Annotated[int, Interval("[0, 2**63)", "leave it out for a quarter of the memory")] | None = None
    cache: Annotated[str, Hint("use auto, none or a folder")] | None = "auto"

    def __post_init__(self) -> None:
        check_fields(self, "data")
        check_statistics("data", self.mean, self.std, self.in_chans)
        check_value_range("data", self.value_range, self.in_chans)
        check_folds(self.num_folds, self.fold)
        if self.repeats > self.batch_size:
            raise ConfigError(
                f"data.repeats={self.repeats}: must be at most data.batch_size={self.batch_size}, since all copies of "
                "an image are in one batch; use fewer repeats or a larger batch"
            )


def check_folds(num_folds: int, fold: int) -> None:
    """Raise ConfigError if `num_folds` is 1 or negative, or the fold does not exist."""
    if num_folds < 0 or num_folds == 1:
        raise ConfigError(
            f"data.num_folds={num_folds}: must be 2 or more, so that images are left for training; use 5, or 0 for a "
            "single split"
        )
    if not 0 <= fold < max(1, num_folds):
        if not num_folds:
            raise ConfigError(f"data.fold={fold}: there are no folds; set data.num_folds as well, or leave it out")
        raise ConfigError(f"data.fold={fold}: is none of data.num_folds={num_folds} folds; use 0 to {num_folds - 1}")


def check_statistics(owner: str, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, in_chans: int) -> None:
    """Raise ConfigError unless mean and standard deviation both have one number per channel, or both are left out.

    `owner` is the prefix of the keys in the message, e.g. `data`.
    """
    if mean is None and std is None:
        return
    if mean is None or std is None:
        missing, given = ("mean", "std") if mean is None else ("std", "mean")
        value = std if mean is None else mean
        raise ConfigError(f"{owner}.{given}={value}: must be given with {owner}.{missing}; give both or neither")
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != in_chans:
            raise ConfigError(
                f"{owner}.{key}={values}: must have one number per channel, {in_chans} here; add or remove numbers"
            )


def check_value_range(owner: str, value_range: tuple[float, ...] | None, in_chans: int) -> None:
    """Raise ConfigError unless a range has 2 numbers or 2 per channel, with black below white.

    `owner` is the prefix of the key in the message, e.g. `data`.
    """
    if not value_range:
        return
    shown = ",".join(f"{value:g}" for value in value_range)
    if len(value_range) not in (2, 2 * in_chans):
        counts = "2 numbers" if in_chans == 1 else f"2 numbers, or {2 * in_chans} for {in_chans} channels"
        raise ConfigError(f"{owner}.value_range={shown}: must have {counts}; give the values of black and white")
    for low, high in zip(value_range[::2], value_range[1::2], strict=True):
        if not low < high:
            raise ConfigError(f"{owner}.value_range={shown}: {low:g} is not below {high:g}; give black before white")
