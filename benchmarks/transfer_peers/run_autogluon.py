"""Photos -> predictions of AutoGluon's `MultiModalPredictor`.

The calls are those of "AutoMM for Image Classification - Quick Start"
(https://auto.gluon.ai/stable/tutorials/multimodal/image_prediction/beginner_image_cls.html) with its `time_limit`, and
the name of the weights is set as in "Customize AutoMM"
(https://auto.gluon.ai/stable/tutorials/multimodal/advanced_topics/customization.html). AutoGluon trains in float32 if
there is no GPU. The validation images are its `tuning_data`, with which it selects and averages checkpoints.
"""

import time

from job import IMG_SIZE, read_job

AFTER_TRAINING = 0.2
"""Share of the time that remains for averaging checkpoints and for the predictions."""


def main() -> None:
    """Fit for most of the time, then predict the validation and test images."""
    began = time.perf_counter()
    job = read_job()
    import autogluon.multimodal
    import pandas as pd
    from autogluon.multimodal import MultiModalPredictor

    tables = {
        split: pd.DataFrame([{"image": str(path), "label": path.parent.name} for path in job.files(split)])
        for split in ("train", "val", "test")
    }
    predictor = MultiModalPredictor(label="label", problem_type="multiclass", path=str(job.out / "run"))
    predictor.fit(
        train_data=tables["train"],
        tuning_data=tables["val"],
        time_limit=(1 - AFTER_TRAINING) * job.seconds - (time.perf_counter() - began),
        seed=job.seed,
        hyperparameters={
            "model.names": ["timm_image"],
            "model.timm_image.checkpoint_name": f"local-dir:{job.weights / 'timm'}",
        },
    )
    held_out = [*job.files("val"), *job.files("test")]
    predicted = predictor.predict(pd.concat([tables["val"], tables["test"]], ignore_index=True)[["image"]])
    settings = {"version": autogluon.multimodal.__version__, "precision": "fp32", "img_size": IMG_SIZE}
    job.finish(dict(zip(held_out, map(str, predicted), strict=True)), settings)


if __name__ == "__main__":
    main()
