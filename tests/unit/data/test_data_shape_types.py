import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

SCRIPT = """
import sys
from jaxtyping import install_import_hook

with install_import_hook("vitreous", "beartype.beartype"):
    from vitreous.data.build import build_augment, build_mix, sampling_weights
    from vitreous.data.config import DataConfig
    from vitreous.data.survey.facts import survey
    from vitreous.data.loader import EvalLoader, Prefetcher, TrainLoader
    from vitreous.data.decoding.preprocess import Preprocess
    from vitreous.data.sources import ArraySource, open_source
    from vitreous.data.pixels.store import load_store, measure_mean_std

from dataclasses import replace
import numpy as np
import pytest
import torch

labels = np.arange(60, dtype=np.int64) % 3
gray = ArraySource(name="gray", classes=("a", "b", "c"), labels=labels, splits=np.array([""] * 60),
                   images=np.random.default_rng(0).integers(0, 256, (60, 6, 8), dtype=np.uint8))
for source in (open_source(sys.argv[1]), gray):
    settings = dict(flip=True, min_crop_area=0.5, max_shift=0.1, max_rotate_deg=9.0, max_scale=0.7, erase_rate=0.5,
                    color_jitter=0.3, mixup_alpha=0.8, cutmix_alpha=1.0, mix_per="pair", sampler="balanced", repeats=2)
    config = DataConfig(source="x", img_size=(8, 10), in_chans=3, num_classes=10, batch_size=7, **settings)
    surveyed = survey(source, progress=lambda done, total: None)
    survey(source, num_folds=3, fold=1)
    preprocess = Preprocess(config.img_size, config.in_chans, config.fit)
    for limit in (None, 0):
        store = load_store(surveyed.source, surveyed.indices["train"], preprocess, memory_limit_bytes=limit).to("cpu")
        mean, std = measure_mean_std(store)
        preprocess = Preprocess.from_dict(replace(preprocess, mean=mean, std=std).as_dict())
        weights = sampling_weights(config, store.labels.numpy())
        for policy in ("randaugment", "trivialaugment", "3-augment"):
            augment = build_augment(replace(config, policy=policy))
            loader = TrainLoader(store, preprocess, augment, config.batch_size, 3, weights, config.repeats)
            with Prefetcher(loader) as prefetcher:
                batch = prefetcher.batch(2)
            build_mix(config)(batch.images, batch.labels, 5)
        next(iter(EvalLoader(store, preprocess, config.batch_size)))
with pytest.raises(Exception, match="pixels"):
    preprocess.normalize(torch.zeros(3, 8, 10))
"""


@pytest.mark.slow
def test_tensors_have_their_annotated_shapes_and_types_at_run_time(
    make_folder: Callable[[Mapping[str, int]], Path],
) -> None:
    root = make_folder({"cat": 30, "dog": 25})
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
