from collections.abc import Callable
from typing import Any, get_args

import pytest

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model.config.presets import SIZES
from vitreous.model.cost.count import count_flops
from vitreous.optim.config import OptimizerName
from vitreous.recipe import keys
from vitreous.recipe.plan import ASKED, Choice, Plan
from vitreous.recipe.planner import make_plan
from vitreous.recipe.rules import BY_OPTIMIZER, LADDER, MAX_STRETCH, by_num_images
from vitreous.recipe.run_config import RunConfig
from vitreous.recipe.shipped import SHIPPED, recipe_for

Facts = Callable[..., DataFacts]
GIVEN = [Choice("data.source", "/photos", "the data"), Choice("data.test_ratio", 0.2, "held out")]
NUM_STEPS_OF = (60, 1_300, 60_000)
PRETRAINED = {
    "train.pretrained": "/w.safetensors", "data.img_size": (24, 36), "model.patch_size": 6, "model.embed_dim": 20,
    "model.depth": 3, "model.num_heads": 5,
}  # fmt: skip
"""What is asked where weights are given: their model's keys among it."""
NEEDED = {"fine-tune": PRETRAINED, "linear-probe": PRETRAINED, "distill": {"objective.teacher": "/runs/big"}}
"""What recipes cannot do without."""


def no_measure(config: RunConfig) -> float:
    raise AssertionError("nothing is measured without a budget")


def plan_for(
    facts: DataFacts,
    asked: dict[str, Any] | None = None,
    *,
    recipe: str | None = None,
    measure: Callable[[RunConfig], float] = no_measure,
    memory: Callable[[RunConfig], float] = lambda config: 0.0,
) -> Plan:
    return make_plan(facts, GIVEN, recipe=recipe, asked=asked or {}, measure=measure, memory=memory)


def reason_of(plan: Plan, key: str) -> str:
    return next(choice.reason for choice in plan.choices if choice.key == key)


