"""Steps and evaluations of a run -> health records: numbers about gradients and attention, and notes on problems."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
"""Number of validation images on which attention is measured."""

HIGH_FIRST_LOSS = 1.5
"""Multiple of ln(classes), the loss of random guessing, above which the first loss is reported."""
EVEN, FIXED = 0.995, 0.02
"""Normalized entropy of a head above which it attends to all tokens equally; below which it attends to one token."""
DEAD = 0.01
"""Contribution of a head, relative to the mean head of its block, below which it contributes nothing."""
MANY_HEADS = 0.5
"""Share of even or fixed heads above which they are reported."""
MANY_CLIPPED = 0.9
"""Share of clipped steps above which clipping is reported, in the second half of a run."""
LARGE_MOVE = 0.05
"""Length of one step, relative to the norm of the weights, above which it is reported."""
LARGE_GAP = 0.2
"""Training accuracy minus validation accuracy above which overfitting is reported."""
SETTLED = 0.25
"""Progress before which heads and step lengths are not judged yet."""


@dataclass(frozen=True)
class Heads:
    """Attention of a model on some images.

    Attributes:
        entropy: For each block, the entropy of attention relative to its maximum ln(tokens), mean over heads, queries
            and images: 1 attends to all tokens equally, 0 to one token.
        num_heads: Number of heads in all blocks together.
        num_even: Number of heads that attend to all tokens equally.
        num_fixed: Number of heads that attend to a single token.
        num_dead: Number of heads that add next to nothing to the tokens.
    """

    entropy: tuple[float, ...]
    num_heads: int
    num_even: int
    num_fixed: int
    num_dead: int

    def as_dict(self) -> dict[str, Any]:
        """Return the values for the records."""
        counts = asdict(self)
        return {"attention_entropy": [round(value, 4) for value in counts.pop("entropy")], **counts}


@torch.inference_mode()
def measure_heads(model: nn.Module, images: Images, precision: str = "fp32") -> Heads:
    """Run a model on images and measure every head of its `Attention` modules; an extension may have replaced them.

    The model is left in evaluation mode. No random state is changed.
    """
    model.eval()
    attentions = {name: module for name, module in model.named_modules() if isinstance(module, Attention)}
    names = [f"{name}.{part}" for name in attentions for part in ("maps", "values")]
    with autocast(images.device, precision), taps(model, *names) as seen:
        model(images)
    entropies, contributions = [], []
    for name, module in attentions.items():
        maps, values = seen[f"{name}.maps"].float(), seen[f"{name}.values"].float()
        largest = math.log(max(maps.shape[-1], 2))
        entropies.append(torch.special.entr(maps).sum(dim=-1).mean(dim=(0, 2)) / largest)
        contributions.append(_contributions(maps @ values, module.proj.weight))
    return Heads(
        entropy=tuple(float(heads.mean()) for heads in entropies),
        num_heads=sum(map(len, entropies)),
        num_even=sum(int((heads > EVEN).sum()) for heads in entropies),
        num_fixed=sum(int((heads < FIXED).sum()) for heads in entropies),
        num_dead=sum(int((heads < DEAD).sum()) for heads in contributions),
    )


def _contributions(attended: Tensor, proj: Tensor) -> Tensor:
    """Return the norm of what each head adds to the tokens, relative to the mean head of the block: `[heads]`.

    `attended` is attention maps times values, `[batch, heads, tokens, head_dim]`, and `proj` the weight of the output
    projection, `[embed_dim, heads * head_dim]`.
    """
    per_head = rearrange(proj.float(), "width (h d) -> h d width", h=attended.shape[1])
    norms = torch.einsum("b h n d, h d w -> b h n w", attended, per_head).norm(dim=-1).mean(dim=(0, 2))
    return norms / norms.mean().clamp(min=torch.finfo(norms.dtype).tiny)


@dataclass
class HealthCheck:
    """Checks that write a note about each problem of a run, once per kind of problem.

    Every method returns a list with one note if there is a new problem, else an empty list. `compares_losses` is True
    if the training loss is plain cross-entropy and the head comes from a pretrained model, so that a first loss above
    that of random guessing means that the head does not fit. `fixed_steps` is True if the optimizer's steps have the
    same length for every gradient, so that clipping does not limit them.
    """

    num_classes: int
    clip_norm: float
    compares_losses: bool = True
    fixed_steps: bool = False
    _reported: set[str] = field(default_factory=set, init=False)

    def first_loss(self, loss: float) -> list[str]:
        """Check the first loss: a pretrained head should not be worse than guessing, which gives ln(classes)."""
        expected = math.log(self.num_classes)
        return self._once(
            self.compares_losses and loss > HIGH_FIRST_LOSS * expected,
            "first-loss",
            f"the first loss is {loss:.2f}, but random guessing gives ln({self.num_classes}) = {expected:.2f}: the "
            "pretrained head is confident and wrong on these images; check its classes, data.mean and data.std",
        )

    def clipping(self, progress: float, share: float) -> list[str]:
        """Check the share of steps whose gradient was clipped, in [0, 1]."""
        return self._once(
            progress >= 0.5 and share > MANY_CLIPPED and not self.fixed_steps,
            "clipped",
            f"the gradient was clipped in {100 * share:.0f}% of the steps: optim.clip_norm={self.clip_norm:g} limits "
            "ordinary steps, not only rare large ones; lower optim.lr or raise optim.clip_norm",
        )

    def step_length(self, progress: float, update_ratio: float) -> list[str]:
        """Check the length of one step, relative to the norm of the weights."""
        return self._once(
            progress >= SETTLED and update_ratio > LARGE_MOVE,
            "large-steps",
            f"one step changed the weights by {100 * update_ratio:.1f}% of their norm, but 0.1% is typical: training "
            "may be unstable; lower optim.lr",
        )

    def heads(self, progress: float, heads: Heads) -> list[str]:
        """Check the attention heads, once the model had time to train them."""
        if progress < SETTLED:
            return []
        many = MANY_HEADS * heads.num_heads
        return [
            *self._once(
                heads.num_even > many,
                "even-heads",
                f"{heads.num_even} of {heads.num_heads} attention heads attend to all tokens equally: attention has "
                "learned little so far; raise train.epochs or optim.lr",
            ),
            *self._once(
                heads.num_fixed > many,
                "fixed-heads",
                f"{heads.num_fixed} of {heads.num_heads} attention heads attend to a single token: attention has "
                "collapsed; lower optim.lr, or set model.qk_norm=true",
            ),
            *self._once(
                heads.num_dead > 0,
                "dead-heads",
                f"{heads.num_dead} of {heads.num_heads} attention heads contribute almost nothing: the model has more "
                "heads than it uses; lower model.num_heads",
            ),
        ]

    def overfitting(self, train_accuracy: float, val_accuracy: float) -> list[str]:
        """Check for overfitting: a training accuracy far above the validation accuracy, both in [0, 1]."""
        return self._once(
            train_accuracy - val_accuracy > LARGE_GAP,
            "gap",
            f"the model is overfitting: training accuracy is {100 * train_accuracy:.0f}%, validation accuracy is "
            f"{100 * val_accuracy:.0f}%; use stronger augmentation (data.policy=3-augment, data.mixup_alpha=0.8), a "
            "smaller model or more images",
        )

    def _once(self, is_problem: bool, kind: str, note: str) -> list[str]:
        """Return the note if there is a problem of a kind that was not reported before."""
        if not is_problem or kind in self._reported:
            return []
        self._reported.add(kind)
        return [note]


@dataclass
class Watch:
    """An observer that records `health` while a run trains, without changing weights or random states.

    Attention is measured on some normalized validation images; without images, it is not measured.
    """

    check: HealthCheck
    images: Images | None
    precision: str
    recorder: Recorder
    _steps: int = field(default=0, init=False)
    _clipped: int = field(default=0, init=False)
    _correct: int = field(default=0, init=False)
    _seen: int = field(default=0, init=False)
    _before: list[Tensor] = field(default_factory=list, init=False)

    def after_step(self, state: TrainState, result: StepResult) -> None:
        """Count an applied step. Record the first loss, and the length of the first step after each evaluation."""
        self._steps += 1
        self._clipped += 0 < self.check.clip_norm < result.grad_norm
        self._correct += result.correct
        self._seen += result.num_images
        if state.step == 1:
            self._record(state, {"first_loss": result.loss}, self.check.first_loss(result.loss))
        if self._before:
            now = [parameter.detach() for parameter in state.model.parameters()]
            moved = _norm(torch._foreach_sub(now, self._before))
            fields = {"update_ratio": moved / max(_norm(self._before), 1e-12)}
            self._before = []
            self._record(state, fields, self.check.step_length(state.progress, fields["update_ratio"]))

    def after_evaluation(self, state: TrainState, scores: Mapping[str, Score]) -> None:
        """Record clipping, overfitting and attention since the last evaluation, and reset the counts.

        `scores` are those of the `trained` weights and of their `average`.
        """
        clipped_share = self._clipped / max(self._steps, 1)
        self._before = [parameter.detach().clone() for parameter in state.model.parameters()]
        fields: dict[str, Any] = {"clipped_share": clipped_share, "weight_norm": _norm(self._before)}
        notes = self.check.clipping(state.progress, clipped_share)
        if self._seen and "trained" in scores:
            notes += self.check.overfitting(self._correct / self._seen, scores["trained"].accuracy)
        if self.images is not None:
            heads = measure_heads(state.model, self.images, self.precision)
            fields |= heads.as_dict()
            notes += self.check.heads(state.progress, heads)
        self._record(state, fields, notes)
        self._steps = self._clipped = self._correct = self._seen = 0

    def _record(self, state: TrainState, fields: Mapping[str, Any], notes: list[str]) -> None:
        self.recorder.record("health", {"step": state.step, **fields, "notes": notes})


def _norm(tensors: Sequence[Tensor]) -> float:
    """Return the norm of all numbers in some tensors."""
    return float(torch.stack(torch._foreach_norm(list(tensors))).norm())
