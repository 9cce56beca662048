"""Photos -> predictions of scikit-learn's logistic regression on features of the frozen weights.

Features: `pooler_output` of transformers' `Dinov2Model`, the normalized class token, as the guide "Image Feature
Extraction" (https://huggingface.co/docs/transformers/tasks/image_feature_extraction) computes them, in bf16.
Classifier: `make_pipeline(StandardScaler(), LogisticRegression())` of the page "Getting Started"
(https://scikit-learn.org/stable/getting_started.html). Only `max_iter` is raised, until it converges.
"""

from pathlib import Path

import numpy as np
import sklearn
import torch
from job import Job, read_job

BATCH_SIZE = 32


def features(job: Job, files: list[Path]) -> np.ndarray:
    """Return the features of the images, `[n, 384]`."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(job.weights / "hf")
    model = AutoModel.from_pretrained(job.weights / "hf", dtype=torch.float32).eval()
    found = []
    for start in range(0, len(files), BATCH_SIZE):
        images = [Image.open(path).convert("RGB") for path in files[start : start + BATCH_SIZE]]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found.append(model(**processor(images, return_tensors="pt")).pooler_output.float().numpy())
    return np.concatenate(found)


def main() -> None:
    """Fit the classifier to the training images and predict the others."""
    job = read_job()
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, held_out = job.files("train"), [*job.files("val"), *job.files("test")]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=job.seed))
    classifier.fit(features(job, train), [path.parent.name for path in train])
    predicted = classifier.predict(features(job, held_out)).tolist()
    job.finish(
        dict(zip(held_out, predicted, strict=True)),
        {"version": sklearn.__version__, "precision": "bf16", "training": "frozen weights"},
    )


if __name__ == "__main__":
    main()
