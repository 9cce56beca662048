"""A check of a run: which images it takes, what it finds, what it writes, and what is read back."""

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from tests.pictures import write_pictures
from torch import nn

from vitreous.errors import ConfigError, DamagedFileError, DataError, NotARunError, UnknownNameError
from vitreous.model.weights.native import fingerprint
from vitreous.tensors import Images
from vitreous.training.machine.device import autocast
from vitreous.use.evaluate.labeled_images import labeled_images
from vitreous.use.explain import sample as sample_module
from vitreous.use.explain.check import checker, cost
from vitreous.use.explain.check.checker import check_explanations
from vitreous.use.explain.check.compare import BatchCurves, compare
from vitreous.use.explain.check.faithfulness import FILE, Faithfulness, read_last_check
from vitreous.use.explain.methods import METHODS, Method
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.removal.agreement import agreement
from vitreous.use.explain.removal.exact_shapley import exact_shapley
from vitreous.use.explain.removal.patch_removal import PatchRemoval
from vitreous.use.explain.sample import Sample
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating
from vitreous.use.run import Run

ONE = ["gradient-attention"]


@pytest.fixture(scope="module")
def found(run: Run) -> Faithfulness:
    """A check of one method on all held-out images."""
    return check_explanations(run.path, methods=ONE)


def test_check_takes_the_held_out_images_of_the_run(found: Faithfulness, run: Run) -> None:
    assert found.facts["data"] == "my photos, test split"
    assert found.facts["num_images"] == run.metrics["test"]["num_images"] == found.facts["num_available"]
    assert [row.name for row in found.rows] == [*ONE, "random", "center"]
    assert found.facts["weights"] == fingerprint(run.model)


def test_curves_begin_at_the_accuracy_of_the_run(found: Faithfulness, run: Run) -> None:
    for name in (*ONE, "random", "center"):
        for curve in found.curves["perturbation"][name]:
            assert len(curve) == 10
            assert curve[0] == pytest.approx(run.evaluate().accuracy)
    for protocol in ("flipping", "removal"):
        first, second = found.curves[protocol][ONE[0]]
        assert (first[0], first[-1]) == pytest.approx((second[0], second[-1]), abs=1e-4)


def test_same_seed_gives_the_same_result(found: Faithfulness, run: Run) -> None:
    again = check_explanations(run.path, methods=ONE)
    assert again.as_dict() == found.as_dict()
    assert run.check_explanations(methods=ONE, seed=1).as_dict()["methods"] != found.as_dict()["methods"]


def occlusion(model: nn.Module, images: Images, target: Target) -> Relevance:
    """Explain by the protocol itself: what the score loses without a patch."""
    with evaluating(model) as vit:
        remover = PatchRemoval(vit, images)
        count = remover.num_patches
        kept = torch.cat([~torch.eye(count, dtype=torch.bool), torch.ones(1, count, dtype=torch.bool)])
        numbers = torch.arange(len(images)).repeat_interleave(count + 1)
        logits = remover.logits(numbers, kept.repeat(len(images), 1))
        scores = target.of(numbers).scores(logits).view(len(images), count + 1)
    return Relevance((scores[:, -1:] - scores[:, :-1]).view(-1, *remover.grid_size))


def sample_of(run: Run) -> Sample:
    return Sample.draw(labeled_images(run.path, run.predictor), run.predictor, 50)


def noise(model: nn.Module, images: Images, target: Target) -> Relevance:
    return Relevance(torch.rand(len(images), 2, 3, generator=torch.Generator().manual_seed(1)))


def test_method_that_is_faithful_by_construction_wins_and_noise_does_not(run: Run) -> None:
    methods = {"noise": Method(noise, "noise", ""), "occlusion": Method(occlusion, "occlusion", "")}
    result = compare(sample_of(run), methods)
    rows = {row.name: row for row in result.rows}
    assert result.best.name == "occlusion"
    assert rows["occlusion"].measured["removal"].above_random.low > 0
    assert rows["noise"].measured["removal"].above_random.low <= 0
    assert rows["noise"].similarity == pytest.approx(1.0)
    assert [warning.split(" hardly")[0] for warning in result.warnings] == ["noise"]


