from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import pytest

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model.config.presets import SIZES
from vitreous.model.cost.count import count_flops
from vitreous.optim.config import OptimizerName
from vitreous.recipe import keys
from vitreous.recipe.pace import Pace
from vitreous.recipe.plan import ASKED, Choice, Plan
from vitreous.recipe.planner import make_plan
from vitreous.recipe.rules import BY_OPTIMIZER, LADDER, MAX_STRETCH, by_num_images
from vitreous.recipe.run_config import RunConfig
from vitreous.recipe.shipped import SHIPPED, recipe_for

Facts = Callable[..., DataFacts]
Measure = Callable[[RunConfig], Pace]
GIVEN = [Choice("data.source", "/photos", "the data"), Choice("data.test_ratio", 0.2, "held out")]
SET_SIZES = (60, 1_300, 60_000)
PRETRAINED = {
    "train.pretrained": "/w.safetensors", "data.img_size": (24, 36), "model.patch_size": 6, "model.embed_dim": 20,
    "model.depth": 3, "model.num_heads": 5,
}  # fmt: skip
"""Keys of a run with pretrained weights, which include those of their model."""
REQUIRED = {"fine-tune": PRETRAINED, "linear-probe": PRETRAINED, "distill": {"objective.teacher": "/runs/big"}}
"""Keys without which a recipe is refused."""


def no_measure(config: RunConfig) -> Pace:
    raise AssertionError("nothing is measured without a budget")


def at_speed(images_per_s: float) -> Measure:
    """A machine that trains every model at the same speed."""
    return lambda config: Pace(((0.0, 1.0, config.data.batch_size / images_per_s),))


def plan_for(
    facts: DataFacts,
    asked: dict[str, Any] | None = None,
    *,
    recipe: str | None = None,
    measure: Measure = no_measure,
    memory: Callable[[RunConfig], float] = lambda config: 0.0,
) -> Plan:
    return make_plan(facts, GIVEN, recipe=recipe, asked=asked or {}, measure=measure, memory=memory)


def reason_of(plan: Plan, key: str) -> str:
    return next(choice.reason for choice in plan.choices if choice.key == key)


