"""Steps of a run, its model now and then -> how it is doing, in numbers and in plain words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from vitreous.model.parts.attention import Attention
from vitreous.model.taps import taps
from vitreous.tensors import Images
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.records import Recorder
from vitreous.training.machine.device import autocast
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepResult

WATCHED_IMAGES = 32
"""Validation images whose attention is looked at."""

HIGH_FIRST_LOSS = 1.5
"""Times ln(classes), the loss of a model that knows nothing."""
EVEN, FIXED, DEAD = 0.995, 0.02, 0.01
"""Entropy above this share of its most: a head looks at all alike; below: at one token. Share of what an average head
adds to the tokens below which a head adds nothing."""
MANY_HEADS = 0.5
MANY_CLIPPED = 0.9
"""Share of the steps after half of a run; before, and below it, clipping is what it is there for."""
LARGE_MOVE = 0.05
"""Length of a step against that of the weights."""
LARGE_GAP = 0.2
SETTLED = 0.25
"""Progress before which heads may still look at all alike and steps may still be clipped."""


@dataclass(frozen=True)
class Heads:
    """What the heads of a model do on some images.

    Attributes:
        entropy: Mean over heads, queries and images for each block, as a share of its most, ln(tokens): 1 looks at all
            alike, 0 at one token.
        num_heads: In all blocks together.
        num_even: Of these, such that look at all tokens alike.
        num_fixed: Such that look at one token each time.
        num_dead: Such that add next to nothing to the tokens.
    """

    entropy: tuple[float, ...]
    num_heads: int
    num_even: int
    num_fixed: int
    num_dead: int

    def as_dict(self) -> dict[str, Any]:
        """For the records."""
        rounded = [round(value, 4) for value in self.entropy]
        counts = {name: getattr(self, name) for name in ("num_heads", "num_even", "num_fixed", "num_dead")}
        return {"attention_entropy": rounded, **counts}


@torch.inference_mode()
def examine_heads(model: nn.Module, images: Images, precision: str = "fp32") -> Heads:
    """Run a model on images and look at every head; leaves the model in evaluation, and all random states alone."""
    model.eval()
    found = {name: module for name, module in model.named_modules() if isinstance(module, Attention)}
    wanted = [f"{name}.{part}" for name in found for part in ("maps", "values")]
    with autocast(images.device, precision), taps(model, *wanted) as seen:
        model(images)
    entropies, strengths = [], []
    for name, module in found.items():
        maps, values = seen[f"{name}.maps"].float(), seen[f"{name}.values"].float()
        most = math.log(max(maps.shape[-1], 2))
        entropies.append(torch.special.entr(maps).sum(dim=-1).mean(dim=(0, 2)) / most)
        strengths.append(_strengths(maps @ values, module.proj.weight))
    entropy, strength = torch.stack(entropies), torch.stack(strengths)
    return Heads(
        entropy=tuple(entropy.mean(dim=1).tolist()),
        num_heads=entropy.numel(),
        num_even=int((entropy > EVEN).sum()),
        num_fixed=int((entropy < FIXED).sum()),
        num_dead=int((strength < DEAD).sum()),
    )


def _strengths(gathered: Tensor, proj: Tensor) -> Tensor:
    """What each head adds to the tokens, against the mean head of its block, `[heads]`."""
    per_head = rearrange(proj.float(), "width (h d) -> h d width", h=gathered.shape[1])
    norms = torch.einsum("b h n d, h d w -> b h n w", gathered, per_head).norm(dim=-1).mean(dim=(0, 2))
    return norms / norms.mean().clamp(min=torch.finfo(norms.dtype).tiny)


@dataclass
class HealthCheck:
    """Says in words what is wrong with a run, each thing once.

    Attributes:
        num_classes: Logits.
        clip_norm: `optim.clip_norm`.
        compares_losses: Whether the loss in training is a plain cross-entropy, whose first value is known beforehand.
    """

    num_classes: int
    clip_norm: float
    compares_losses: bool = True
    _said: set[str] = field(default_factory=set, init=False)

    def of_first_step(self, loss: float) -> list[str]:
        """A model that knows nothing has a loss of ln(classes); one far above it begins with firm wrong beliefs."""
        expected = math.log(self.num_classes)
        return self._once(
            self.compares_losses and loss > HIGH_FIRST_LOSS * expected,
            "first-loss",
            f"the first loss is {loss:.2f}, where guessing gives ln({self.num_classes}) = {expected:.2f}: the model "
            "begins sure and wrong; look at the normalisation of the images and at a pretrained head",
        )

    def of_clipping(self, progress: float, share: float) -> list[str]:
        """What the share of steps that were scaled down says."""
        return self._once(
            progress >= 0.5 and share > MANY_CLIPPED,
            "clipped",
            f"{100 * share:.0f} % of the steps were scaled down to optim.clip_norm={self.clip_norm:g}: the "
            "gradient is mostly larger; a lower optim.lr or a higher bound would say so openly",
        )

    def of_move(self, progress: float, update_ratio: float) -> list[str]:
        """What the length of one step, as a share of the weights', says."""
        return self._once(
            progress >= SETTLED and update_ratio > LARGE_MOVE,
            "large-steps",
            f"a step moves the weights by {100 * update_ratio:.1f} % of their length, where 0.1 % is usual: lower "
            "optim.lr",
        )

    def of_heads(self, progress: float, heads: Heads) -> list[str]:
        """What the attention says, once the model had time to make something of it."""
        if progress < SETTLED:
            return []
        many = MANY_HEADS * heads.num_heads
        return [
            *self._once(
                heads.num_even > many,
                "even-heads",
                f"{heads.num_even} of {heads.num_heads} heads look at all tokens alike: attention has learned little "
                "so far; more epochs, or a higher optim.lr",
            ),
            *self._once(
                heads.num_fixed > many,
                "fixed-heads",
                f"{heads.num_fixed} of {heads.num_heads} heads look at one token each time: attention has collapsed; "
                "lower optim.lr, or set model.qk_norm true",
            ),
            *self._once(
                heads.num_dead > 0,
                "dead-heads",
                f"{heads.num_dead} of {heads.num_heads} heads add next to nothing: fewer model.num_heads would do",
            ),
        ]

    def of_gap(self, train_accuracy: float, val_accuracy: float) -> list[str]:
        """What the difference of both accuracies says."""
        return self._once(
            train_accuracy - val_accuracy > LARGE_GAP,
            "gap",
            f"{100 * train_accuracy:.0f} % of the training images are right and {100 * val_accuracy:.0f} % of "
            "the validation images: the model learns images by heart; vary them more (data.policy "
            "3-augment, data.mixup_alpha 0.8), take a smaller model, or more images",
        )

    def _once(self, is_wrong: bool, kind: str, sentence: str) -> list[str]:
        """The sentence, where it is due and nothing of its kind was said before."""
        if not is_wrong or kind in self._said:
            return []
        self._said.add(kind)
        return [sentence]


