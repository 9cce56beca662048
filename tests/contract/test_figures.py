"""Every measured figure in README, docs and benchmarks/README is the one that benchmarks/results holds.

Tables are compared row by row; sentences must contain the fragment that is built here from the stored results.
"""

import importlib
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import pytest
from tests.contract.sources import ROOT

from vitreous.recipe.forecast import LAW

RESULTS = ROOT / "benchmarks" / "results" / "amd-epyc-2-cores"
CASES = {
    "28 px, patch 4, width 128, depth 6, batch 128": "28 px p4 d128 L6",
    "Ti/16, 224 px, batch 8": "Ti/16",
    "S/16, 224 px, batch 8": "S/16",
    "B/16, 224 px, batch 8": "B/16",
}
"""Name of a case in docs/speed.md -> in throughput.json."""
PEERS = ("timm", "torchvision", "transformers", "vit-pytorch")
PARTS = {
    "matrix products and attention": ("products", "products of heads", "fused attention"),
    "GELU": ("GELU",),
    "norms": ("norms",),
    "copies": ("copies",),
}
"""Row of docs/speed.md -> kinds of operations in anatomy.json."""


@cache
def results(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


@cache
def text(document: str) -> str:
    """Return a document with every run of white space replaced by one space."""
    return " ".join((ROOT / document).read_text(encoding="utf-8").split())


def table(document: str, heading: str) -> list[str]:
    """Return the rows of the table whose first line begins with `heading`."""
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(heading))
    rows = lines[start + 2 :]
    end = next((number for number, line in enumerate(rows) if not line.startswith("|")), len(rows))
    return rows[:end]


def spread(values: list[float], form: str) -> str:
    """Return the range of some values as text, such as `1.08 to 1.25`."""
    return f"{min(values):{form}} to {max(values):{form}}"


# README and docs/doctor.md.


def planted_faults() -> tuple[list[str], str]:
    """Return the rows about wrong labels and foreign images, and the sentence about copies."""
    path = ROOT / "benchmarks" / "results" / "intel-r-xeon-r-processor-2-cores" / "doctor_pretrained.json"
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    rows = []
    for kind, planted in (("labels", "wrong labels"), ("outliers", "foreign images")):
        for data in ("clothing-96px", "sign-digits"):
            cells = []
            for basis in ("thumbnails", "model"):
                found = [run[kind][basis] for name, run in runs.items() if name.startswith(data)]
                recall, precision = (statistics.mean(each[key] for each in found) for key in ("recall", "precision"))
                cells.append(f"{recall:.0%} / {precision:.0%}" if recall else "none")
            rows.append(f"| {planted} | {data} | {cells[0]} | {cells[1]} |")
    recalls = [100 * run["copies"]["with crops"]["recall"] for run in runs.values()]
    wrong = sum(run["copies"]["with crops"]["groups"] - run["copies"]["with crops"]["groups with a copy"]
                for run in runs.values())  # fmt: skip
    ranks = [100 * run["copies"]["features"]["original among the 10 nearest"] for run in runs.values()]
    return rows, (
        f"{min(recalls):.0f}% to {max(recalls):.0f}%, with {wrong} wrong groups. By features, the original is among "
        f"the 10 nearest images for {min(ranks):.0f}% to {max(ranks):.0f}%"
    )


def test_planted_faults_of_the_page_are_the_stored_ones() -> None:
    rows, copies = planted_faults()
    assert table("docs/doctor.md", "| planted | data |") == rows
    assert copies in text("docs/doctor.md")


def printed_rows(script: str, *runs: dict[str, Any] | str) -> list[str]:
    """Return the table as a script in benchmarks/ prints it."""
    return module(script).table_rows(*runs)


