"""Photos -> predictions of transformers, fine-tuned with its `Trainer`.

Transforms and arguments are those of the example for image classification and its README:
https://github.com/huggingface/transformers/tree/main/examples/pytorch/image-classification
The script itself cannot run here: it loads its metric, the accuracy, from a hub. bf16 on a CPU is documented in
https://huggingface.co/docs/transformers/perf_train_cpu. The epoch with the best validation accuracy is kept: its
checkpoint is opened with `from_pretrained`, because `Trainer` 5.24 does not restore the attention weights of DINOv2.
"""

from pathlib import Path
from typing import Any

import numpy as np
from job import IMG_SIZE, Job, read_job

ARGUMENTS = {"learning_rate": 2e-5, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "bf16": True}


def datasets(job: Job) -> tuple[Any, Any]:
    """Return functions that read training images, augmented, and other images, as pairs of `Trainer`."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import (
        CenterCrop,
        Compose,
        Normalize,
        RandomHorizontalFlip,
        RandomResizedCrop,
        Resize,
        ToTensor,
    )
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(job.weights / "hf")
    last = [ToTensor(), Normalize(mean=processor.image_mean, std=processor.image_std)]
    train = Compose([RandomResizedCrop(IMG_SIZE), RandomHorizontalFlip(), *last])
    other = Compose([Resize(IMG_SIZE), CenterCrop(IMG_SIZE), *last])
    return (
        ImageFolder(job.photos / "train", transform=train),
        {split: ImageFolder(job.photos / split, transform=other) for split in ("val", "test")},
    )


def collate(examples: list[tuple[Any, int]]) -> dict[str, Any]:
    """Return a batch under the names that the model expects."""
    import torch

    images, labels = zip(*examples, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


def main() -> None:
    """Fine-tune, then predict the validation and test images."""
    job = read_job()
    import transformers
    from transformers import AutoModelForImageClassification, Trainer, TrainingArguments

    transformers.set_seed(job.seed)
    train, others = datasets(job)
    names = {number: name for name, number in train.class_to_idx.items()}
    model = AutoModelForImageClassification.from_pretrained(
        job.weights / "hf", id2label=names, label2id=train.class_to_idx
    )
    arguments = TrainingArguments(
        output_dir="run", remove_unused_columns=False, num_train_epochs=job.epochs, seed=job.seed, use_cpu=True,
        eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="accuracy",
        save_total_limit=3, logging_steps=10, report_to="none", disable_tqdm=True, **ARGUMENTS,
    )  # fmt: skip
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=others["val"],
        data_collator=collate,
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
    )
    trainer.train()
    best = AutoModelForImageClassification.from_pretrained(trainer.state.best_model_checkpoint)
    predictor = Trainer(model=best, args=arguments, data_collator=collate, eval_dataset=others["val"])
    predicted = {}
    for dataset in others.values():
        numbers = np.argmax(predictor.predict(dataset).predictions, axis=1)
        predicted |= {Path(path): names[n] for (path, _), n in zip(dataset.samples, numbers, strict=True)}
    settings = {"version": transformers.__version__, "precision": "bf16", "img_size": IMG_SIZE, "flags": str(ARGUMENTS)}
    job.finish(predicted, settings)


if __name__ == "__main__":
    main()