@dataclass
class Watch:
    """Looks at a run while it trains, and records `health`; leaves weights and random states alone.

    Attributes:
        check: Finds the words.
        images: Some of the validation images, normalised; None: attention is not looked at.
        precision: Of the run.
        recorder: Where the records go.
    """

    check: HealthCheck
    images: Images | None
    precision: str
    recorder: Recorder
    _steps: int = field(default=0, init=False)
    _clipped: int = field(default=0, init=False)
    _right: int = field(default=0, init=False)
    _seen: int = field(default=0, init=False)
    _before: list[Tensor] = field(default_factory=list, init=False)

    def after_step(self, state: TrainState, result: StepResult) -> None:
        """Count an applied step; speak where the first loss is odd, or the step after an evaluation too long."""
        self._steps += 1
        self._clipped += 0 < self.check.clip_norm < result.grad_norm
        self._right += result.correct
        self._seen += result.num_images
        if state.step == 1:
            self._record(state, {"first_loss": result.loss}, self.check.of_first_step(result.loss))
        if self._before:
            now = [parameter.detach() for parameter in state.model.parameters()]
            moved = _length(torch._foreach_sub(now, self._before))
            fields = {"update_ratio": moved / max(_length(self._before), 1e-12)}
            self._before = []
            self._record(state, fields, self.check.of_move(state.progress, fields["update_ratio"]))

    def after_evaluation(self, state: TrainState, scores: Mapping[str, Score]) -> None:
        """Look at everything, and begin to count anew.

        Args:
            state: As it was evaluated.
            scores: Of `trained` and `average` weights, on validation images.
        """
        clipped_share = self._clipped / max(self._steps, 1)
        self._before = [parameter.detach().clone() for parameter in state.model.parameters()]
        fields: dict[str, Any] = {"clipped_share": clipped_share, "weight_norm": _length(self._before)}
        sentences = self.check.of_clipping(state.progress, clipped_share)
        if self._seen and "trained" in scores:
            sentences += self.check.of_gap(self._right / self._seen, scores["trained"].accuracy)
        if self.images is not None:
            heads = examine_heads(state.model, self.images, self.precision)
            fields |= heads.as_dict()
            sentences += self.check.of_heads(state.progress, heads)
        self._record(state, fields, sentences)
        self._steps = self._clipped = self._right = self._seen = 0

    def _record(self, state: TrainState, fields: Mapping[str, Any], sentences: list[str]) -> None:
        self.recorder.record("health", {"step": state.step, **fields, "notes": sentences})


def _length(tensors: Sequence[Tensor]) -> float:
    """The norm of all numbers in some tensors."""
    return float(torch.stack(torch._foreach_norm(list(tensors))).norm())
