"""Photos -> predictions of LightlyTrain's `train_image_classification`.

The call is that of its page about image classification
(https://docs.lightly.ai/train/stable/image_classification.html). Batch size, learning rate and transforms stay as they
are, except the image size; `steps` and `backbone_weights` are arguments of the page "Train Settings". Its ViT-S/14 has
registers, which the weights do not have, so it is built without them. The checkpoint with the best validation accuracy
is kept.

LightlyTrain has the AGPL license. This program runs as a process of its own, in an environment that only it uses; no
part of vitreous imports it.
"""

from importlib import metadata

from job import IMG_SIZE, read_job

BATCH_SIZE = 16
"""LightlyTrain's default, to convert epochs to its `steps`."""


def main() -> None:
    """Fine-tune, then predict the validation and test images."""
    job = read_job()
    import lightly_train

    names = dict(enumerate(job.classes))
    lightly_train.train_image_classification(
        out="run",
        model="dinov2/vits14",
        data={"train": str(job.photos / "train"), "val": str(job.photos / "val"), "classes": names},
        steps=max(1, round(job.epochs * len(job.files("train")) / BATCH_SIZE)),
        seed=job.seed,
        accelerator="cpu",
        transform_args={"image_size": (IMG_SIZE, IMG_SIZE)},
        model_args={"backbone_weights": str(job.weights / "meta.pth"), "backbone_args": {"num_register_tokens": 0}},
    )
    model = lightly_train.load_model("run/exported_models/exported_best.pt")
    files = [*job.files("val"), *job.files("test")]
    predicted = {}
    for start in range(0, len(files), BATCH_SIZE):
        batch = files[start : start + BATCH_SIZE]
        found = model.predict_batch(list(map(str, batch)), topk=1)
        predicted |= {path: names[int(each["labels"][0])] for path, each in zip(batch, found, strict=True)}
    settings = {"version": metadata.version("lightly-train"), "precision": "bf16", "img_size": IMG_SIZE}
    job.finish(predicted, settings)


if __name__ == "__main__":
    main()
