"""Trained models -> how faithful each explanation is, by the methods of vitreous, Captum and pytorch-grad-cam.

    python benchmarks/explain.py --data ../shared/data --clothing runs/clothing --backbone dinov2-small
    python benchmarks/explain.py --data ../shared/data --only mnist --images 50
    python benchmarks/explain.py --table                        prints the stored rows, and writes them into the docs

Three models are checked as `vitreous explain RUN --check` does it, all methods on the same held-out images:

* mnist: a published Vision Transformer that other code has trained, on the MNIST test images;
* clothing: a run of `vitreous train clothing-96px`, given by --clothing, on its held-out images;
* backbone: weights given by --backbone, at 98 px with a head that is fitted to the training photos of clothing-96px, on
  its test photos.

Peers take part if they are installed. Captum's integrated gradients use 32 steps. pytorch-grad-cam takes the norm
before the last attention, as its documentation advises for Vision Transformers. The code of Chefer et al. 2021
(2012.09838) is not compared, because it runs only its own model class.

Results go to benchmarks/results/HARDWARE/explain.json; a model that is already there is skipped. The table has the
models of all machines. Finished batches of images are kept, so the same command continues after an interruption.
"""

import argparse
import hashlib
import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce

import vitreous as vt
from parity import define_missing_operators
from results import RESULTS, command_line, results_file
from vitreous.cli.screen import duration
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.loader import EvalLoader
from vitreous.data.pixels.store import load_store
from vitreous.data.sources import ArraySource, Source, open_source
from vitreous.data.sources.named import idx
from vitreous.model.weights.native import fingerprint
from vitreous.training.folder.records import Listener
from vitreous.training.weights.fitted_head import fit_head
from vitreous.use.embed.embedder import Embedder
from vitreous.use.evaluate.labeled_images import LabeledImages, labeled_images
from vitreous.use.explain.check.compare import BatchCurves, compare
from vitreous.use.explain.check.protocols import Curves
from vitreous.use.explain.methods import METHODS, Method
from vitreous.use.explain.relevance import Relevance, summed_by_token
from vitreous.use.explain.sample import Sample
from vitreous.use.explain.target import Target
from vitreous.use.predict.predictor import Predictor

DOCUMENT = Path(__file__).parents[1] / "docs" / "explanations.md"
HEADING = "| model | method |"
MODELS = ("mnist", "clothing", "backbone")
SHOWN = ("removal", "flipping", "positive", "negative", "insertion", "deletion", "shapley")
Subject = tuple[Predictor, LabeledImages]


def mnist(options: argparse.Namespace) -> Subject:
    """Return the published model and the MNIST test images."""
    file, folder = options.data / "weights" / "mnist-vit" / "vit_mnist_gpu.pt", options.data / "mnist"
    model = vt.load_model(file, architecture={"num_heads": 4, "head_dim": 64, "act": "relu"}).eval()
    images, labels = (
        idx.parse(idx.unpack((folder / f"t10k-{name}-ubyte.gz").read_bytes(), name), name)
        for name in ("images-idx3", "labels-idx1")
    )
    classes = tuple(map(str, range(10)))
    source = ArraySource(
        name="mnist",
        classes=classes,
        labels=labels.astype(np.int64),
        splits=np.full(len(labels), "test"),
        images=images,
    )
    return predictor_of(model, Preprocess((28, 28), 1, mean=(0.1307,), std=(0.3081,)), classes), whole(source)


def clothing(options: argparse.Namespace) -> Subject:
    """Return a run and its held-out images."""
    predictor = Predictor.load(options.clothing)
    return predictor, labeled_images(options.clothing, predictor)


