"""Photos -> predictions of timm, fine-tuned by its `train.py` and predicted by its `inference.py`.

    git clone --branch v1.0.28 https://github.com/huggingface/pytorch-image-models

timm's documentation asks users to adapt `train.py` (https://huggingface.co/docs/timm/quickstart) and gives no flags for
fine-tuning. The flags are those with which timm's author fine-tuned a ViT with patches of 14 px at 224 px:
https://huggingface.co/timm/vit_large_patch14_clip_224.laion2b_ft_in1k/blob/main/train_args.yaml
They lack what needs more steps than fit the time: its weight average (decay 0.9997) and its epochs of warm-up. Weights
are in a folder that https://huggingface.co/docs/timm/hf_hub names by `local-dir:`. `train.py` keeps the epoch with the
best validation accuracy.
"""

import csv
import runpy
import sys
from pathlib import Path

from job import IMG_SIZE, Job, read_job

TRAINING = [
    *("--opt", "adamw", "--lr", "6e-5", "--min-lr", "5e-7", "--layer-decay", "0.8", "--weight-decay", "0.05"),
    *("--sched", "cosine", "--warmup-epochs", "0", "--batch-size", "64", "--clip-grad", "5.0", "--drop-path", "0.1"),
    *("--aa", "rand-m9-n3-inc1-mstd101", "--color-jitter", "0.4"),
]
MACHINE = ["--device", "cpu", "--amp", "--amp-dtype", "bfloat16"]
WORKERS = ["--workers", "2"]


def run_script(job: Job, name: str, arguments: list[str]) -> None:
    """Run a script of the checkout as `python NAME ARGUMENTS` does."""
    sys.argv = [name, *arguments]
    sys.path.insert(0, job.source)
    runpy.run_path(str(Path(job.source) / name), run_name="__main__")


def predict(job: Job, split: str, model: list[str]) -> dict[Path, str]:
    """Return the class that the best checkpoint predicts for each image of a split."""
    from timm.data import create_dataset

    table = ["--results-file", f"{split}.csv", "--fullname", "--include-index", "--no-console-results"]
    arguments = ["--data-dir", str(job.photos / split), *table, *model, "--checkpoint", "run/model_best.pth.tar"]
    run_script(job, "inference.py", [*arguments, *MACHINE, *WORKERS])
    numbers = create_dataset("", root=str(job.photos / "train")).reader.class_to_idx
    names = {number: name for name, number in numbers.items()}
    with Path(f"{split}.csv").open(newline="") as file:
        return {job.photos / split / row["filename"]: names[int(row["index"])] for row in csv.DictReader(file)}


def main() -> None:
    """Fine-tune, then predict the validation and test images."""
    job = read_job()
    model = ["--model", f"local-dir:{job.weights / 'timm'}", "--num-classes", str(len(job.classes))]
    data = ["--data-dir", str(job.photos), "--val-split", "val", "--output", ".", "--experiment", "run"]
    length = ["--epochs", str(int(job.epochs)), "--seed", str(job.seed)]
    run_script(job, "train.py", [*data, *model, "--pretrained", *length, *TRAINING, *MACHINE, *WORKERS])
    import timm

    predicted = predict(job, "val", model) | predict(job, "test", model)
    flags = " ".join([*TRAINING, *MACHINE, *WORKERS])
    job.finish(predicted, {"version": timm.__version__, "precision": "bf16", "img_size": IMG_SIZE, "flags": flags})


if __name__ == "__main__":
    main()
