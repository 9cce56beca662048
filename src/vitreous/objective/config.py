"""Keys and values -> ObjectiveConfig: loss, class weights, distillation, and learning without labels."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from vitreous.errors import ConfigError
from vitreous.ranges import Hint, Interval, check_fields

Pretext = Literal["mae", "simmim", "lejepa"]
"""Self-supervised losses, which learn from images without labels; see `ObjectiveConfig.loss`."""
LossKind = Literal["cross_entropy", "bce", "multilabel", Pretext]
"""Softmax cross-entropy, binary cross-entropy for each class, with one label per image or several; or no labels."""


def uses_labels(loss: str) -> bool:
    """Return False for a self-supervised loss."""
    return loss not in get_args(Pretext)


ClassWeights = Literal["none", "balanced"]
"""Weight all images equally, or all classes equally however many images each has."""
Distill = Literal["soft", "hard", "token", "token_soft", "feature"]
"""Signals that a student can learn from a teacher; see `ObjectiveConfig.distill`."""
TeacherViews = Literal["consistent", "fixed"]
"""The teacher sees what the student sees in each step, or each training image once, before the first step."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss that training minimizes, and the teacher for distillation.

    Attributes:
        loss: `cross_entropy` is softmax cross-entropy. `bce` is binary cross-entropy: each class is a separate yes/no
            decision. `multilabel` is the same for images with several labels; `data.task=multilabel` sets it. The
            others use no labels (`vitreous pretrain`). `mae` encodes the visible patches of an image and reconstructs
            the hidden ones; `simmim` also encodes a token in the place of each hidden patch. `lejepa` gives augmented
            views of an image, of which there are `data.repeats`, the same embedding.
        mask_ratio: Fraction of the patches of an image that are hidden, for `objective.loss=mae` and `simmim`.
        decoder_depth: Blocks of the decoder, which is half as wide as the encoder, for `objective.loss=mae`.
        regularity_weight: Weight of the term that gives embeddings a normal distribution, for `objective.loss=lejepa`;
            the weight of their agreement is 1 minus this.
        label_smoothing: Fraction of the target that is spread evenly over all classes; with
            `objective.loss=multilabel`, over present and absent.
        bce_threshold: Proportion above which a mixed image counts as fully showing a class; otherwise it counts as not
            showing the class. `none` uses the proportions as targets. Needs `objective.loss=bce`. DeiT III uses 0,
            "ResNet strikes back" 0.2.
        class_weights: `balanced` weights images by the inverse frequency of their class in training; with
            `objective.loss=multilabel`, present and absent labels of each class get the same total weight. `none`
            weights all equally.
        logit_adjustment: Factor `tau` of logit adjustment, which adds `tau` times the logarithm of each class's
            frequency to the logits in training, so that rare classes are predicted as readily as frequent ones. 1 is
            usual, 0 turns it off. Needs `objective.loss=cross_entropy`; does not apply to the teacher's part of the
            loss.
        teacher: Trained model to distill from, in addition to the labels: a run folder, weights of any supported
            library, `hf://organization/name`, or a name in `vitreous models`. `auto` chooses one of these and downloads
            it. If it has no head for the classes of the data, one is fitted to its features of the training images.
            `none` trains on the labels only.
        teacher_views: Images that the teacher sees. `consistent` runs it in each step, on the same augmented and mixed
            images as the student. `fixed` runs it on each whole training image once, before the first step; its
            probabilities become part of the label of this image, so a step costs nothing more. A time budget sets
            `fixed`. It needs `objective.distill=soft`.
        teacher_img_size: Height and width of the images that the teacher sees, in px. `none` uses its own size.
        distill: Signal that the student learns from the teacher. `soft` learns its probabilities, `hard` its predicted
            class. `token` and `token_soft` are `hard` and `soft` for the distillation token (`model.distill_token`).
            `feature` learns how similar the patches of an image are to one another, and needs no classes.
        distill_temperature: Temperature by which the logits of student and teacher are divided if probabilities are
            distilled; with `objective.teacher_views=fixed`, only those of the teacher. Higher values give more weight
            to the classes that the teacher does not predict.
        distill_weight: Weight of the teacher's part of the loss; the weight of the labels is 1 minus this.

    Raises:
        UnknownNameError: A name is not among the choices of its key.
        ConfigError: Another value has the wrong type, is out of range, or has no effect with the other keys.
    """

    loss: LossKind = "cross_entropy"
    mask_ratio: Annotated[float, Interval("(0, 1)", "0.75 is usual for mae, 0.6 for simmim")] = 0.75
    decoder_depth: Annotated[int, Interval("[1, 1000]", "2 is usual for small models, 8 for large ones")] = 2
    regularity_weight: Annotated[float, Interval("(0, 1)", "0.02 to 0.05 is usual")] = 0.05
    label_smoothing: Annotated[float, Interval("[0, 1)", "0.1 is usual")] = 0.1
    bce_threshold: Annotated[float, Interval("[0, 1)", "0 and 0.2 are usual")] | None = None
    class_weights: ClassWeights = "none"
    logit_adjustment: Annotated[float, Interval("[0, inf)", "1 is usual, 0 turns it off")] = 0.0
    teacher: Annotated[str, Hint("give a run folder or a weights file, or leave it out")] | None = None
    teacher_views: TeacherViews = "consistent"
    teacher_img_size: Annotated[tuple[int, int], Interval("[1, 2**31)", "98 to 224 is usual")] | None = None
    distill: Distill = "soft"
    distill_temperature: Annotated[float, Interval("(0, inf)", "1 to 4 is usual")] = 2.0
    distill_weight: Annotated[float, Interval("(0, 1]", "0.5 is usual, objective.teacher=none turns it off")] = 0.5

    @property
    def uses_labels(self) -> bool:
        """False for a self-supervised loss."""
        return uses_labels(self.loss)

    @property
    def runs_teacher(self) -> bool:
        """True if each training step runs the teacher."""
        return self.teacher is not None and self.teacher_views == "consistent"

    def __post_init__(self) -> None:
        check_fields(self, "objective")
        if self.teacher_views == "fixed" and self.distill != "soft":
            raise ConfigError(
                f"objective.teacher_views=fixed: gives probabilities, but objective.distill={self.distill} learns "
                "something else; use objective.teacher_views=consistent"
            )
        if self.teacher_views == "fixed" and self.bce_threshold is not None:
            raise ConfigError(
                f"objective.bce_threshold={self.bce_threshold}: makes targets of small probabilities, which every "
                "class gets from objective.teacher_views=fixed; use objective.teacher_views=consistent"
            )
        if self.logit_adjustment and self.bce_threshold is not None:
            raise ConfigError(
                f"objective.bce_threshold={self.bce_threshold}: cannot be combined with objective.logit_adjustment="
                f"{self.logit_adjustment}; leave one of them out"
            )
        if self.logit_adjustment and self.loss != "cross_entropy":
            way_out = ", or use objective.class_weights=balanced"
            way_out = way_out if self.loss == "multilabel" else ", or use objective.loss=cross_entropy"
            raise ConfigError(
                f"objective.logit_adjustment={self.logit_adjustment}: has no effect with objective.loss={self.loss}; "
                f"set it to 0{way_out}"
            )
        if self.loss == "multilabel" and self.teacher is not None and self.distill != "feature":
            raise ConfigError(
                f"objective.distill={self.distill}: learns one class per image from the teacher, but the images have "
                "several labels; use objective.distill=feature"
            )
        if self.bce_threshold is not None and self.loss != "bce":
            raise ConfigError(
                f"objective.bce_threshold={self.bce_threshold}: has no effect with objective.loss={self.loss}; use "
                "objective.loss=bce, or leave it out"
            )
        if self.teacher is None and self.distill != "soft":
            raise ConfigError(
                f"objective.distill={self.distill}: needs a teacher; set objective.teacher to a trained model"
            )
