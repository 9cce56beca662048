"""Plan for pretrained weights -> what it means for the user, and what more time would change, in a few sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from vitreous.data.survey.facts import DataFacts
from vitreous.model.cost.count import count_flops
from vitreous.recipe.pace import EVALUATION_SPEEDUP, STEP_OVERHEAD, time_limit
from vitreous.recipe.plan import Plan
from vitreous.wording import duration, plural


def advice(plan: Plan, whole: Plan, sizes: Sequence[tuple[int, int]], facts: DataFacts, epochs: float) -> Iterator[str]:
    """Yield the sentences.

    `plan` was made for a budget. `whole` is the same run with the smallest images, all of whose blocks are trained; its
    steps were measured. `sizes` are the image sizes that the weights allow, the largest first. Below `epochs`, fewer
    blocks are trained, or smaller images are used.
    """
    config, depth = plan.config, plan.config.model.depth
    num_frozen = config.train.freeze_blocks
    what = f"the last {depth - num_frozen} of {depth} blocks are trained"
    if config.train.freeze == "backbone":
        what = "only that head is trained"
    elif not num_frozen:
        what = f"all {depth} blocks are trained, the first ones least"
    fits = f"a head is fitted to their features first; then {what}"
    if not config.train.epochs:
        fits = "only a head is fitted to their features"
    yield (
        f"{plural(facts.num_train, 'image')} teach a Vision Transformer less than the millions that its weights have "
        f"seen, so {fits}"
    )
    if whole.pace is None:
        return
    now, more_s = config.train.budget_s, None
    if num_frozen or not config.train.epochs:
        more_s, gain = _seconds_for(epochs, whole, facts, whole.config.data.img_size), "all blocks would be trained"
    else:
        larger = [size for size in sizes if size > config.data.img_size]
        if larger:
            more_s = _seconds_for(epochs, whole, facts, larger[-1])
            gain = f"images would have {larger[-1][0]} px instead of {config.data.img_size[0]}, which shows more detail"
    if more_s is not None and more_s > now:
        yield f"with about {duration(more_s)} instead of {duration(now)}, {gain}"
    if config.train.epochs:
        yield (
            "if the accuracy at the end is hardly better than that of the first model, more photos usually help more "
            "than more time"
        )


def _seconds_for(epochs: float, whole: Plan, facts: DataFacts, size: tuple[int, int]) -> float:
    """Return the budget that trains all blocks for some epochs, judged by the measured steps and the operations."""
    config = whole.config
    if whole.pace is None:
        return 0.0
    ratio = count_flops(replace(config.model, img_size=size)) / count_flops(config.model)
    step_s = ratio * whole.pace.mean_s()
    images_per_s = config.data.batch_size / step_s
    reserve_s = time_limit(0.0, facts, EVALUATION_SPEEDUP * images_per_s).reserve_s
    return epochs * facts.num_train / images_per_s * STEP_OVERHEAD + reserve_s