@pytest.mark.parametrize("num_train", NUM_STEPS_OF)
@pytest.mark.parametrize("size_px", [(8, 10), (24, 36), (480, 640)])
def test_no_data_set_gets_a_run_without_steps(make_facts: Facts, num_train: int, size_px: tuple[int, int]) -> None:
    plan = plan_for(make_facts(num_train, height_px=size_px[0], width_px=size_px[1]))
    steps_per_epoch = -(-num_train // plan.config.data.batch_size)
    assert plan.config.train.epochs * steps_per_epoch >= 100
    assert plan.config.data.batch_size <= num_train


@pytest.mark.parametrize("num_train", NUM_STEPS_OF)
def test_head_channels_and_flip_are_those_of_the_data(make_facts: Facts, num_train: int) -> None:
    facts = make_facts(num_train, classes=tuple("abcde"), in_chans=1, mirror=False, mirror_reason="letters")
    plan = plan_for(facts)
    data = plan.config.data
    assert (data.num_classes, data.in_chans, data.flip) == (5, 1, False)
    assert (plan.config.model.num_classes, plan.config.model.in_chans) == (5, 1)
    assert reason_of(plan, "data.flip") == "letters"


@pytest.mark.parametrize("recipe", sorted(SHIPPED))
def test_every_choice_of_a_shipped_recipe_has_a_reason_and_a_known_key(make_facts: Facts, recipe: str) -> None:
    plan = plan_for(make_facts(), NEEDED.get(recipe, {}), recipe=recipe)
    assert plan.config.recipe == recipe
    assert all(choice.key in keys.known_keys() and choice.reason for choice in plan.choices)
    assert len({choice.key for choice in plan.choices}) == len(plan.choices)


def test_distilling_without_a_teacher_is_told(make_facts: Facts) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_for(make_facts(), recipe="distill")
    assert str(caught.value) == (
        "recipe=distill: learns from a trained model, and objective.teacher names none; give --objective.teacher RUN"
    )


def test_weights_to_begin_from_choose_the_recipe(make_facts: Facts) -> None:
    assert plan_for(make_facts(), PRETRAINED).config.recipe == "fine-tune"
    probe = plan_for(make_facts(), PRETRAINED | {"train.freeze": "backbone"}).config
    assert (probe.recipe, probe.data.flip, probe.objective.label_smoothing) == ("linear-probe", False, 0.0)


def test_choices_stand_in_the_order_of_the_rooms(make_facts: Facts) -> None:
    places = [list(keys.known_keys()).index(choice.key) for choice in plan_for(make_facts()).choices]
    assert places == sorted(places)


def test_choices_are_what_the_configuration_holds(make_facts: Facts) -> None:
    plan = plan_for(make_facts(), {"optim.beta1": 0.85})
    config = keys.take_apart(plan.config)
    assert {choice.key: choice.value for choice in plan.choices} == {c.key: config[c.key] for c in plan.choices}


@pytest.mark.parametrize("num_train", NUM_STEPS_OF)
@pytest.mark.parametrize("budget_s", [None, 300.0])
def test_all_that_was_asked_is_respected(
    make_facts: Facts, values: dict[str, Any], num_train: int, budget_s: float | None
) -> None:
    asked = values | {"data.num_classes": 3, "train.budget_s": budget_s or 0.0}
    plan = plan_for(make_facts(num_train), asked, measure=lambda config: 100.0)
    found = keys.take_apart(plan.config)
    assert {key: found[key] for key in asked} == asked | {"data.source": "/photos"}
    assert all(reason_of(plan, key) == ASKED for key in asked if key != "data.source")


def test_one_wish_changes_what_depends_on_it(make_facts: Facts) -> None:
    usual, wide = plan_for(make_facts()).config, plan_for(make_facts(), {"model.embed_dim": 1024}).config
    assert wide.optim.lr < usual.optim.lr
    larger = plan_for(make_facts(), {"data.batch_size": 16 * usual.data.batch_size}).config
    assert larger.optim.lr > usual.optim.lr
    twice = plan_for(make_facts(), {"data.img_size": (48, 72)}).config
    assert twice.model.patch_size > usual.model.patch_size


def test_wish_for_the_source_is_the_place_where_the_data_was_found(make_facts: Facts) -> None:
    assert plan_for(make_facts(), {"data.source": "photos"}).config.data.source == "/photos"


def test_unknown_recipe_suggests_the_nearest(make_facts: Facts) -> None:
    with pytest.raises(UnknownNameError) as caught:
        plan_for(make_facts(), recipe="small-image")
    assert str(caught.value) == ("recipe=small-image: no such recipe; did you mean small-images?, or give a YAML file")


def test_wish_that_breaks_a_rule_is_told(make_facts: Facts) -> None:
    with pytest.raises(ConfigError, match=r"^model\.patch_size=7: does not divide data\.img_size=24x36"):
        plan_for(make_facts(), {"model.patch_size": 7})
    with pytest.raises(ConfigError, match=r"^data\.num_classes=4: made-up has 3 classes; "):
        plan_for(make_facts(), {"data.num_classes": 4})


@pytest.mark.parametrize(("size_px", "img_size"), [((61, 53), (63, 56)), ((28, 28), (28, 28)), ((31, 37), (32, 36))])
def test_small_images_of_any_size_are_cut_into_about_64_tokens(
    make_facts: Facts, size_px: tuple[int, int], img_size: tuple[int, int]
) -> None:
    config = plan_for(make_facts(height_px=size_px[0], width_px=size_px[1])).config
    assert config.data.img_size == img_size
    assert 40 <= config.model.num_patches <= 90


def test_recipe_follows_the_size_of_the_images(make_facts: Facts) -> None:
    sizes = {(8, 10): "digits", (28, 30): "small-images", (64, 99): "small-images", (200, 300): "small-photos"}
    assert {size: recipe_for(make_facts(height_px=size[0], width_px=size[1])) for size in sizes} == sizes


def test_plan_names_the_consequences(make_facts: Facts) -> None:
    plan = plan_for(make_facts(60), {"data.batch_size": 61})
    assert "data.batch_size=61 is more than the 60 images: one step an epoch" in plan.notes


# The budget ladder on machines that do so many floating-point operations a second, whatever the model.


def machine(flops_per_s: float, log: list[RunConfig] | None = None) -> Callable[[RunConfig], float]:
    def measure(config: RunConfig) -> float:
        if log is not None:
            log.append(config)
        return flops_per_s / count_flops(config.model)

    return measure


def budget_plan(facts: DataFacts, asked: dict[str, Any], measure: Callable[[RunConfig], float]) -> Plan:
    return plan_for(facts, {"train.budget_s": 600.0, **asked}, measure=measure)


def test_machine_that_is_fast_enough_takes_the_usual_model_at_once(make_facts: Facts) -> None:
    log: list[RunConfig] = []
    usual = plan_for(make_facts(300_000)).config
    plan = budget_plan(make_facts(300_000), {}, machine(1e30, log))
    assert (plan.config.model.embed_dim, plan.config.model.depth) == (usual.model.embed_dim, usual.model.depth)
    assert plan.config.model.patch_size == usual.model.patch_size
    assert plan.config.optim.lr == usual.optim.lr
    assert len(log) == 1


def test_hopeless_budget_takes_the_cheapest_rung(make_facts: Facts) -> None:
    facts = make_facts(300_000, height_px=32, width_px=32)
    model = budget_plan(facts, {}, machine(1e-3)).config.model
    assert (model.embed_dim, model.num_patches) == (SIZES[LADDER[0].size].embed_dim, LADDER[0].num_tokens)


def test_slower_machines_take_cheaper_models_that_still_see_each_image_often_enough(make_facts: Facts) -> None:
    facts = make_facts(60_000, height_px=32, width_px=32)
    needed = facts.num_train * by_num_images(facts.num_train).least_epochs / 600.0
    flops = []
    for speed in (1e13, 1e11, 6e10, 3e10, 1e10, 6e9, 3e9, 1e9):
        model = budget_plan(facts, {}, machine(speed)).config.model
        flops.append(count_flops(model))
        assert speed / flops[-1] > needed or model.embed_dim == SIZES[LADDER[0].size].embed_dim
    assert flops == sorted(flops, reverse=True)
    assert len(set(flops)) > 2


def test_smaller_model_gets_its_own_rate_and_reason(make_facts: Facts) -> None:
    facts = make_facts(300_000)
    plan = budget_plan(facts, {}, machine(1e-3))
    assert plan.config.optim.lr > plan_for(facts).config.optim.lr
    assert "images/s on this machine: about " in reason_of(plan, "model.depth")


def test_budget_never_takes_a_larger_model_than_suits_the_data(make_facts: Facts) -> None:
    for num_train in (*NUM_STEPS_OF, 300_000):
        log: list[RunConfig] = []
        usual = plan_for(make_facts(num_train)).config.model
        budget_plan(make_facts(num_train), {}, machine(1e-3, log))
        assert max(count_flops(config.model) for config in log) == count_flops(usual)


def test_no_model_is_measured_twice(make_facts: Facts) -> None:
    log: list[RunConfig] = []
    budget_plan(make_facts(1_300, height_px=8, width_px=10), {}, machine(1e-3, log))
    assert len({config.model for config in log}) == len(log)


def test_budget_may_stretch_a_run_but_not_without_end(make_facts: Facts) -> None:
    usual = plan_for(make_facts()).config.train.epochs
    plan = budget_plan(make_facts(), {}, machine(1e30))
    assert plan.config.train.epochs == MAX_STRETCH * usual
    assert f"about {MAX_STRETCH * usual:.3g} epochs in time" in reason_of(plan, "model.embed_dim")


def test_epochs_and_patches_that_were_asked_beside_a_budget_stay(make_facts: Facts) -> None:
    facts = make_facts(height_px=32, width_px=32)
    plan = budget_plan(facts, {"train.epochs": 7.0, "model.patch_size": 2}, machine(1e-3))
    assert plan.config.train.epochs == 7.0
    assert plan.config.model.patch_size == 2
    plan = budget_plan(facts, {"train.epochs": 7.0}, machine(1e30))
    assert "about 7 epochs in time" in reason_of(plan, "model.embed_dim")


@pytest.mark.parametrize("asked", [{"model.embed_dim": 40, "model.num_heads": 5}, {"model.depth": 9}])
def test_model_that_was_asked_beside_a_budget_stays_however_slow(make_facts: Facts, asked: dict[str, Any]) -> None:
    plan = plan_for(make_facts(), {"train.budget_s": 600.0, **asked}, measure=lambda config: 0.1)
    assert {key: keys.take_apart(plan.config)[key] for key in asked} == asked


def test_short_run_varies_images_less(make_facts: Facts) -> None:
    facts = make_facts(2_000, height_px=200, width_px=300)
    long, middle, short = (plan_for(facts, {"train.epochs": epochs}).config for epochs in (60.0, 25.0, 3.0))
    assert 0 < middle.data.max_rotate_deg == long.data.max_rotate_deg / 2
    assert 1 - middle.data.min_crop_area == pytest.approx((1 - long.data.min_crop_area) / 2)
    assert middle.objective.label_smoothing == long.objective.label_smoothing / 2
    assert (short.data.max_rotate_deg, short.data.min_crop_area, short.data.flip) == (0.0, 1.0, False)
    assert (short.model.drop_path_rate, short.objective.label_smoothing) == (0.0, 0.0)


def test_what_a_recipe_varies_and_mixes_happens_less_often_in_a_short_run(
    make_facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strong(facts: DataFacts, asked: dict[str, Any]) -> list[Choice]:
        added = {"data.policy": "randaugment", "data.color_jitter": 0.4, "data.mixup_alpha": 0.8, "data.mix_rate": 0.9}
        return [*SHIPPED["small-images"](facts, asked), *(Choice(key, value, "") for key, value in added.items())]

    monkeypatch.setattr("vitreous.recipe.planner.recipe_named", lambda name: strong)
    for epochs, share in ((60.0, 1.0), (25.0, 0.5), (3.0, 0.0)):
        data = plan_for(make_facts(), {"train.epochs": epochs}).config.data
        assert (data.policy_rate, data.color_jitter, data.mix_rate) == (share, 0.4 * share, 0.9 * share)
    asked = {"train.epochs": 3.0, "data.policy": "3-augment", "data.color_jitter": 0.2, "data.mix_rate": 0.7}
    data = plan_for(make_facts(), asked).config.data
    assert (data.policy_rate, data.color_jitter, data.mix_rate) == (1.0, 0.2, 0.7)


def test_mixing_that_was_asked_stays_in_a_short_run(make_facts: Facts) -> None:
    data = plan_for(make_facts(), {"train.epochs": 3.0, "data.cutmix_alpha": 1.0}).config.data
    assert (data.cutmix_alpha, data.mix_rate) == (1.0, 1.0)


def test_variation_that_was_asked_stays_in_a_short_run(make_facts: Facts) -> None:
    asked = {"train.epochs": 3.0, "data.max_rotate_deg": 33.0, "data.flip": True, "data.min_crop_area": 0.6}
    data = plan_for(make_facts(2_000, height_px=200, width_px=300), asked).config.data
    assert (data.max_rotate_deg, data.flip, data.min_crop_area) == (33.0, True, 0.6)


def test_rate_that_was_asked_stays_on_every_rung(make_facts: Facts) -> None:
    plan = budget_plan(make_facts(300_000), {"optim.lr": 0.0123}, machine(1e-3))
    assert plan.config.optim.lr == 0.0123


# Optimisers.


@pytest.mark.parametrize("budget_s", [None, 300.0])
@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_name_of_an_optimiser_is_enough(make_facts: Facts, name: OptimizerName, budget_s: float | None) -> None:
    budget = {"train.budget_s": budget_s or 0.0}
    usual = plan_for(make_facts(), budget, measure=lambda config: 100.0).config.optim
    plan = plan_for(make_facts(), budget | {"optim.name": name}, measure=lambda config: 100.0)
    rule = BY_OPTIMIZER[name]
    assert plan.config.optim.name == name
    assert plan.config.optim.lr == pytest.approx(usual.lr * rule.lr_ratio, rel=0.05)
    assert plan.config.optim.weight_decay == pytest.approx(usual.weight_decay * rule.decay_ratio)
    if rule.lr_ratio != 1:
        assert reason_of(plan, "optim.lr") == rule.reason


def test_lion_and_schedule_free_bring_their_own_keys(make_facts: Facts) -> None:
    assert plan_for(make_facts(), {"optim.name": "lion"}).config.optim.beta2 == 0.99
    assert plan_for(make_facts(), {"optim.name": "schedule_free"}).config.optim.schedule == "constant"
    assert plan_for(make_facts()).config.optim.schedule == "cosine"


def test_what_was_asked_of_an_optimiser_stays(make_facts: Facts) -> None:
    asked = {"optim.name": "lion", "optim.lr": 0.0123, "optim.weight_decay": 0.4, "optim.beta2": 0.97}
    plan = plan_for(make_facts(), asked)
    assert {key: keys.take_apart(plan.config)[key] for key in asked} == asked
    assert {reason_of(plan, key) for key in asked} == {ASKED}


def test_recipe_of_another_optimiser_keeps_its_rate_and_gives_it_up_for_adamw(
    make_facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_lion(facts: DataFacts, asked: dict[str, Any]) -> list[Choice]:
        own = {"optim.name": "lion", "optim.lr": 3e-4, "optim.weight_decay": 0.5}
        return [*SHIPPED["small-images"](facts, asked), *(Choice(key, value, "") for key, value in own.items())]

    monkeypatch.setattr("vitreous.recipe.planner.recipe_named", lambda name: of_lion)
    assert plan_for(make_facts()).config.optim.lr == 3e-4
    assert plan_for(make_facts(), {"optim.name": "lion"}).config.optim.lr == 3e-4
    found = plan_for(make_facts(), {"optim.name": "adamw"}).config.optim
    assert (found.lr, found.weight_decay) == (1.5e-3, 0.1)


def twice_the_memory(config: RunConfig) -> float:
    return 2.0 / config.train.micro_batches


def test_batch_that_the_memory_does_not_hold_is_cut_into_parts(make_facts: Facts) -> None:
    plan = plan_for(make_facts(1_300), memory=twice_the_memory)
    assert plan.config.train.micro_batches == 4
    assert reason_of(plan, "train.micro_batches") == (
        f"all {plan.config.data.batch_size} images at once take about 200% of the memory"
    )
    assert not any("memory" in note for note in plan.notes)


def test_speed_is_measured_on_parts_that_the_memory_holds(make_facts: Facts) -> None:
    measured: list[int] = []

    def measure(config: RunConfig) -> float:
        measured.append(config.train.micro_batches)
        return 1e6

    plan_for(make_facts(1_300), {"train.budget_s": 600.0}, measure=measure, memory=twice_the_memory)
    assert set(measured) == {4}


def test_parts_that_are_asked_for_stay_and_a_step_too_large_is_told(make_facts: Facts) -> None:
    plan = plan_for(make_facts(1_300), {"train.micro_batches": 2}, memory=twice_the_memory)
    assert plan.config.train.micro_batches == 2
    assert plan.notes[-1].startswith("a training step takes about 100% of the memory, and the system may end the run: ")


def test_batch_is_never_cut_into_more_parts_than_images(make_facts: Facts) -> None:
    plan = plan_for(make_facts(1_300), {"data.batch_size": 6}, memory=lambda config: 9.0)
    assert plan.config.train.micro_batches == 6
    assert plan.notes[-1].startswith("a training step takes about 900% of the memory")