def backbone(options: argparse.Namespace) -> Subject:
    """Return weights with a fitted head, and the test photos of clothing-96px."""
    source = open_source(str(options.data / "clothing-96px"))
    embedder = Embedder.load(options.backbone, img_size=(98, 98))
    store = load_store(source, np.flatnonzero(source.splits == "train"), embedder.preprocess)
    loader = EvalLoader(store, embedder.preprocess, 64)
    features, labels = [], []
    with torch.inference_mode():
        for batch in loader:
            features.append(embedder.model.pooled(batch.images))
            labels.append(batch.labels)
    model = embedder.model
    model.reset_classifier(len(source.classes))
    fit_head(torch.cat(features), torch.cat(labels), len(source.classes), np.arange(sum(map(len, labels)))).copy_into(
        model.head
    )
    return predictor_of(model.eval(), embedder.preprocess, source.classes), whole(source)


def predictor_of(model: Any, preprocess: Preprocess, classes: tuple[str, ...]) -> Predictor:
    """Return a model as if it came from a run."""
    return Predictor(model, preprocess, classes, temperature=1.0, metadata={})


def whole(source: Source) -> LabeledImages:
    """Return the test images of a source whose classes are those of the model."""
    numbers = torch.arange(len(source.classes))
    return LabeledImages(f"{source.name}, test split", source, np.flatnonzero(source.splits == "test"), numbers, False)


# Peers: (model, images, target) -> Relevance, as the methods of vitreous.


def captum_ig(model: Any, images: torch.Tensor, target: Target) -> Relevance:
    """Run Captum's integrated gradients and sum the values of each patch."""
    from captum.attr import IntegratedGradients

    classes = target.fixed(model(images).detach()).classes
    found = IntegratedGradients(model).attribute(images, target=classes, n_steps=32, internal_batch_size=len(images))
    return Relevance(summed_by_token(model.tokenizer, found.float().detach()))


def grad_cam_peer(model: Any, images: torch.Tensor, target: Target) -> Relevance:
    """Run pytorch-grad-cam and average the pixels of each patch."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    rows, columns = model.tokenizer.grid_size(images)

    def layout(tokens: torch.Tensor) -> torch.Tensor:
        return rearrange(tokens[:, model.num_prefix_tokens :], "b (h w) d -> b d h w", h=rows, w=columns)

    classes = target.fixed(model(images).detach()).classes
    images = images.detach().requires_grad_()  # the weights do not require gradients
    layers = [model.encoder.blocks[-1].norm1]
    with torch.enable_grad(), GradCAM(model=model, target_layers=layers, reshape_transform=layout) as cam:
        found = cam(input_tensor=images, targets=[ClassifierOutputTarget(int(number)) for number in classes])
    return Relevance(reduce(torch.from_numpy(found).float(), "b (h p) (w q) -> b h w", "mean", h=rows, w=columns))


PEERS = {
    "captum-ig": ("captum", Method(captum_ig, "integrated gradients (Captum)", "", passes=66.0)),
    "peer-grad-cam": ("pytorch_grad_cam", Method(grad_cam_peer, "Grad-CAM (pytorch-grad-cam)", "", passes=3.0)),
}
"""Package and method; pytorch-grad-cam differentiates the whole model twice as often as needed."""


def methods() -> Iterator[tuple[str, Method]]:
    """Yield the methods of vitreous, and those of the peers that are installed; list the others."""
    yield from METHODS.items()
    for name, (package, method) in PEERS.items():
        if importlib.util.find_spec(package) is None:
            print(f"{method.label}: missing, {package} is not installed", flush=True)
        else:
            yield name, method


def check(name: str, subject: Subject, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Check a model. Finished batches are in `folder`, so that an interrupted check continues with the next one."""
    predictor, images = subject
    num_patches = predictor.model.config.num_patches
    chosen = {key: method for key, method in methods() if method.cost(num_patches) <= options.most_passes}
    sample = Sample.draw(images, predictor, options.images, fewest=10)
    settings = json.dumps([name, sample.paths, list(chosen), fingerprint(predictor.model)])
    parts = folder / hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()
    parts.mkdir(parents=True, exist_ok=True)

    def once(number: int, compute: Callable[[], BatchCurves]) -> BatchCurves:
        file = parts / f"{number}.pt"
        if not file.is_file():
            found = {key: {of: tuple(each) for of, each in curves.items()} for key, curves in compute().items()}
            torch.save(found, file.with_suffix(".tmp"))
            file.with_suffix(".tmp").rename(file)
        stored = torch.load(file, weights_only=True)
        return {key: {of: Curves(*each) for of, each in curves.items()} for key, curves in stored.items()}

    result = compare(sample, chosen, once=once, listener=progress(name))
    print(f"{name}: {' '.join(result.sentences)}", flush=True)
    return {"command": command_line(), **result.as_dict()}


