"""The progress of a run follows from its events."""

import pytest

from vitreous.training.folder.progress import RunProgress, curve

STEP = {"epoch": 2.0, "loss": 0.5, "accuracy": 0.75, "images_per_s": 1234.5, "progress": 0.5, "elapsed_s": 60.0}


def evaluation(weights: str, accuracy: float, loss: float, **rest: float) -> dict[str, object]:
    return {"weights": weights, "epoch": 3.0, "accuracy": accuracy, "loss": loss, **rest}


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([1.0], ""),
        ([0.0, 7.0], "▁█"),
        ([3.0, 3.0, 3.0], "▁▁▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([0.0] * 100 + [1.0] * 100, "▁▁██"),
        ([-2.0, -1.0], "▁█"),
    ],
)
def test_curve_goes_from_the_lowest_to_the_highest_value(values: list[float], drawn: str) -> None:
    assert curve(values, width=4 if len(values) > 8 else 8) == drawn


def test_time_left_follows_the_speed_and_the_budget() -> None:
    now_s = 100.0
    run = RunProgress(lambda: now_s)
    run.listen("step", STEP | {"progress": 0.1})
    assert run.time_left() == ""  # the speed is not known yet
    now_s = 130.0
    run.listen("step", STEP | {"progress": 0.4})
    assert run.time_left() == "1 min 0 s left"  # 30 s for 0.3 of the run, 0.6 to go
    assert run.headline() == "epoch 2.0  1,234 images/s  1 min 0 s left"
    run.listen("fit", {"budget_s": 100.0})  # the next stage of the run
    run.listen("step", STEP | {"progress": 0.4})
    assert run.headline() == "epoch 2.0  1,234 images/s  40 s left of 1 min 40 s"
    run.listen("step", STEP | {"elapsed_s": 120.0})
    assert run.headline().endswith("0 s left of 1 min 40 s")


def test_best_evaluation_has_the_lowest_calibrated_loss_of_either_weights() -> None:
    run = RunProgress()
    run.listen("step", STEP)
    assert run.rows() == [("loss", "", "0.500"), ("accuracy", "", "75.0%")]
    run.listen("first_model", {"val": {"accuracy": 0.6, "loss": 1.0, "calibrated_loss": 0.8}})
    assert run.rows()[-1] == ("validation", "", "best so far 60.0%, loss 1.000, before the first step")
    run.listen("evaluation", evaluation("trained", 0.7, 2.0, calibrated_loss=0.7))
    run.listen("evaluation", evaluation("average", 0.8, 0.9, calibrated_loss=0.75))
    text = "80.0%, loss 0.900; best so far 70.0%, loss 2.000, at epoch 3.0"
    assert run.rows()[-1] == ("validation", "", text)


def test_next_run_of_a_series_begins_at_zero() -> None:
    run = RunProgress()
    run.listen("step", STEP)
    run.listen("evaluation", evaluation("average", 0.8, 0.9))
    run.listen("member", {"name": "fold-1", "number": 2, "total": 5, "done": False})
    assert (run.rows(), run.share) == ([], 0.0)


def test_loss_that_is_not_finite_has_no_place_in_the_curve() -> None:
    run = RunProgress()
    for loss in (1.0, float("nan"), float("inf"), 2.0):
        run.listen("step", STEP | {"loss": loss})
    assert run.rows()[0] == ("loss", "▁█", "2.000")
