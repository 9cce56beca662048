"""`vitreous shard` -> tar files in WebDataset's layout."""

from pathlib import Path

from vitreous.cli.options import AsJson, Count
from vitreous.cli.screen import Screen, print_json
from vitreous.data.sources import open_source
from vitreous.data.sources.shards.writer import MAX_BYTES, MAX_SAMPLES, write_shards
from vitreous.paths import expanded
from vitreous.training.machine.signals import listen_for_stop
from vitreous.wording import plural


def shard(
    data: str,
    out: Path,
    /,
    *,
    max_samples: Count = MAX_SAMPLES,
    max_bytes: Count = MAX_BYTES,
    root: str | None = None,
    as_json: AsJson = False,
) -> None:
    """Write labeled images into tar files that this and other programs can stream; the images' bytes are unchanged.

    Args:
        data: A folder, table or named data set.
        out: The folder to create; it appears once everything is written.
        max_samples: Largest number of images in one tar file.
        max_bytes: Largest size of one tar file.
        root: The folder of the images of a table or an export; default: that of the file.
        as_json: Print one JSON document instead of text.
    """
    with Screen(stderr=as_json) as screen, listen_for_stop() as stop:

        def progress(done: int, total: int) -> None:
            if stop.signal_number:
                raise KeyboardInterrupt(f"{out}: stopped, and the unfinished folder was removed; run the command again")
            screen.listen("reading", {"what": "writing", "done": done, "total": total})

        source = open_source(data, root)
        found = write_shards(source, expanded(out), max_samples=max_samples, max_bytes=max_bytes, progress=progress)
    if as_json:
        print_json({
            "path": str(found.path), "num_samples": found.num_samples, "size_bytes": found.size_bytes,
            "shards": found.shards, "skipped": found.skipped, "notes": source.notes,
        })  # fmt: skip
        return
    for split, files in found.shards.items():
        last = f" to {files[-1]}" if len(files) > 1 else ""
        screen.say(f"{split}: {files[0]}{last}")
    screen.say_notes(source.notes)
    screen.listen("skipped", {"skipped": found.skipped})
    num_files = sum(map(len, found.shards.values()))
    text = f"{plural(found.num_samples, 'image')} in {plural(num_files, 'tar file')}, {found.size_bytes / 1e6:,.1f} MB"
    screen.say(f"{found.path}: {text}", style="bold green")