@pytest.mark.parametrize("num_train", SET_SIZES)
@pytest.mark.parametrize("size_px", [(8, 10), (24, 36), (480, 640)])
def test_every_data_set_gets_enough_steps(make_facts: Facts, num_train: int, size_px: tuple[int, int]) -> None:
    plan = plan_for(make_facts(num_train, height_px=size_px[0], width_px=size_px[1]))
    steps_per_epoch = -(-num_train // plan.config.data.batch_size)
    assert plan.config.train.epochs * steps_per_epoch >= 100
    assert plan.config.data.batch_size <= num_train


@pytest.mark.parametrize("num_train", SET_SIZES)
def test_classes_channels_and_mirroring_follow_the_data(make_facts: Facts, num_train: int) -> None:
    facts = make_facts(
        num_train, classes=tuple("abcde"), in_chans=1, mirror=False, mirror_reason="the classes are letters"
    )
    plan = plan_for(facts)
    data = plan.config.data
    assert (data.num_classes, data.in_chans, data.flip) == (5, 1, False)
    assert (plan.config.model.num_classes, plan.config.model.in_chans) == (5, 1)
    assert reason_of(plan, "data.flip") == "the classes are letters"


@pytest.mark.parametrize("recipe", sorted(SHIPPED))
def test_every_choice_of_a_shipped_recipe_has_a_reason_and_a_known_key(make_facts: Facts, recipe: str) -> None:
    plan = plan_for(make_facts(), REQUIRED.get(recipe, {}), recipe=recipe)
    assert plan.config.recipe == recipe
    assert all(choice.key in keys.rules() and choice.reason for choice in plan.choices)
    assert len({choice.key for choice in plan.choices}) == len(plan.choices)


def test_distilling_without_a_teacher_is_refused(make_facts: Facts) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_for(make_facts(), recipe="distill")
    assert str(caught.value) == (
        "objective.teacher=none: recipe distill learns from a trained model; give --teacher auto, RUN or FILE"
    )


def test_student_of_photos_is_the_one_that_learns_without_a_teacher(make_facts: Facts) -> None:
    photos = make_facts(3_000, height_px=320, width_px=240)
    budget = {"train.budget_s": 300.0}
    taught, untaught = (
        keys.take_apart(plan_for(photos, budget | {"objective.teacher": teacher}, recipe="distill",
                                 measure=at_speed(900.0)).config)
        for teacher in ("/runs/big", None)
    )  # fmt: skip
    plain = keys.take_apart(plan_for(photos, budget, recipe="small-photos", measure=at_speed(900.0)).config)
    assert untaught == plain | {"objective.teacher": None}
    different = {key for key, value in taught.items() if value != untaught[key]}
    assert different == {
        "objective.teacher", "objective.teacher_views", "objective.distill_temperature", "objective.label_smoothing",
    }  # fmt: skip
    assert taught["data.img_size"] == (64, 64)


def test_pretrained_weights_choose_the_recipe(make_facts: Facts) -> None:
    assert plan_for(make_facts(), PRETRAINED).config.recipe == "fine-tune"
    probe = plan_for(make_facts(), PRETRAINED | {"train.freeze": "backbone"}).config
    assert (probe.recipe, probe.data.flip, probe.objective.label_smoothing) == ("linear-probe", False, 0.0)


def test_choices_are_ordered_as_the_keys_are(make_facts: Facts) -> None:
    places = [list(keys.rules()).index(choice.key) for choice in plan_for(make_facts()).choices]
    assert places == sorted(places)


def test_choices_agree_with_the_configuration(make_facts: Facts) -> None:
    plan = plan_for(make_facts(), {"optim.beta1": 0.85})
    config = keys.take_apart(plan.config)
    assert {choice.key: choice.value for choice in plan.choices} == {c.key: config[c.key] for c in plan.choices}


@pytest.mark.parametrize("num_train", SET_SIZES)
@pytest.mark.parametrize("budget_s", [None, 300.0])
def test_settings_of_the_user_are_kept(
    make_facts: Facts, values: dict[str, Any], num_train: int, budget_s: float | None
) -> None:
    asked = values | {"data.num_classes": 3, "train.budget_s": budget_s or 0.0}
    plan = plan_for(make_facts(num_train), asked, measure=at_speed(100.0))
    found = keys.take_apart(plan.config)
    assert {key: found[key] for key in asked} == asked | {"data.source": "/photos"}
    assert all(reason_of(plan, key) == ASKED for key in asked if key != "data.source")


def test_setting_one_key_changes_the_keys_that_depend_on_it(make_facts: Facts) -> None:
    usual, wide = plan_for(make_facts()).config, plan_for(make_facts(), {"model.embed_dim": 1024}).config
    assert wide.optim.lr < usual.optim.lr
    larger = plan_for(make_facts(), {"data.batch_size": 16 * usual.data.batch_size}).config
    assert larger.optim.lr > usual.optim.lr
    twice = plan_for(make_facts(), {"data.img_size": (48, 72)}).config
    assert twice.model.patch_size > usual.model.patch_size


def test_source_is_the_full_path_of_the_data(make_facts: Facts) -> None:
    assert plan_for(make_facts(), {"data.source": "photos"}).config.data.source == "/photos"


def test_unknown_recipe_suggests_the_nearest(make_facts: Facts) -> None:
    with pytest.raises(UnknownNameError) as caught:
        plan_for(make_facts(), recipe="small-image")
    assert str(caught.value) == ("recipe=small-image: no such recipe; did you mean small-images?, or give a YAML file")


def test_setting_that_breaks_a_rule_is_refused(make_facts: Facts) -> None:
    with pytest.raises(ConfigError, match=r"^model\.patch_size=7: does not divide data\.img_size=24x36"):
        plan_for(make_facts(), {"model.patch_size": 7, "data.img_size": (24, 36)})
    with pytest.raises(ConfigError, match=r"^data\.num_classes=4: made-up has 3 classes; "):
        plan_for(make_facts(), {"data.num_classes": 4})


@pytest.mark.parametrize(("size_px", "img_size"), [((61, 53), (64, 56)), ((28, 28), (32, 32)), ((31, 37), (32, 40))])
def test_small_images_of_any_size_become_about_64_tokens(
    make_facts: Facts, size_px: tuple[int, int], img_size: tuple[int, int]
) -> None:
    config = plan_for(make_facts(height_px=size_px[0], width_px=size_px[1])).config
    assert config.data.img_size == img_size
    assert 40 <= config.model.num_patches <= 90


def test_recipe_follows_the_image_size(make_facts: Facts) -> None:
    sizes = {(8, 10): "digits", (28, 30): "small-images", (64, 99): "small-images", (200, 300): "small-photos"}
    assert {size: recipe_for(make_facts(height_px=size[0], width_px=size[1]), {}) for size in sizes} == sizes


def test_plan_contains_the_notes(make_facts: Facts) -> None:
    plan = plan_for(make_facts(60), {"data.batch_size": 61})
    assert "data.batch_size=61 is larger than the training set of 60 images: an epoch is one step" in plan.notes


# The budget ladder, on machines whose speed in FLOP/s is the same for every model.


def machine(flops_per_s: float, log: list[RunConfig] | None = None) -> Measure:
    def measure(config: RunConfig) -> Pace:
        if log is not None:
            log.append(config)
        return at_speed(flops_per_s / count_flops(config.model))(config)

    return measure


def budget_plan(facts: DataFacts, asked: dict[str, Any], measure: Measure) -> Plan:
    return plan_for(facts, {"train.budget_s": 600.0, **asked}, measure=measure)


def test_fast_machine_gets_the_usual_model_and_measures_once(make_facts: Facts) -> None:
    log: list[RunConfig] = []
    usual = plan_for(make_facts(300_000)).config
    plan = budget_plan(make_facts(300_000), {}, machine(1e30, log))
    assert (plan.config.model.embed_dim, plan.config.model.depth) == (usual.model.embed_dim, usual.model.depth)
    assert plan.config.model.patch_size == usual.model.patch_size
    assert plan.config.optim.lr == usual.optim.lr
    assert len(log) == 1
    assert reason_of(plan, "model.depth").startswith("`vit_small` suits 300,000 training images; ")
    assert reason_of(plan, "model.patch_size") == reason_of(plan_for(make_facts(300_000)), "model.patch_size")


def test_budget_that_is_too_short_for_any_model_gets_the_cheapest_one(make_facts: Facts) -> None:
    facts = make_facts(300_000, height_px=32, width_px=32)
    plan = budget_plan(facts, {}, machine(1e-3))
    model = plan.config.model
    assert (model.embed_dim, model.num_patches) == (SIZES[LADDER[0][0]].embed_dim, LADDER[0][1])
    assert reason_of(plan, "model.depth").startswith("the smallest model, as the budget is short; ")


def test_slower_machines_get_cheaper_models_that_still_reach_enough_epochs(make_facts: Facts) -> None:
    facts = make_facts(60_000, height_px=32, width_px=32)
    needed = facts.num_train * by_num_images(facts.num_train).least_epochs / 600.0
    flops = []
    for speed in (1e13, 1e11, 6e10, 3e10, 1e10, 6e9, 3e9, 1e9):
        model = budget_plan(facts, {}, machine(speed)).config.model
        flops.append(count_flops(model))
        assert speed / flops[-1] > needed or model.embed_dim == SIZES[LADDER[0][0]].embed_dim
    assert flops == sorted(flops, reverse=True)
    assert len(set(flops)) > 2


def test_smaller_model_gets_its_own_learning_rate_and_reason(make_facts: Facts) -> None:
    facts = make_facts(300_000)
    plan = budget_plan(facts, {}, machine(8e10))
    assert plan.config.optim.lr > plan_for(facts).config.optim.lr
    least_epochs = by_num_images(facts.num_train).least_epochs
    reason = reason_of(plan, "model.depth")
    assert reason.startswith(f"the largest model that reaches {least_epochs:g} epochs; ")
    assert " images/s on this machine give " in reason


def test_epochs_in_a_budget_leave_time_for_evaluation_and_for_what_is_outside_training(make_facts: Facts) -> None:
    facts = make_facts(1_000, num_val=100, num_test=200)
    plan = budget_plan(facts, {"model.depth": 2, "train.epochs": 1_000.0, "train.budget_s": 118.0}, at_speed(100.0))
    # 118 s - 12 s outside - 1.3 x 400 images at 300/s - 1.5% for what training images look like to the model; a step in
    # the loop takes 1.1 times the measured one.
    expected = (118 - 12 - 1.3 * 400 / 300 - 0.015 * 118) / 1.1 * 100 / 1_000
    assert plan.config.train.epochs == 1_000.0
    assert reason_of(plan, "data.max_shift").startswith(f"switched off: in only {expected:.2g} epochs, ")


def test_plan_keeps_the_measured_pace_of_its_model(make_facts: Facts) -> None:
    assert plan_for(make_facts()).pace is None
    for speed in (1e30, 1e10, 1e-3):
        log: list[RunConfig] = []
        plan = budget_plan(make_facts(300_000), {}, machine(speed, log))
        assert log[-1].model == replace(plan.config.model, drop_path_rate=log[-1].model.drop_path_rate)
        assert plan.pace == machine(speed)(log[-1])


def test_budget_never_chooses_a_larger_model_than_suits_the_data(make_facts: Facts) -> None:
    for num_train in (*SET_SIZES, 300_000):
        log: list[RunConfig] = []
        usual = plan_for(make_facts(num_train)).config.model
        budget_plan(make_facts(num_train), {}, machine(1e-3, log))
        assert max(count_flops(config.model) for config in log) == count_flops(usual)


def test_no_model_is_measured_twice(make_facts: Facts) -> None:
    log: list[RunConfig] = []
    budget_plan(make_facts(1_300, height_px=8, width_px=10), {}, machine(1e-3, log))
    assert len({config.model for config in log}) == len(log)


def test_budget_lengthens_a_run_up_to_a_limit(make_facts: Facts) -> None:
    usual = plan_for(make_facts()).config.train.epochs
    plan = budget_plan(make_facts(), {}, machine(1e30))
    assert plan.config.train.epochs == MAX_STRETCH * usual
    assert f"give {MAX_STRETCH * usual:.3g} epochs in the budget" in reason_of(plan, "model.embed_dim")
    assert reason_of(plan, "train.epochs") == f"upper limit, 4 times the usual {usual:g}; the budget ends the run"


def test_epochs_and_patch_size_of_the_user_are_kept_with_a_budget(make_facts: Facts) -> None:
    facts = make_facts(height_px=32, width_px=32)
    plan = budget_plan(facts, {"train.epochs": 7.0, "model.patch_size": 2}, machine(1e-3))
    assert plan.config.train.epochs == 7.0
    assert plan.config.model.patch_size == 2
    plan = budget_plan(facts, {"train.epochs": 7.0}, machine(1e30))
    assert "give 7 epochs in the budget" in reason_of(plan, "model.embed_dim")


@pytest.mark.parametrize("asked", [{"model.embed_dim": 40, "model.num_heads": 5}, {"model.depth": 9}])
def test_model_of_the_user_is_kept_with_a_budget_however_slow(make_facts: Facts, asked: dict[str, Any]) -> None:
    plan = plan_for(make_facts(), {"train.budget_s": 600.0, **asked}, measure=at_speed(0.1))
    assert {key: keys.take_apart(plan.config)[key] for key in asked} == asked


@pytest.mark.parametrize("num_heads", [1, 7, 12])
def test_a_budget_chooses_the_size_of_a_model_with_the_heads_of_the_user(make_facts: Facts, num_heads: int) -> None:
    facts = make_facts(height_px=32, width_px=32)
    models = [budget_plan(facts, {"model.num_heads": num_heads}, machine(per_s)).config.model for per_s in (1e3, 1e30)]
    assert [model.num_heads for model in models] == [num_heads] * 2
    assert models[0].embed_dim < models[1].embed_dim


@pytest.mark.parametrize("size_px", [(8, 8), (32, 32)])
@pytest.mark.parametrize(
    "asked", [{"model.rotary": "axial"}, {"model.position": "sincos2d"}, {"model.head_dim": 8, "model.pool": "mean"}]
)
def test_a_fast_machine_keeps_the_usual_model_with_heads_that_do_not_divide_its_width(
    make_facts: Facts, asked: dict[str, Any], size_px: tuple[int, int]
) -> None:
    facts, asked = make_facts(height_px=size_px[0], width_px=size_px[1]), {**asked, "model.num_heads": 7}
    usual, fitted = plan_for(facts, asked), budget_plan(facts, asked, machine(1e30))
    for key in ("embed_dim", "depth", "num_heads"):
        assert getattr(fitted.config.model, key) == getattr(usual.config.model, key)


def test_short_run_gets_weaker_augmentation(make_facts: Facts) -> None:
    facts = make_facts(2_000, height_px=200, width_px=300)
    long, middle, short = (plan_for(facts, {"train.epochs": epochs}).config for epochs in (60.0, 25.0, 3.0))
    assert 0 < middle.data.max_rotate_deg == long.data.max_rotate_deg / 2
    assert 1 - middle.data.min_crop_area == pytest.approx((1 - long.data.min_crop_area) / 2)
    assert middle.objective.label_smoothing == long.objective.label_smoothing / 2
    assert (short.data.max_rotate_deg, short.data.min_crop_area, short.data.flip) == (0.0, 1.0, True)
    assert (short.model.drop_path_rate, short.objective.label_smoothing) == (0.0, 0.0)


def test_a_run_of_few_steps_is_not_regularized(make_facts: Facts) -> None:
    # 400 images in batches of 16 are 25 steps per epoch.
    few, enough = (plan_for(make_facts(400), {"train.epochs": epochs}).config for epochs in (15.0, 16.0))
    assert (few.data.mix_rate, few.objective.label_smoothing) == (0.0, 0.0)
    assert 0 < enough.objective.label_smoothing < 0.1


def test_short_run_applies_policy_and_mixing_of_a_recipe_less_often(
    make_facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strong(facts: DataFacts, asked: dict[str, Any]) -> list[Choice]:
        added = {"data.policy": "randaugment", "data.color_jitter": 0.4, "data.mixup_alpha": 0.8, "data.mix_rate": 0.9}
        return [*SHIPPED["small-images"](facts, asked), *(Choice(key, value, "") for key, value in added.items())]

    monkeypatch.setitem(SHIPPED, "strong", strong)
    for epochs, strength in ((60.0, 1.0), (25.0, 0.5), (3.0, 0.0)):
        data = plan_for(make_facts(), {"train.epochs": epochs}, recipe="strong").config.data
        assert (data.policy_rate, data.color_jitter, data.mix_rate) == (strength, 0.4 * strength, 0.9 * strength)
    asked = {"train.epochs": 3.0, "data.policy": "3-augment", "data.color_jitter": 0.2, "data.mix_rate": 0.7}
    data = plan_for(make_facts(), asked, recipe="strong").config.data
    assert (data.policy_rate, data.color_jitter, data.mix_rate) == (1.0, 0.2, 0.7)


def test_mixing_of_the_user_is_kept_in_a_short_run(make_facts: Facts) -> None:
    data = plan_for(make_facts(), {"train.epochs": 3.0, "data.cutmix_alpha": 1.0}).config.data
    assert (data.cutmix_alpha, data.mix_rate) == (1.0, 1.0)


TRUE_REASONS = (
    {},
    {"train.epochs": 25.0},
    {"train.epochs": 3.0},
    {"train.epochs": 3.0, "optim.name": "schedule_free"},
    {"train.budget_s": 30.0},
    {"train.budget_s": 3_000.0},
)
"""Settings under which the planner softens, shrinks or changes what a recipe recommends."""


@pytest.mark.parametrize("asked", TRUE_REASONS, ids=str)
@pytest.mark.parametrize("recipe", sorted(SHIPPED))
def test_reasons_explain_the_values(make_facts: Facts, recipe: str, asked: dict[str, Any]) -> None:
    """An unchanged value keeps the recipe's reason; a changed one gets a reason that names the cause."""
    asked, size_keys = REQUIRED.get(recipe, {}) | asked, ("model.embed_dim", "model.depth", "model.num_heads")
    for num_train, mirror in product(SET_SIZES, (True, False)):
        facts = make_facts(num_train, mirror=mirror, mirror_reason=f"mirrored images keep their class: {mirror}")
        plan = plan_for(facts, asked, recipe=recipe, measure=machine(1e9))
        found = {choice.key: choice for choice in plan.choices}
        views = {key: found[key].value for key in ("objective.teacher_views",) if key in found}  # the recipe reads it
        recommended = {choice.key: choice for choice in SHIPPED[recipe](facts, asked | views)}
        changed = {key for key in recommended if key not in asked and found[key].value != recommended[key].value}
        if changed & set(size_keys):
            changed |= set(size_keys)  # the three describe one model
        for key in recommended.keys() - asked.keys() - changed:
            assert found[key].reason.startswith(recommended[key].reason), key
        for key in changed - asked.keys():
            assert any(word in found[key].reason for word in ("epochs", "budget", "width", "schedule")), key


def test_images_that_must_not_be_mirrored_say_so_in_a_short_run_too(make_facts: Facts) -> None:
    facts = make_facts(mirror=False, mirror_reason="the classes are characters")
    plan = plan_for(facts, {"train.epochs": 3.0})
    assert plan.config.data.flip is False
    assert reason_of(plan, "data.flip") == "the classes are characters"


@pytest.mark.parametrize("epochs", [3.0, 16.0, 40.0])
@pytest.mark.parametrize("looks_usual", [True, False])
def test_short_runs_mirror_only_images_that_look_usual_then(
    make_facts: Facts, epochs: float, looks_usual: bool
) -> None:
    plan = plan_for(make_facts(mirror_looks_usual=looks_usual), {"train.epochs": epochs})
    assert plan.config.data.flip is (looks_usual or epochs == 40)
    reason = "mirrored images look unlike the others, and 16 epochs are too short for both"
    assert (reason_of(plan, "data.flip") == reason) is (not looks_usual and epochs == 16)


@pytest.mark.parametrize(
    ("recipe", "sizes", "reason"),
    [
        ("small-images", {"height_px": 40, "width_px": 50},
         "all images are 40x50 px; rounded to a size that square patches tile"),
        ("small-images", {"height_px": 40, "width_px": 50, "max_size_px": (41, 50)},
         "the median size is 40x50 px; rounded to a size that square patches tile"),
        ("small-images", {"height_px": 24, "width_px": 24}, "all images are 24x24 px"),
        ("digits", {"height_px": 8, "width_px": 10, "max_size_px": (12, 14)}, "the median size is 8x10 px"),
        ("small-photos", {"height_px": 300, "width_px": 400},
         "all images are 300x400 px; resized to a size that trains fast from scratch"),
        ("deit", {"height_px": 300, "width_px": 400}, "DeiT, table 9 (2012.12877)"),
    ],
)  # fmt: skip
def test_image_size_says_where_it_comes_from(
    make_facts: Facts, recipe: str, sizes: dict[str, Any], reason: str
) -> None:
    plan = plan_for(make_facts(**sizes), recipe=recipe)
    assert reason_of(plan, "data.img_size") == reason


@pytest.mark.parametrize("recipe", ["small-images", "deit"])
def test_classes_are_listed_and_cut_short_only_if_there_are_many(make_facts: Facts, recipe: str) -> None:
    two, many = make_facts(classes=("cats", "dogs")), make_facts(classes=tuple("abcdefg"))
    assert reason_of(plan_for(two, recipe=recipe), "data.num_classes") == "cats and dogs"
    assert reason_of(plan_for(many, recipe=recipe), "data.num_classes") == "a, b, c, d and 3 more"


def test_augmentation_of_the_user_is_kept_in_a_short_run(make_facts: Facts) -> None:
    asked = {"train.epochs": 3.0, "data.max_rotate_deg": 33.0, "data.flip": True, "data.min_crop_area": 0.6}
    data = plan_for(make_facts(2_000, height_px=200, width_px=300), asked).config.data
    assert (data.max_rotate_deg, data.flip, data.min_crop_area) == (33.0, True, 0.6)


def test_learning_rate_of_the_user_is_kept_for_every_model(make_facts: Facts) -> None:
    plan = budget_plan(make_facts(300_000), {"optim.lr": 0.0123}, machine(1e-3))
    assert plan.config.optim.lr == 0.0123


# Optimizers.


@pytest.mark.parametrize("budget_s", [None, 300.0])
@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_another_optimizer_gets_its_own_rate_and_decay(
    make_facts: Facts, name: OptimizerName, budget_s: float | None
) -> None:
    budget = {"train.budget_s": budget_s or 0.0}
    usual = plan_for(make_facts(), budget, measure=at_speed(100.0)).config.optim
    plan = plan_for(make_facts(), budget | {"optim.name": name}, measure=at_speed(100.0))
    rule = BY_OPTIMIZER[name]
    assert plan.config.optim.name == name
    assert plan.config.optim.lr == pytest.approx(usual.lr * rule.lr_ratio, rel=0.05)
    assert plan.config.optim.weight_decay == pytest.approx(usual.weight_decay * rule.decay_ratio)
    if rule.lr_ratio != 1:
        assert reason_of(plan, "optim.lr") == rule.reason


def test_lion_and_schedule_free_set_keys_of_their_own(make_facts: Facts) -> None:
    assert plan_for(make_facts(), {"optim.name": "lion"}).config.optim.beta2 == 0.99
    assert plan_for(make_facts(), {"optim.name": "schedule_free"}).config.optim.schedule == "constant"
    assert plan_for(make_facts()).config.optim.schedule == "cosine"


def test_optimizer_keys_of_the_user_are_kept(make_facts: Facts) -> None:
    asked = {"optim.name": "lion", "optim.lr": 0.0123, "optim.weight_decay": 0.4, "optim.beta2": 0.97}
    plan = plan_for(make_facts(), asked)
    assert {key: keys.take_apart(plan.config)[key] for key in asked} == asked
    assert {reason_of(plan, key) for key in asked} == {ASKED}


def test_recipe_for_lion_keeps_its_rate_and_is_converted_for_adamw(
    make_facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def for_lion(facts: DataFacts, asked: dict[str, Any]) -> list[Choice]:
        own = {"optim.name": "lion", "optim.lr": 3e-4, "optim.weight_decay": 0.5}
        return [*SHIPPED["small-images"](facts, asked), *(Choice(key, value, "") for key, value in own.items())]

    monkeypatch.setitem(SHIPPED, "for-lion", for_lion)
    assert plan_for(make_facts(), recipe="for-lion").config.optim.lr == 3e-4
    assert plan_for(make_facts(), {"optim.name": "lion"}, recipe="for-lion").config.optim.lr == 3e-4
    found = plan_for(make_facts(), {"optim.name": "adamw"}, recipe="for-lion").config.optim
    assert (found.lr, found.weight_decay) == (1.5e-3, 0.1)


def twice_the_memory(config: RunConfig) -> float:
    return 2.0 / config.train.micro_batches


def test_batch_that_exceeds_the_memory_is_split_into_micro_batches(make_facts: Facts) -> None:
    plan = plan_for(make_facts(1_300), memory=twice_the_memory)
    assert plan.config.train.micro_batches == 4
    assert reason_of(plan, "train.micro_batches") == (
        f"a whole batch of {plan.config.data.batch_size} images would take about 200% of the memory"
    )
    assert not any("memory" in note for note in plan.notes)


def test_speed_is_measured_with_micro_batches_that_fit_the_memory(make_facts: Facts) -> None:
    measured: list[int] = []

    def measure(config: RunConfig) -> Pace:
        measured.append(config.train.micro_batches)
        return at_speed(1e6)(config)

    plan_for(make_facts(1_300), {"train.budget_s": 600.0}, measure=measure, memory=twice_the_memory)
    assert set(measured) == {4}


def test_micro_batches_of_the_user_are_kept_and_a_step_too_large_is_reported(make_facts: Facts) -> None:
    plan = plan_for(make_facts(1_300), {"train.micro_batches": 2}, memory=twice_the_memory)
    assert plan.config.train.micro_batches == 2
    assert plan.notes[-1].startswith("a training step takes about 100% of the memory, so the system may kill the run: ")


def test_batch_never_has_more_micro_batches_than_images(make_facts: Facts) -> None:
    plan = plan_for(make_facts(1_300), {"data.batch_size": 6}, memory=lambda config: 9.0)
    assert plan.config.train.micro_batches == 6
    assert plan.notes[-1].startswith("a training step takes about 900% of the memory")


def test_short_fine_tuning_crops_and_mirrors_photos_but_not_small_images(make_facts: Facts) -> None:
    photos, small = (
        make_facts(height_px=height_px, width_px=128, mirror=True, mirror_looks_usual=False) for height_px in (96, 24)
    )
    short = {**PRETRAINED, "train.epochs": 2.0}
    data = plan_for(photos, short).config.data
    assert (data.min_crop_area, data.flip, data.max_shift) == (0.5, True, 0.0)
    assert plan_for(photos, short).config.objective.label_smoothing == 0.1
    assert plan_for(photos, short).config.model.drop_path_rate == 0.0
    data = plan_for(small, short).config.data
    assert (data.min_crop_area, data.flip) == (1.0, False)


def test_fitted_head_takes_a_quarter_of_the_learning_rate(make_facts: Facts) -> None:
    rates = {
        init: plan_for(make_facts(), {**PRETRAINED, "train.head_init": init}).config.optim.lr
        for init in ("zero", "fitted")
    }
    assert rates["fitted"] == pytest.approx(rates["zero"] / 4, rel=0.05)
    assert plan_for(make_facts(), PRETRAINED).config.optim.lr == rates["fitted"]


@pytest.mark.parametrize("recipe", ["fine-tune", "pretrain-finetune"])
def test_reason_for_the_head_suits_its_value(make_facts: Facts, recipe: str) -> None:
    asked = PRETRAINED if recipe == "fine-tune" else {}
    for facts, value in ((make_facts(), "fitted"), (make_facts(task="multilabel"), "zero")):
        plan = plan_for(facts, {**asked, "data.task": facts.task}, recipe=recipe)
        assert plan.config.train.head_init == value
        assert ("suits the features" in reason_of(plan, "train.head_init")) is (value == "fitted")


@pytest.mark.parametrize(("epochs", "ratio"), [(1.0, 0.4), (3.0, 0.25), (50.0, 0.1)])
def test_short_fine_tuning_warms_up_for_longer(make_facts: Facts, epochs: float, ratio: float) -> None:
    asked = {**PRETRAINED, "train.epochs": epochs, "data.batch_size": 32}
    plan = plan_for(make_facts(1_280), asked)
    assert plan.config.optim.warmup_ratio == ratio
    assert plan_for(make_facts(1_280), {**asked, "optim.warmup_ratio": 0.05}).config.optim.warmup_ratio == 0.05
    assert plan_for(make_facts(1_280), {"train.epochs": epochs}).config.optim.warmup_ratio == 0.1
