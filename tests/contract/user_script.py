"""A program of a user -> nothing: type checkers read it, and it is never run."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import vitreous as vt
from vitreous.errors import VitreousError
from vitreous.model import VisionTransformer


class Photos(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Random images of two classes."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.zeros(3, 16, 16), index % 2


def train() -> vt.Run:
    """Train in each way that returns a run or a series."""
    series: vt.Series = vt.train("digits", folds=5, budget="10m")
    more: list[vt.Run] = vt.train(Path("photos"), seeds=3, config={"optim.lr": 1e-3}).runs
    resumed: vt.Run | vt.Series = vt.train(resume="runs/photos-1")
    compared = vt.compare(more[0], "runs/photos-1")
    print(series.accuracy, resumed, compared)
    return vt.train((Photos(), Photos()), epochs=3, img_size=(16, 16))


def use(run: vt.Run) -> list[str]:
    """Use a run in each way that it offers."""
    try:
        predictions = run.predict(["a.jpg", Path("b.jpg")], coverage=0.9)
    except VitreousError as error:
        return [str(error)]
    accuracy: float = run.accuracy
    vectors: np.ndarray = run.embed("photos").vectors
    run.explain("a.jpg", versus="dog")[0].save("why.png")
    run.export("onnx", "model.onnx", int8=True)
    print(accuracy, vectors.shape, run.evaluate("photos").accuracy, run.robustness())
    return [f"{found.label} {found.probability:.1%}" for found in predictions]


def model() -> Tensor:
    """Create, load and call models."""
    loaded: VisionTransformer = vt.load_model("weights.safetensors", num_classes=5)
    created = vt.create_model("vit_small_patch16_224", num_classes=5, qk_norm=True)
    features: Tensor = loaded.forward_features(torch.zeros(1, 3, 224, 224))
    logits: Tensor = created(torch.zeros(1, 3, 224, 224))
    return logits + features.mean()


def classify(images: np.ndarray, labels: np.ndarray) -> float:
    """Use scikit-learn's interface."""
    classifier: vt.VitreousClassifier = vt.VitreousClassifier(epochs=3, image_shape=(8, 8)).fit(images, labels)
    probabilities: np.ndarray = classifier.predict_proba(images)
    return float(probabilities.max())