def test_agreement_is_that_with_exact_shapley_values(found: Faithfulness, run: Run) -> None:
    sample = sample_of(run)
    some = np.unique(np.linspace(0, len(sample) - 1, 6).round().astype(int))
    images = sample.images(some)
    exact = exact_shapley(run.model, images, precision=found.facts["precision"])
    with autocast(images.device, found.facts["precision"]):
        values = METHODS[ONE[0]](run.model, images).values
    wanted = agreement(values, exact.values).pearson
    assert found.rows[0].measured["shapley"].score.mean == pytest.approx(wanted.mean(), abs=1e-4)
    assert (found.facts["num_images_shapley"], found.facts["largest_agreement"]) == (len(some), 1.0)


def test_shapley_values_of_large_models_are_sampled_and_the_notes_say_so(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_EXACT_FLOPS", 1.0)
    result = check_explanations(run.path, methods=ONE)
    limit = result.facts["largest_agreement"]
    assert 0 < limit < 1
    assert result.notes[-1] == (
        f"Shapley values are sampled; the exact ones would have a correlation of {limit:.2f} with them"
    )


# Which methods and images.


def test_expensive_methods_are_left_out_with_a_note(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        checker, "METHODS", {"slow": Method(noise, "Slow CAM", "", passes=125.0), ONE[0]: METHODS[ONE[0]]}
    )
    result = check_explanations(run.path)
    assert [row.name for row in result.rows] == [*ONE, "random", "center"]
    assert result.notes[:1] == [
        "Slow CAM is left out, because it takes more than 120 forward passes per image; `--method slow` or `--method "
        "all` includes it"
    ]
    monkeypatch.setattr(checker, "method_named", lambda name: checker.METHODS[name])
    asked = check_explanations(run.path, methods=["slow"]).rows[0]
    assert (asked.name, asked.passes) == ("slow", 125)


def test_large_models_are_checked_on_fewer_images(
    lone_model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_BUDGET_FLOPS", 1.0)
    few = check_explanations(lone_model, str(photos), methods=ONE)
    assert (few.facts["num_images"], few.facts["num_available"]) == (20, 72)
    assert few.notes == [
        "20 of 72 images are used, so that the check takes minutes; `--images 72` gives narrower intervals",
        "the curves have fewer steps than those of small models, so that the check takes less time",
    ]
    assert (few.facts["steps"]["rise"], len(few.curves["rise"]["x"])) == (7, 8)


def test_the_expected_time_is_given_before_anything_is_compared(run: Run) -> None:
    events: list[tuple[str, dict[str, float]]] = []
    check_explanations(run.path, methods=ONE, listener=lambda kind, fields: events.append((kind, dict(fields))))
    kinds = [kind if kind != "reading" else str(fields["what"]) for kind, fields in events]
    assert kinds.index("expected") < kinds.index("checking methods")
    (expected,) = [fields for kind, fields in events if kind == "expected"]
    assert 0 < expected["seconds"] < 600
    progress = [fields["done"] for kind, fields in events if kind == "reading" and fields["what"] == "checking methods"]
    assert progress == sorted(progress)


def test_a_comparison_that_was_interrupted_continues_with_its_next_batch(run: Run) -> None:
    stored: dict[int, BatchCurves] = {}

    def interrupted(number: int, compute: Callable[[], BatchCurves]) -> BatchCurves:
        if number == 1:
            raise KeyboardInterrupt
        return stored.setdefault(number, compute())

    computed: list[int] = []

    def resumed(number: int, compute: Callable[[], BatchCurves]) -> BatchCurves:
        if number not in stored:
            computed.append(number)
            stored[number] = compute()
        return stored[number]

    methods, sample = {ONE[0]: METHODS[ONE[0]]}, sample_of(run)
    with patch.object(sample_module, "TOKENS_AT_ONCE", 4 * run.model.config.num_tokens):
        whole = compare(sample, methods)
        with pytest.raises(KeyboardInterrupt):
            compare(sample, methods, once=interrupted)
        continued = compare(sample, methods, once=resumed)
    assert computed == list(range(1, -(-len(sample) // 4)))
    assert continued.as_dict() == whole.as_dict()


def test_other_data_is_checked_too(lone_model: Path, photos: Path) -> None:
    result = check_explanations(lone_model, str(photos), methods=ONE, num_images=12)
    assert (result.facts["num_images"], result.facts["num_available"]) == (12, 72)
    assert result.facts["data"] == "all of my photos"


def test_unreadable_images_are_reported_and_left_out(lone_model: Path, tmp_path: Path) -> None:
    names = {"Äpfel": ((200, 60, 50), 9), "two words": ((90, 70, 190), 6)}
    data = write_pictures(tmp_path / "some", names, seed=5, name="{}.png", noise=20)
    (data / "Äpfel" / "0.png").write_bytes(b"no image")
    events = []
    result = check_explanations(
        lone_model, str(data), methods=ONE, listener=lambda kind, fields: events.append((kind, fields))
    )
    assert result.facts["num_images"] == 14
    assert [len(fields["skipped"]) for kind, fields in events if kind == "skipped"] == [1]


# Mistakes.


def test_too_few_images_are_refused(run: Run, lone_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^images=9: too few to compare methods; use 10 or more$"):
        check_explanations(run.path, num_images=9)
    with pytest.raises(ConfigError, match=r"^methods=\[\]: names no method; leave it out to compare all$"):
        check_explanations(run.path, methods=[])
    data = write_pictures(tmp_path / "few", {"Äpfel": ((200, 60, 50), 4), "two words": ((9, 9, 9), 3)}, seed=5,
                          name="{}.png", noise=20)  # fmt: skip
    with pytest.raises(DataError, match=r"^all of few: has 7 images, and this needs 10 or more; give a folder"):
        check_explanations(lone_model, str(data), methods=ONE)
    for number in range(7):
        (data / "Äpfel" / f"broken{number}.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"^all of few: 7 of 14 images can be decoded, and this needs 10 or more; check them"
    ):
        check_explanations(lone_model, str(data), methods=ONE)


def test_unknown_method_is_refused(run: Run) -> None:
    with pytest.raises(UnknownNameError, match=r"^method=gradient-atention: no such method; did you mean gradient-"):
        check_explanations(run.path, methods=["gradient-atention"])


def test_model_file_without_data_is_refused(lone_model: Path) -> None:
    with pytest.raises(NotARunError, match="is a model file"):
        check_explanations(lone_model, methods=ONE)


# Files.


def test_saved_result_is_read_back_for_the_same_weights(found: Faithfulness, run: Run, tmp_path: Path) -> None:
    assert read_last_check(tmp_path, run.model) is None
    paths = found.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["curves.png", FILE]
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    last = read_last_check(paths[0].parent, run.model)
    assert last is not None
    assert (last.best, last.num_images) == (ONE[0], found.facts["num_images"])
    assert last.is_better_than_random == (found.best.measured["removal"].above_random.low > 0)
    assert read_last_check(paths[0].parent, run.predictor.model) == last
    label = "gradient × attention was the most faithful method" if last.is_better_than_random else "no method"
    assert last.sentence.startswith(label)


def test_result_of_other_weights_or_methods_is_not_used(found: Faithfulness, run: Run, tmp_path: Path) -> None:
    content = found.as_dict()
    (tmp_path / FILE).write_text(json.dumps(content | {"weights": "0" * 32}))
    assert read_last_check(tmp_path, run.model) is None
    methods = {**content["methods"], "magic": content["methods"][ONE[0]]}
    (tmp_path / FILE).write_text(json.dumps(content | {"best": "magic", "methods": methods}))
    assert read_last_check(tmp_path, run.model) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 100_000, '{"best": "random"}', "9" * 5000, '{"methods": 1, "best": 2}']
)
def test_damaged_result_is_an_error_that_says_what_to_do(text: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(DamagedFileError, match=rf"{FILE}: cannot be read as .json .*; delete it, or repeat"):
        read_last_check(tmp_path, run.model)