def progress(name: str) -> Listener:
    """Return a listener that prints the expected time, and about once a minute the time that is left."""
    began: list[tuple[float, int]] = []
    said = [0.0]

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if kind == "expected":
            print(f"{name}: {fields['text']}, about {duration(fields['seconds'])}", flush=True)
        elif kind == "reading" and fields["what"] == "checking methods":
            began.append((now, fields["done"]))
            done = fields["done"] - began[0][1]
            if done and now - said[0] > 60:
                said[0] = now
                left = duration((now - began[0][0]) / done * (fields["total"] - fields["done"]))
                print(f"{name}: {fields['done']} of {fields['total']} images, {left} left", flush=True)

    return listen


def stored_runs() -> dict[str, dict]:
    """Return the runs of all machines by model; of one model, the run with the most images."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*/explain.json"))]
    runs = [each for stored in files for each in stored["runs"].items()]
    return dict(sorted(runs, key=lambda each: each[1]["num_images"]))


def table_rows(runs: dict[str, dict]) -> list[str]:
    """Return the rows of docs/explanations.md; the best method of each column is bold."""
    rows = []
    for model in (name for name in MODELS if name in runs):
        for found in runs[model]["methods"].values():
            cells = []
            for measure in SHOWN:
                measured = found["measured"][measure]
                score = measured["score"]
                text = f"{score['mean']:.2f} ± {(score['high'] - score['low']) / 2:.2f}"
                cells.append(f"**{text}**" if measured["below_best"] is None else text)
            rows.append(f"| {model} | {found['label']} | {' | '.join(cells)} |")
    return rows


def fill_document(rows: list[str]) -> None:
    """Replace the rows of the table in docs/explanations.md."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(HEADING)) + 2
    end = next((n for n, line in enumerate(lines[start:], start) if not line.startswith("|")), len(lines))
    DOCUMENT.write_text("\n".join([*lines[:start], *rows, *lines[end:]]) + "\n", encoding="utf-8")


def main() -> None:
    """Check the models that are given and not stored yet, then print the table and write it into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds weights/mnist-vit, mnist and clothing-96px")
    parser.add_argument("--clothing", type=Path, help="a finished run on clothing-96px")
    parser.add_argument("--backbone", help="weights for a fitted head, such as a folder or a name")
    parser.add_argument("--only", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--most-passes", type=float, default=2_000, help="leave out methods that cost more per image")
    parser.add_argument("--table", action="store_true", help="only print and write what is stored")
    options = parser.parse_args()
    define_missing_operators()  # pytorch-grad-cam imports torchvision
    path, stored = results_file("explain")
    runs = stored.setdefault("runs", {})
    given = {"mnist": options.data, "clothing": options.clothing, "backbone": options.data and options.backbone}
    for name in () if options.table else options.only:
        if name in runs or not given[name]:
            print(f"{name}: {'stored' if name in runs else 'not given, skipped'}", flush=True)
            continue
        subject = {"mnist": mnist, "clothing": clothing, "backbone": backbone}[name](options)
        runs[name] = check(name, subject, options, path.with_suffix(".parts"))
        path.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        shutil.rmtree(path.with_suffix(".parts"))
    rows = table_rows(stored_runs())
    fill_document(rows)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