def module(script: str) -> Any:
    """Import a script in benchmarks/."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(script)
    finally:
        sys.path.pop(0)


def front_door_rows() -> list[str]:
    return [
        *printed_rows("front_door", results("front_door")["runs"]),
        *module("small_data").command_rows(results("small_data")["runs"]),
        *module("transfer").command_rows(results("transfer")["runs"]),
    ]


def test_table_of_small_data_is_the_stored_one() -> None:
    shown = table("docs/small-data.md", "| data | track | minutes |")
    assert shown == printed_rows("small_data", results("small_data")["runs"])


def test_forecasts_are_those_of_the_stored_runs() -> None:
    runs, forecast = results("small_data")["runs"], module("forecast")
    assert table("docs/planning.md", "| data | first run |") == printed_rows("forecast", runs)
    assert forecast.law_of(forecast.pairs(runs).values()) == LAW


def test_more_time_does_not_give_a_worse_model() -> None:
    bends = module("small_data").bends
    assert bends(results("small_data")["runs"]) == []
    accuracies = {"1/0": 0.80, "1/1": 0.90, "3/0": 0.846, "10/0": 0.848}
    runs = {f"digits/S/{key}": {"test": {"accuracy": accuracy}} for key, accuracy in accuracies.items()}
    assert bends(runs) == ["digits/S: 84.6% in 3 minutes, but 85.0% in 1"]


def test_readme_table_is_the_stored_one() -> None:
    shown = table("README.md", "| command | held-out images |")
    assert len(shown) >= 3
    assert [row for row in front_door_rows() if row in shown] == shown


def test_readme_introduction_agrees_with_its_table() -> None:
    accuracy = re.search(r"\| ([\d.]+%) \(5 seeds", front_door_rows()[0])
    assert accuracy
    assert f"classifies {accuracy[1]} of the held-out images correctly" in text("README.md")


# docs/corrections.md.


def test_label_errors_are_the_stored_ones() -> None:
    rows = printed_rows("label_errors", results("label_errors")["runs"])
    assert table("docs/corrections.md", "| data | judged by | trained from |") == rows


# docs/transfer.md.


def runs_on_xeon(name: str) -> dict[str, Any]:
    path = ROOT / "benchmarks" / "results" / "intel-r-xeon-r-processor-2-cores" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["runs"]


def test_transfer_tables_are_the_stored_ones() -> None:
    assert table("docs/transfer.md", "| photos | budget |") == printed_rows("transfer", results("transfer")["runs"])
    in_float32 = printed_rows("transfer", results("transfer")["runs"], "train.precision=fp32")
    assert table("docs/transfer.md", "| in float32 | budget |") == in_float32
    assert table("docs/transfer.md", "| on the Xeon | budget |") == printed_rows("transfer", runs_on_xeon("transfer"))


def test_table_of_other_tools_is_the_stored_one() -> None:
    rows = printed_rows("transfer_peers", runs_on_xeon("transfer_peers"), runs_on_xeon("transfer"))
    assert table("docs/transfer.md", "| tool | clothing-96px |") == rows


# docs/export.md and docs/serve.md.


def test_tables_of_deployment_are_the_stored_ones() -> None:
    assert table("docs/export.md", "| how it runs |") == printed_rows("deploy", results("deploy")["runs"])
    assert table("docs/serve.md", "| model | clients |") == printed_rows("serve", results("serve")["runs"])


def test_table_of_other_data_sets_is_the_stored_one() -> None:
    assert table("docs/unfamiliar.md", "| run | images |") == printed_rows("unfamiliar", results("unfamiliar")["runs"])


# docs/explanations.md.


def test_table_of_explanations_is_the_stored_one() -> None:
    runs = module("explain").stored_runs()
    assert runs.keys() == {"mnist", "clothing", "backbone"}
    assert table("docs/explanations.md", "| model | method |") == printed_rows("explain", runs)


def test_figures_of_planted_marks_are_the_stored_ones() -> None:
    models = results("shortcuts")["models"]
    planted = {key: found["moved"][found["planted"]] for key, found in models.items() if "planted" in found}
    signs = {key: share for key, share in planted.items() if key.startswith("sign-digits")}
    digits = {key: share for key, share in planted.items() if key.startswith("mnist")}
    low, high = sorted(share for key, share in digits.items() if models[key]["found"])
    others = max(share for key, share in digits.items() if not models[key]["found"])
    clean = max(max(found["moved"].values()) for key, found in models.items() if key not in planted)
    said = " ".join(text("docs/explanations.md").split())
    assert f"this corner moves {spread(list(signs.values()), '.0%')} of the predictions, and it is reported" in said
    assert f"In two of six models of digits, it moves {low:.0%} and {high:.0%}, and is reported" in said
    assert f"hardly use the glyph, which moves at most {others:.0%}" in said
    assert f"no place moves more than {clean:.0%}" in said
    found = {key for key, each in models.items() if each["found"]}
    assert signs.keys() <= found <= planted.keys()


# docs/speed.md.


def speed_rows(cases: Iterable[str], precision: str) -> list[str]:
    rows = []
    for shown in cases:
        for name, kind in ((f"{shown}: inference", "inference"), ("training step", "training")):
            cell = results("throughput")["cells"][f"{CASES[shown]}, {kind}, {precision}, eager"]
            ratios = [f"{cell['ratios'][peer]:.2f}" for peer in PEERS]
            rows.append(f"| {name} | {' | '.join(ratios)} | {cell['mfu']['vitreous']:.0%} |")
    return rows


def test_speed_table_is_the_stored_one() -> None:
    assert table("docs/speed.md", "| | timm | torchvision |") == speed_rows(CASES, "fp32")


def test_speed_table_of_bf16_is_the_stored_one() -> None:
    small, _, larger, _ = CASES
    assert table("docs/speed.md", "| in bf16 | timm |") == speed_rows((small, larger), "bf16")
    per_s = results("throughput")["cells"][f"{CASES[small]}, training, bf16, eager"]["images_per_s"]
    assert f"{per_s['vitreous']:,.0f} images/s, and timm's {per_s['timm']:,.0f}" in text("docs/speed.md")


def test_profile_table_is_the_stored_one() -> None:
    shares = {case: _profile(case, "vitreous") for case in ("28 px p4 d128 L6", "Ti/16", "S/16")}
    rows = [
        f"| {part} | {' | '.join(f'{sum(share[kind] for kind in kinds):.0%}' for share in shares.values())} |"
        for part, kinds in PARTS.items()
    ]
    assert table("docs/speed.md", "| | 28 px | Ti/16 | S/16 |") == rows


def _profile(case: str, library: str) -> dict[str, float]:
    times = results("anatomy")["cells"][f"{case}, training, fp32, eager"]["ms"][library]
    return {kind: time / sum(times.values()) for kind, time in times.items()}


def test_accuracy_table_is_the_stored_one() -> None:
    rows = []
    for shown, case in (("sign-digits",) * 2, ("clothing-96px",) * 2, ("Fashion-MNIST", "fashion-mnist")):
        runs = [results("time_to_accuracy")["runs"][f"{case}/10/vit_micro/{seed}"] for seed in (0, 1)]
        means = [statistics.mean(run[side]["accuracy"] for run in runs) for side in ("vitreous", "timm")]
        rows.append(f"| {shown} | {means[0]:.1%} | {means[1]:.1%} |")
    assert table("docs/speed.md", "| data | vitreous | timm |") == rows


def sentences() -> Iterator[str]:
    """Yield the fragments of docs/speed.md that must be there, with figures from the results."""
    cells = results("throughput")["cells"]
    compiled, eager = (cells[f"28 px p4 d128 L6, training, fp32, {mode}"] for mode in ("compiled", "eager"))
    yield f"the training step at 28 px is {min(compiled['ratios'].values()):.2f} times as fast"
    rates = [cell["images_per_s"]["vitreous"] for cell in (compiled, eager)]
    yield f"{rates[0]:.0f} images/s compiled, {rates[1]:.0f} in eager mode"
    ahead = 1 - cells["Ti/16, inference, fp32, eager"]["ratios"]["timm"]
    yield f"except that timm's Ti/16 inference is ahead by {ahead:.1%}"
    step_ms = results("anatomy")["cells"]["S/16, training, fp32, eager"]["ms"]
    ours, theirs = (sum(step_ms[name].values()) for name in ("vitreous", "timm"))
    yield f"An S/16 step takes {ours:,.0f} ms in vitreous and {theirs:,.0f} ms in timm"
    yield from _heap_and_import_sentences()
    skipping = [results("skipping")["cases"][f"half of {what}"] for what in ("the paths", "the patches", "both")]
    branches, patches, both = (
        f"{case['ratio']:.1f} times{how} ({word}{spread(case['quartiles'], '.1f')})"
        for case, how, word in zip(skipping, (" as fast", "", ""), ("quartiles ", "", ""), strict=True)
    )
    yield f"whole training steps at 28 px are {branches}; with half of the patches dropped {patches}; with both {both}"
    yield from _data_sentences()
    mild = [results("time_to_accuracy")["runs"][f"{case}/5/vit_micro, scale 0.6/0"]
            for case in ("sign-digits", "fashion-mnist")]  # fmt: skip
    signs, fashion = (f"{run['vitreous']['accuracy']:.1%} and {run['timm']['accuracy']:.1%}" for run in mild)
    yield f"vitreous and timm reach {signs} on sign-digits, and {fashion} on Fashion-MNIST"
    yield from _scaling_sentences()


def _heap_and_import_sentences() -> Iterator[str]:
    small, tiny, large = (results("heap")["cases"][case] for case in ("28 px p4 d128 L6", "Ti/16", "S/16"))
    default, kept = small["as it is"], small["kept"]
    yield (
        f"request {default['page_faults_per_step']:,} pages again, which takes {default['system_ms_per_step']:.0f} ms "
        f"of system time; if the memory is kept, a step requests {kept['page_faults_per_step']} pages and takes "
        f"{kept['system_ms_per_step']:.0f} ms of system time. Training at 28 px is {small['ratio']:.2f} times as fast "
        f"(five rounds, {spread(small['ratios'], '.2f')})"
    )
    yield (
        f"{tiny['ratio']:.2f} for Ti/16 ({spread(tiny['ratios'], '.2f')}) and {large['ratio']:.2f} for S/16 "
        f"({spread(large['ratios'], '.2f')})"
    )
    lines = list(results("imports")["lines"].values())
    yield f"`import vitreous` takes {lines[1]['ratio']:.2f} times as long as `import torch`"
    yield f"`create_model` with everything it needs takes {lines[2]['ratio']:.2f} times as long"
    yield f"reads data {lines[3]['ratio']:.2f} times (quartiles {spread(lines[3]['quartiles'], '.2f')})"


def _data_sentences() -> Iterator[str]:
    sides = results("data")["sides"]
    kept = {
        (side, policy): [sides[side][policy]["times_timm"][f"vitreous {kind}"] for kind in ("mapped", "memory")]
        for side in ("32", "96", "224")
        for policy in ("none", "randaugment")
    }
    small, medium, large = (spread(kept[side, "none"], ".1f") for side in ("32", "96", "224"))
    yield f"{small} times as fast as timm's loader at 32 px, {medium} times at 96 px, and {large} times at 224 px"
    small, medium = (spread(kept[side, "randaugment"], ".1f") for side in ("32", "96"))
    (large,) = {f"{value:.1f}" for value in kept["224", "randaugment"]}
    yield f"with RandAugment {small}, {medium}, and {large} times"
    files = [sides[side][policy]["times_timm"]["vitreous files"] for side, policy in kept]
    yield f"If every file is decoded each time, it is {spread(files, '.1f')} times"


def _scaling_sentences() -> Iterator[str]:
    found = results("scaling")
    model = found["cost_model"]
    yield (
        f"`a` = {1e3 * model['seconds_a_step']:.0f} ms, {model['matrices_gflops_per_s']:.0f} GFLOP/s for matrices and "
        f"{model['attention_gflops_per_s']:.0f} GFLOP/s for attention; its error is {model['median_error']:.0%} at the "
        f"median and {model['largest_error']:.0%} at most. The {1e3 * model['seconds_a_step']:.0f} ms"
    )
    rates = {cell["batch"]: cell["images_per_s"] for cell in found["cells"] if cell["tokens"] == 50}
    yield f"{rates[1]:.0f} images/s with a batch of 1, {rates[16]:.0f} with 16, {rates[256]:.0f} with 256"
    ratio = found["processes"]["2"] / found["processes"]["1"]
    yield f"train the digits {ratio:.2f} times as fast as one process on two cores"


@pytest.mark.parametrize("sentence", list(sentences()), ids=lambda sentence: sentence[:40])
def test_speed_page_has_the_stored_figures(sentence: str) -> None:
    assert sentence in text("docs/speed.md")


def test_closest_peer_is_within_the_noise_in_six_cells() -> None:
    cells = [cell for name, cell in results("throughput")["cells"].items() if name.endswith("fp32, eager")]
    low_and_high = [cell["quartiles"][cell["best_peer"]] for cell in cells]
    assert (sum(low <= 1 <= high for low, high in low_and_high), len(cells)) == (6, 8)
    assert "in six of the eight cells the quartiles of the closest library include 1" in text("docs/speed.md")


# benchmarks/README.md.


def test_parity_table_is_the_stored_one() -> None:
    models = results("parity")["models"]
    is_dinov3 = {True: {}, False: {}}
    for name, found in models["eva"].items():
        is_dinov3["dinov3" in name][name] = found
    groups = {
        "timm `vision_transformer.py`": models["vision_transformer"],
        "timm `deit.py`": models["deit"],
        "timm `eva.py`, DINOv3": is_dinov3[True],
        "timm `eva.py`, others": is_dinov3[False],
        "torchvision": models["torchvision"],
    }
    rows = []
    for name, group in groups.items():
        verdicts = Counter(found["verdict"] for found in group.values())
        counts = [len(group), *(verdicts[verdict] for verdict in ("agrees", "differs", "refused"))]
        largest = max(found.get("difference", 0.0) for found in group.values())
        rows.append(f"| {name} | {' | '.join(map(str, counts))} | {largest:.1e} |")
    assert table("benchmarks/README.md", "| file | models | agree |") == rows


# The checks notice an edited figure.


def test_edited_figure_would_be_noticed() -> None:
    shown = table("README.md", "| command | held-out images |")
    edited = [row.replace("98.8%", "98.9%") for row in shown]
    assert edited != shown
    assert [row for row in front_door_rows() if row in edited] != edited
    for sentence in sentences():
        page = text("docs/speed.md")
        digit = re.search(r"\d(?=[^\d]*$)", sentence)
        assert digit
        other = sentence[: digit.start()] + str((int(digit[0]) + 1) % 10) + sentence[digit.end() :]
        assert sentence not in page.replace(sentence, other)
