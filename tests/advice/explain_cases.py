"""Cases of `use/explain/` and `vitreous explain`: methods, targets, removal of patches, checks, pictures, pages."""

from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import torch
from tests.advice.run_cases import model_file
from tests.advice.training_cases import fruit
from tests.advice.use_cases import finished
from tests.advice.walk import Refusals, case
from torch import nn

from vitreous.cli.look.explain import check_methods, explain
from vitreous.model.build import build_model
from vitreous.use.evaluate.labeled_images import labeled_images
from vitreous.use.explain.anatomy.anatomy import explain_model, place_of
from vitreous.use.explain.check.checker import check_explanations
from vitreous.use.explain.check.faithfulness import FILE, read_last_check
from vitreous.use.explain.explainer import Explainer
from vitreous.use.explain.methods import DEFAULT, METHODS
from vitreous.use.explain.pictures.files import folder_for, write_explanations
from vitreous.use.explain.removal.exact_shapley import exact_shapley
from vitreous.use.explain.removal.super_tokens import super_tokens
from vitreous.use.explain.sample import Sample
from vitreous.use.explain.target import Target
from vitreous.use.predict.predictor import Predictor
from vitreous.use.run import Run

QUICK = ("rollout", DEFAULT)


@case
def explanation_methods(folder: Path) -> Refusals:
    predictor = Predictor.load(model_file(folder / "model.safetensors"))
    model = predictor.model
    images = torch.randn(2, model.config.in_chans, *model.config.img_size)
    rows, columns = model.config.grid_size
    yield lambda: METHODS[DEFAULT](nn.Linear(2, 2), images), "use one that `load_model` or `create_model` returns"
    assert METHODS[DEFAULT](model, images)
    headless = build_model(model.config)
    headless.reset_classifier(0)
    yield lambda: METHODS[DEFAULT](headless, images), "use a model with classes"
    with torch.inference_mode():
        inside = build_model(model.config)
    yield lambda: METHODS[DEFAULT](inside, images), "make or load it outside"
    assert METHODS[DEFAULT](build_model(model.config), images)
    few = model.config.depth
    for name, wrong, advice, right in (
        ("attention", {"layer": few}, "use 0 to", {"layer": few - 1}),
        ("legrad", {"num_layers": few + 1}, f"use 1 to {few}", {"num_layers": few}),
        ("integrated-gradients", {"steps": 0}, "32 is usual", {"steps": 32}),
        ("occlusion", {"window": 99}, f"use a number from 1 to {min(rows, columns)}", {"window": min(rows, columns)}),
        ("shapley", {"num_permutations": 5}, "use an even number from 4", {"num_permutations": 4}),
    ):
        yield lambda name=name, wrong=wrong: METHODS[name](model, images, **wrong), advice
        assert METHODS[name](model, images, **right)
    yield lambda: super_tokens((rows, columns), (rows + 1, 1)), f"use 1 to {rows} rows"
    assert len(super_tokens((rows, columns), (rows, 1))) == rows * columns
    large = torch.randn(1, model.config.in_chans, *(20 * model.config.patch_size,) * 2)
    with patch.object(type(model.tokenizer), "grid_size", lambda *_: (20, 20)):
        yield lambda: exact_shapley(model, large, cells=(5, 4)), "such as 4x4"
    assert exact_shapley(model, images, cells=(2, 2))


@case
def explanation_targets(folder: Path) -> Refusals:
    logits = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    yield lambda: Target(1, 1).fixed(logits), "choose another class"
    assert Target(1, 2).fixed(logits)
    yield lambda: Target([0, 1, 2]).fixed(logits), "give one number for all images, or one for each"
    assert Target([0, 1]).fixed(logits)
    assert Target(1).fixed(logits)
    yield lambda: Target(torch.tensor([0.5, 1.0])).fixed(logits), "give whole numbers"
    yield lambda: Target(3).fixed(logits), "the model has classes 0 to 2"
    assert Target(2).fixed(logits)


