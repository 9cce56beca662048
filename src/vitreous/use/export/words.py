"""Proofs of exported files -> a table and a sentence, for the screen and for the report."""

from collections.abc import Iterator, Mapping
from typing import Any

from vitreous.use.evaluate.paired import points
from vitreous.use.export.hub.library import LIBRARIES
from vitreous.use.export.proof import PYTHON
from vitreous.wording import plural


def proof_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the names of the columns, and a row for each file that was tried, from `Export.as_dict`."""
    yield "", "same answer", "largest difference", "accuracy (95% interval)", "drop in points", "ms", "photos/s", "MB"
    for name, proof in found["tried"].items():
        (low, high), is_page = proof["interval_95"], found["to"] == "html" and name != PYTHON
        yield (
            name,
            f"{proof['num_same']:,} of {proof['num_images']:,}",
            f"{proof['largest_difference']:.2g}",
            f"{proof['accuracy']:.1%} ({low:.1%} to {high:.1%})",
            "{:.1f} ({:.1f} to {:.1f})".format(*(100 * part for part in proof["drop"])),
            "" if is_page else "{:.1f}, 95% below {:.1f}".format(*proof["latency_ms"]),
            "" if is_page else f"{proof['images_per_s']:,.0f}",
            f"{proof['size_bytes'] / 1e6:.1f}" if proof["size_bytes"] else "",
        )


def speed_rows(measured: Mapping[str, Mapping[str, Any]], batch_size: int) -> Iterator[tuple[str, ...]]:
    """Yield the names of the columns, and a row for each of some models that were compared with the first one."""
    per_s = f"photos/s in batches of {batch_size}"
    yield "", "ms for 1 photo", "95% below", per_s, "times as fast", "MB", "same answer", "largest difference"
    speed = next(iter(measured.values()))["images_per_s"]
    for name, proof in measured.items():
        yield (
            name,
            *(f"{time_ms:.1f}" for time_ms in proof["latency_ms"]),
            f"{proof['images_per_s']:,.1f}",
            f"{proof['images_per_s'] / speed:.2f}",
            f"{proof['size_bytes'] / 1e6:.1f}",
            f"{proof['num_same']:,} of {proof['num_images']:,}",
            f"{proof['largest_difference']:.2g}",
        )


def proof_sentence(found: Mapping[str, Any]) -> str:
    """Say what was proven of the file that was kept."""
    proof, variant = found["tried"][found["variant"]], found["variant"]
    library = LIBRARIES.get(found["to"])
    how = f"opened by {library} with its own preprocessing, " if library else ""
    same = (
        f"{how}predicts the same as Python for {proof['num_same']:,} of {plural(proof['num_images'], 'photo')} "
        f"({found['data']}); probabilities differ by at most {proof['largest_difference']:.2g}"
    )
    if (compared := proof.get("unfamiliar")) is not None:  # missing in files of earlier versions
        share = f"{compared[0]:,} of {proof['num_images']:,}"
        same += f"; the flag of photos unlike the training images is the same for {share}"
    return same if variant == "float32" else f"{variant}, {same}; drop in accuracy: {points(proof['drop'])}"
