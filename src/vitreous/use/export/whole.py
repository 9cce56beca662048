"""Predictor -> WholeModel: one module from the pixels of photos to calibrated probabilities and `unfamiliar`."""

from torch import Tensor, nn

from vitreous.errors import ConfigError
from vitreous.training.fit.familiarity import Familiarity
from vitreous.use.export.resize import PillowResize
from vitreous.use.export.unfamiliar import Unfamiliar
from vitreous.use.predict.predictor import Predictor


class WholeModel(nn.Module):
    """All that happens between decoded photos and their probabilities, in float32.

    Decoding stays outside: reading the file, turning it upright as its EXIF orientation says, and converting it to RGB,
    or to gray for a model with one channel.

    Args:
        predictor: Model on the CPU, preprocessing and temperature.
        known: What its second output needs; None for one output.

    Raises:
        ConfigError: The model takes images of more than 8 bits, which are scaled while they are decoded.
    """

    def __init__(self, predictor: Predictor, known: Familiarity | None = None) -> None:
        super().__init__()
        preprocess = predictor.preprocess
        if preprocess.value_range:
            limits = ",".join(f"{limit:g}" for limit in preprocess.value_range)
            raise ConfigError(
                f"data.value_range={limits}: images of more than 8 bits are scaled while they are decoded, which an "
                "exported file cannot do; use `vitreous predict` for this model"
            )
        self.predictor, self.model = predictor, predictor.model
        self.resize = PillowResize(preprocess.img_size, preprocess.fit)
        self.unfamiliar = None if known is None else Unfamiliar(known)
        self.num_outputs = 1 if known is None else 2

    def forward(self, photos: Tensor) -> tuple[Tensor, ...]:
        """Return calibrated probabilities, float32, `[batch, classes]`.

        With `known`, the percentiles of `Familiarity.unfamiliar`, float64, `[batch]`,
        are returned, too.

        Args:
            photos: Gray levels of photos of equal size, uint8, `[batch, height, width, channels]`.
        """
        features = self.model.pooled(self.predictor.preprocess.normalize(self.resize(photos)))
        logits = self.model.head(features)
        probabilities = self.predictor.probabilities(logits)
        return (probabilities,) if self.unfamiliar is None else (probabilities, self.unfamiliar(features, logits))
