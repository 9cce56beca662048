"""Photos -> predictions of fastai's `fine_tune`.

The lines are those of the "Computer vision intro" (https://docs.fast.ai/tutorial.vision.html), with a model of timm
(https://docs.fast.ai/vision.learner.html#timm-models) instead of `resnet34`: one epoch with frozen weights, then
`epochs` with all of them, at the rates that fastai chooses. fastai's `to_bf16` needs CUDA, so it trains in float32.
"""

from job import IMG_SIZE, read_job


def main() -> None:
    """Fine-tune, then predict the validation and test images."""
    job = read_job()
    import fastai
    from fastai.vision.all import ImageDataLoaders, Resize, aug_transforms, error_rate, set_seed, vision_learner

    set_seed(job.seed)
    loaders = ImageDataLoaders.from_folder(
        job.photos, train="train", valid="val", item_tfms=Resize(IMG_SIZE), batch_tfms=aug_transforms()
    )
    learner = vision_learner(loaders, f"local-dir:{job.weights / 'timm'}", metrics=error_rate, path=job.out)
    with learner.no_bar():
        learner.fine_tune(int(job.epochs))
        files = [*job.files("val"), *job.files("test")]
        probabilities, _ = learner.get_preds(dl=loaders.test_dl(files))
    names = [str(name) for name in loaders.vocab]
    predicted = {path: names[number] for path, number in zip(files, probabilities.argmax(1).tolist(), strict=True)}
    job.finish(predicted, {"version": fastai.__version__, "precision": "fp32", "img_size": IMG_SIZE})


if __name__ == "__main__":
    main()
