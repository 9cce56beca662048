"""RunConfig, data facts -> consequences that no single room can see, before any tensor exists.

What cannot work is an error where the config is made (`ModelConfig`, `DataConfig` …); here is what works badly.
"""

from collections.abc import Iterator

from vitreous.data.facts import DataFacts
from vitreous.recipe.run_config import RunConfig

FEW_TOKENS = 16
FEW_TEST_IMAGES = 100


def consequences(config: RunConfig, facts: DataFacts) -> Iterator[str]:
    """Sentences on what the user should expect, most important first."""
    yield from facts.notes
    if facts.skipped:
        yield f"{len(facts.skipped)} files could not be read and are left out; records.jsonl lists them"
    tokens = config.model.num_patches
    if tokens < FEW_TOKENS:
        smaller = max(1, config.model.patch_size // 2)
        yield (
            f"model.patch_size={config.model.patch_size} leaves {tokens} tokens of a "
            f"{config.data.img_size[0]}x{config.data.img_size[1]} px image; accuracy will suffer, "
            f"{smaller} gives {(config.data.img_size[0] // smaller) * (config.data.img_size[1] // smaller)}"
        )
    if 0 < facts.num_test < FEW_TEST_IMAGES:
        half_width = 100 * 0.98 / facts.num_test**0.5
        yield (
            f"the test has {facts.num_test} images only: its accuracy is uncertain by up to ±{half_width:.0f} points; "
            f"compare models by more than that, or collect more images"
        )
    if facts.num_test == 0:
        yield "there are no test images: the final accuracy is that of the validation images, or unknown"
    if config.data.batch_size > facts.num_train:
        yield f"data.batch_size={config.data.batch_size} is more than the {facts.num_train} images: one step an epoch"