@case
def explained_images(folder: Path) -> Refusals:
    run = Run(finished(folder))
    image = next((folder / "fruit").rglob("*.png"))
    one, other = run.classes[:2]
    model, preprocess = run.model, run.predictor.preprocess
    yield lambda: Explainer.from_model(model, preprocess, ["a"]), "give one name for each class"
    assert Explainer.from_model(model, preprocess, run.classes)
    yield lambda: run.explain(image, "rollouts"), "did you mean rollout?"
    yield lambda: run.explain(image, target=one, versus=one), "choose another class"
    assert run.explain(image, target=one, versus=other)
    yield lambda: run.explain(image, "rollout", target=one), f"use another method, such as {DEFAULT}"
    assert run.explain(image, DEFAULT, target=one)
    yield lambda: run.explain(image, target=one + "s"), f"did you mean {one}?"
    (found,) = run.explain(image)
    yield lambda: found.save(folder / "why.doc"), "use one of ."
    yield lambda: found.save(folder / "none" / "why.png"), "create it first"
    (folder / "none").mkdir()
    found.save(folder / "none" / "why.png")
    yield lambda: folder_for(folder / "none").__enter__(), "choose a new folder"
    yield lambda: folder_for(folder / "none" / "why.png").__enter__(), "choose a new folder"
    yield lambda: write_explanations(folder / "none" / "why.png" / "a" / "b", [found], {}), "choose another folder"
    with folder_for(folder / "new") as new:
        assert write_explanations(new, [found], {})


@case
def explain_options(folder: Path) -> Refusals:
    run = finished(folder)
    image = next((folder / "fruit").rglob("*.png"))
    data, moved = folder / "fruit", model_file(folder / "moved.safetensors")
    with chdir(folder):
        yield lambda: explain(str(run), (image,), num_images=12), "leave it out, or add --check"
        explain(str(run), (image,), device="cpu")
        yield lambda: explain(str(run), (), target="kiwi"), "leave it out, or give images"
        explain(str(run), (), device="cpu")
        yield lambda: explain(str(run), (data, data), check=True), "give one folder or table"
        explain(str(run), (data,), check=True, method=DEFAULT, num_images=10, device="cpu")
    yield lambda: check_methods(moved, str(data)), "add --out FOLDER"


@case
def checks_of_explanations(folder: Path) -> Refusals:
    run, data = finished(folder), fruit(folder, "other")
    predictor = Predictor.load(run)
    yield lambda: check_explanations(run, methods=[]), "leave it out to compare all"
    yield lambda: check_explanations(run, methods=QUICK, num_images=3), "or more"
    small = folder / "small"
    for path in sorted(data.glob("*/0.png")):
        (small / path.parent.name).mkdir(parents=True)
        (small / path.parent.name / path.name).write_bytes(path.read_bytes())
    yield lambda: check_explanations(run, str(small), methods=QUICK), "give a folder or table with more labeled images"
    found = check_explanations(run, str(data), methods=QUICK, num_images=10)
    found.save(run)
    assert read_last_check(run, predictor.model)
    written = (run / FILE).read_bytes()
    advice = f"repeat `vitreous explain {run} --check`"
    (run / FILE).write_bytes(b" " * (1 << 28))
    yield lambda: read_last_check(run, predictor.model), advice
    (run / FILE).write_bytes(written[:-100])
    yield lambda: read_last_check(run, predictor.model), advice
    (run / FILE).unlink()
    assert read_last_check(run, predictor.model) is None


@case
def looks_into_a_model(folder: Path) -> Refusals:
    run, data = finished(folder), fruit(folder, "other")
    moved = model_file(folder / "moved.safetensors")
    yield lambda: place_of(moved, None), "give a folder for the page"
    assert place_of(moved, folder / "page") == folder / "page"
    predictor = Predictor.load(run)
    contents = {path: path.read_bytes() for path in data.glob("*/*.png")}
    for path in contents:
        path.write_bytes(contents[path][:-60])
    images = labeled_images(run, predictor, str(data))
    yield lambda: Sample.draw(images, predictor, 9), "check them with `vitreous inspect`"
    *others, last = contents
    for path in others:
        path.write_bytes(contents[path])
    count = len(contents)
    yield lambda: Sample.draw(images, predictor, count, fewest=count), "check them with `vitreous inspect`"
    last.write_bytes(contents[last])
    assert len(Sample.draw(images, predictor, count, fewest=count)) == count
    assert explain_model(run, str(data))
