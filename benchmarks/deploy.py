"""One run -> how fast eager PyTorch, torch.compile, ONNX Runtime and OpenVINO run it, and how often they agree.

    .venv/bin/python benchmarks/deploy.py runs/photos-1
    .venv/bin/python benchmarks/deploy.py runs/photos-1 --data held-out     more photos than the test images of the run

Needs the extras `export` and `openvino`. Everything answers for the same decoded photos of their own sizes, from gray
levels to probabilities, so times include resizing. The first round compares up to `--images` held-out photos with eager
fp32, photo by photo and in turns; each further round times some of them again. Rounds are stored as they end in
benchmarks/results/HARDWARE/deploy.json, and an interrupted benchmark continues with the next one. Times are medians
over rounds. The goals: at least 4 times the throughput of eager fp32 and 1.5 times that of the best eager bf16, the
same answer for 98% of the photos, and at most one point of accuracy lost, by the upper end of the paired interval.
"""

import argparse
import copy
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from vitreous.threads import let_threads_sleep

let_threads_sleep()  # read by OpenMP when torch is loaded

import torch  # noqa: E402
from torch import nn  # noqa: E402

from results import command_line, results_file  # noqa: E402
from vitreous.model.weights.native import fingerprint  # noqa: E402
from vitreous.training.folder.records import ignore  # noqa: E402
from vitreous.training.folder.run_folder import RunFolder  # noqa: E402
from vitreous.use.export.description import describe  # noqa: E402
from vitreous.use.export.openvino_ir import smaller_ir  # noqa: E402
from vitreous.use.export.photos import draw_photos, find_photos  # noqa: E402
from vitreous.use.export.proof import PYTHON, Answer, Photos, prove, python_answer  # noqa: E402
from vitreous.use.export.quantize import quantized  # noqa: E402
from vitreous.use.export.targets import TARGETS, silent  # noqa: E402
from vitreous.use.predict.predictor import Predictor  # noqa: E402

EAGER = "eager fp32"
BF16 = ("eager bf16, autocast", "eager bf16, weights")
TIMED_IMAGES, CALIBRATION_IMAGES = 40, 64


class InBfloat16(nn.Module):
    """A copy of a model with weights in bfloat16."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).bfloat16()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits in bfloat16."""
        return self.model(images.bfloat16())


def with_autocast(answer: Answer) -> Answer:
    """Return the same under bfloat16 autocast."""

    def wrapped(photos: Photos) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return answer(photos)

    return wrapped


def in_torch(predictor: Predictor) -> dict[str, Answer]:
    """Return how PyTorch answers without any export; compiling happens at the first call."""
    compiled = python_answer(replace(predictor, model=torch.compile(predictor.model, dynamic=True)))
    return {
        BF16[0]: with_autocast(python_answer(predictor)),
        BF16[1]: python_answer(replace(predictor, model=InBfloat16(predictor.model))),
        "torch.compile fp32": compiled,
        "torch.compile bf16, autocast": with_autocast(compiled),
    }


def exported(run: Path, predictor: Predictor, to: str, smaller: Callable[..., Any], folder: Path) -> dict[str, Answer]:
    """Write the run in a format and in its smaller precisions, and return how the files answer."""
    described = describe(predictor, RunFolder(run), run.name)
    written = folder / to / f"float32{TARGETS[to].suffix}"
    written.parent.mkdir()
    answers = {"float32": TARGETS[to].write(predictor, written, described)}
    training = find_photos(run, predictor, None, ignore, "train")
    photos = (photo.pixels[None] for photo in draw_photos(training, predictor, CALIBRATION_IMAGES, ignore))
    with silent():
        answers |= smaller(written, photos, described)
    return {f"{to} {name}": answer for name, answer in answers.items()}


def summary(stored: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each way to run the model: medians over rounds, and which goals it reaches."""
    rounds, proofs = stored["rounds"], stored["proofs"]
    speed = {name: statistics.median(each[name]["images_per_s"] for each in rounds) for name in proofs}
    best_bf16 = max(speed[name] for name in BF16)
    rows = []
    for name, proof in proofs.items():
        row = {
            "name": name,
            "images_per_s": round(speed[name], 2),
            "latency_ms": [
                round(statistics.median(each[name]["latency_ms"][place] for each in rounds), 2) for place in (0, 1)
            ],
            "times_eager_fp32": round(speed[name] / speed[EAGER], 2),
            "times_best_eager_bf16": round(speed[name] / best_bf16, 2),
            "agreement": round(proof["num_same"] / proof["num_images"], 4),
            "drop_points": [round(100 * part, 2) for part in proof["drop"]],
        }
        is_fast = row["times_eager_fp32"] >= 4 and row["times_best_eager_bf16"] >= 1.5
        row["reaches_goals"] = is_fast and row["agreement"] >= 0.98 and row["drop_points"][2] <= 1
        rows.append(row)
    return rows


def table_rows(runs: dict[str, Any]) -> list[str]:
    """Return the rows of docs/export.md, the fastest first; ratios are those of throughput."""
    rows = []
    for stored in runs.values():
        for row in sorted(stored["summary"], key=lambda each: -each["images_per_s"]):
            lost, low, high = (part + 0.0 for part in row["drop_points"])  # not -0.0
            cells = [f"{row['times_eager_fp32']:.1f}", f"{row['times_best_eager_bf16']:.1f}", f"{row['agreement']:.1%}"]
            rows.append(f"| {row['name']} | {' | '.join(cells)} | {lost:.1f} ({low:.1f} to {high:.1f}) |")
    return rows


def main() -> None:
    """Measure the missing rounds, store each, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", help="labeled photos that the run was not trained on; default: its test images")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    path, content = results_file("deploy")
    predictor = Predictor.load(options.run)
    asked = {"weights": fingerprint(predictor.model), "batch_size": options.batch_size}
    asked |= {"data": options.data, "images": options.images}
    runs = content.setdefault("runs", {})
    stored = runs.get(options.run.name, {})
    if stored.get("asked") != asked:
        stored = runs[options.run.name] = {"asked": asked, "command": command_line(), "proofs": {}, "rounds": []}
    images = find_photos(options.run, predictor, options.data, ignore)
    python = python_answer(predictor)
    with tempfile.TemporaryDirectory(prefix="vitreous-deploy-") as folder:
        answers = in_torch(predictor) if len(stored["rounds"]) < options.rounds else {}
        for to, smaller in (("onnx", quantized), ("openvino", smaller_ir)) if answers else ():
            print(f"writing {to}", flush=True)
            answers |= exported(options.run, predictor, to, smaller, Path(folder))
        while len(stored["rounds"]) < options.rounds:
            most = TIMED_IMAGES if stored["proofs"] else options.images
            photos = islice(draw_photos(images, predictor, options.images, ignore), most)
            tried = prove(answers, python, photos, predictor.thresholds, options.batch_size)
            found = {EAGER if name == PYTHON else name: asdict(proof) for name, proof in tried.items()}
            stored["proofs"] = stored["proofs"] or found
            stored["rounds"].append({
                name: {key: proof[key] for key in ("latency_ms", "images_per_s")} for name, proof in found.items()
            })  # fmt: skip
            stored["summary"] = summary(stored)
            path.write_text(json.dumps(content, indent=1) + "\n")
            print(f"round {len(stored['rounds'])} of {options.rounds}", flush=True)
    print("\n".join(table_rows({options.run.name: stored})))


if __name__ == "__main__":
    main()
