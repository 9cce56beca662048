"""A tar file -> where its images are and their labels; cached for this user if reading it took long.

The layout is that of WebDataset. The key of a member is its path up to the first dot of the file name; what follows the
dot is its extension. Consecutive members with the same key form one sample. Nothing is unpickled, and members with
other extensions are not read.
"""

import hashlib
import json
import sys
import unicodedata
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitreous import atomic
from vitreous.data.sources.image_files import ARRAY_SUFFIXES, IMAGE_SUFFIXES
from vitreous.data.sources.paths import PackedPaths
from vitreous.data.sources.shards.files import LocalShard, ShardFile
from vitreous.data.sources.shards.tar_members import Member, TarMembers
from vitreous.data.sources.source import as_text, first_line
from vitreous.data.sources.spelling import columns_of
from vitreous.errors import DataError, DecodeError, SaveError
from vitreous.paths import cache_folder

MAX_TEXT_BYTES = 256
"""A longer `.cls` or `.txt` is not read as a class."""
MAX_JSON_BYTES = 1 << 20
"""A longer `.json` is not read."""
MAX_EXAMPLES = 3
"""Maximum number of left-out members that are listed per reason; the others are only counted."""

_CACHED_FROM_BYTES = 64 << 20
_FORMAT = 1
_CODE = frozenset({"pkl", "pickle", "pyd", "pth", "pt", "joblib", "dill"})


@dataclass(frozen=True)
class Annotation:
    """The label of an image (class index or name), its group (empty for none), and its weight in the training loss."""

    label: int | str
    group: str = ""
    weight: float = 1.0


@dataclass
class ShardIndex:
    """The images of a shard, in its order.

    All arrays are `[n]`: paths of the images in the tar file, positions of their first bytes, sizes in bytes, labels
    (class indices or class names), groups (empty for none), and weights in the training loss (at least 0). `left_out`
    has, for each reason, how many members or samples were left out, and the first of them.
    """

    names: PackedPaths = field(default_factory=lambda: PackedPaths(Path()))
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    labels: list[int | str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    weights: "array[float]" = field(default_factory=lambda: array("d"))
    left_out: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def add(self, name: str, offset: int, size: int, annotation: Annotation) -> None:
        """Add an image."""
        self.names.append(name)
        self.offsets.append(offset)
        self.sizes.append(size)
        self.labels.append(annotation.label)
        self.groups.append(annotation.group)
        self.weights.append(annotation.weight)

    def leave_out(self, reason: str, which: str, count: int = 1) -> None:
        """Record that something was left out, e.g. `samples without a label are left out`."""
        before, examples = self.left_out.get(reason, (0, []))
        self.left_out[reason] = before + count, [*examples, which][:MAX_EXAMPLES]


def index_shard(shard: ShardFile, *, labeled: bool = True) -> ShardIndex:
    """Read the headers of a tar file. The index of a large or remote file is cached until the file changes.

    Without `labeled`, labels are not read, and images without one are samples too. If the file is damaged, the samples
    before the damage are returned, and `left_out` says so. Raises DataError if the file is not a tar file, is
    compressed, or cannot be read.
    """
    is_cached = bool(shard.tag) and (shard.size >= _CACHED_FROM_BYTES or not isinstance(shard, LocalShard))
    name = hashlib.blake2b(shard.address.encode("utf-8", "replace"), digest_size=16).hexdigest()
    path = index_folder() / f"{name}{'' if labeled else '-images'}.json"
    cached = _read_cached(path, shard) if is_cached else None
    if cached is not None:
        return cached
    where = f"data.source={as_text(shard.address)}"
    try:
        with shard.open() as file:
            index = _scan(TarMembers(file, shard.size, where), labeled=labeled)
    except DataError:
        raise
    except Exception as error:  # each remote file system raises its own types of errors
        raise DataError(f"{where}: cannot be read ({first_line(error)}); check the file and the connection") from error
    if is_cached:
        _write_cached(path, shard, index)
    return index


def index_folder() -> Path:
    """Return the folder of cached indices, which holds one file per shard."""
    return cache_folder() / "shards"


def _scan(members: TarMembers, *, labeled: bool) -> ShardIndex:
    index = ShardIndex()
    for key, by_extension in _samples(members, index):
        suffixes = {extension: f".{extension.rpartition('.')[2]}" for extension in by_extension}
        images = [extension for extension in by_extension if suffixes[extension] in IMAGE_SUFFIXES]
        images = images or [extension for extension in by_extension if suffixes[extension] in ARRAY_SUFFIXES]
        # `0001.jpg` is the image; `0001.mask.png` is something else about it.
        images = [extension for extension in images if "." not in extension] or images
        if not images:
            index.leave_out("samples without an image are left out", key)
            continue
        if len(images) > 1:
            extensions = as_text(", ".join(images[:3]))
            index.leave_out(f"samples with several images ({extensions}) use only the first", key)
        image = by_extension[images[0]]
        try:
            annotation = _annotation(members, by_extension) if labeled else Annotation("")
        except DecodeError as error:
            index.leave_out(f"samples {error} are left out", key)
            continue
        index.add(as_text(image.name), image.offset, image.size, annotation)
    if members.num_special:
        index.leave_out("links, devices and sparse files are left out", "", members.num_special)
    if members.damage:
        index.leave_out("damaged tar files are used up to the damage", members.damage)
    return index


def _samples(members: TarMembers, index: ShardIndex) -> Iterator[tuple[str, dict[str, Member]]]:
    """Yield each sample: its key, and its members by their extension in lower case."""
    current, by_extension = "", dict[str, Member]()
    for member in members:
        slash = member.name.rfind("/") + 1
        dot = member.name.find(".", slash)
        key, extension = member.name[:dot], member.name[dot + 1 :].casefold()
        if dot <= slash or not extension:  # a hidden file, or a file without an extension
            continue
        if extension.rpartition(".")[2] in _CODE:
            index.leave_out("files that could hold code are never opened", as_text(member.name))
            continue
        if key != current and by_extension:
            yield as_text(current), by_extension
            by_extension = {}
        current = key
        if extension in by_extension:
            index.leave_out("repeated files are left out", as_text(member.name))
        else:
            by_extension[extension] = member
    if by_extension:
        yield as_text(current), by_extension


def _annotation(members: TarMembers, by_extension: Mapping[str, Member]) -> Annotation:
    """Read label, group and weight. Raises DecodeError, whose message completes `samples … are left out`."""
    facts = _json(members, by_extension["json"]) if "json" in by_extension else {}
    group, weight = facts.get("group", ""), facts.get("weight", 1.0)
    if not isinstance(weight, int | float) or not 0 <= weight <= sys.float_info.max:
        raise DecodeError("with a weight that is not a number of at least 0")
    label = _label(members, by_extension, facts)
    if isinstance(label, str):
        label = unicodedata.normalize("NFC", label.strip())
    if label == "" or label == -1:
        raise DecodeError("without a label")
    if isinstance(label, int) and not 0 <= label < 1 << 31:
        raise DecodeError("with a label that is not a class index")
    return Annotation(label, _encodable(str(group)) if isinstance(group, str | int) else "", float(weight))


def _label(members: TarMembers, by_extension: Mapping[str, Member], facts: Mapping[str, Any]) -> int | str:
    """Read the label from `.cls`, else from `.json`, else from `.txt`; return an empty string if there is none."""
    if "cls" in by_extension:
        text = _text(members, by_extension["cls"], "cls")
        return int(text) if text.removeprefix("-").isdecimal() and len(text) < 20 else text
    columns = list(facts)
    positions = columns_of("label", columns)
    if len(positions) > 1:
        first, second = (columns[position] for position in positions[:2])
        raise DecodeError(f"with both {first} and {second} in .json, either of which could be the label,")
    if positions:
        label = facts[columns[positions[0]]]
        if isinstance(label, bool) or not isinstance(label, int | str):
            raise DecodeError(f"with a {columns[positions[0]]} of type {type(label).__name__} in .json")
        return _encodable(label) if isinstance(label, str) else label
    return _text(members, by_extension["txt"], "txt") if "txt" in by_extension else ""


def _encodable(text: str) -> str:
    """Replace lone surrogates, which JSON can spell but UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def _text(members: TarMembers, member: Member, extension: str) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise DecodeError(f"with a .{extension} of over {MAX_TEXT_BYTES} bytes")
    try:
        return _content(members, member).decode().strip()
    except UnicodeError as error:
        raise DecodeError(f"with a .{extension} that is not UTF-8 text") from error


def _json(members: TarMembers, member: Member) -> dict[str, Any]:
    if member.size > MAX_JSON_BYTES:
        raise DecodeError(f"with a .json of over {MAX_JSON_BYTES:,} bytes")
    try:
        content = json.loads(_content(members, member))
    except (ValueError, RecursionError) as error:
        raise DecodeError("with a .json that is not valid JSON") from error
    return content if isinstance(content, dict) else {}


def _content(members: TarMembers, member: Member) -> bytes:
    return member.start if len(member.start) == member.size else members.read(member.offset, member.size)


def _write_cached(path: Path, shard: ShardFile, index: ShardIndex) -> None:
    """Cache an index. If that fails, the shard is read again the next time."""
    content = {
        "format": _FORMAT,
        "shard": [shard.address, shard.size, shard.tag],
        "names": [index.names.text(number) for number in range(len(index.names))],
        "offsets": index.offsets.tolist(),
        "sizes": index.sizes.tolist(),
        "said": list(zip(index.labels, index.groups, index.weights.tolist(), strict=True)),
        "left_out": index.left_out,
    }
    with suppress(OSError, SaveError, ValueError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(content))


def _read_cached(path: Path, shard: ShardFile) -> ShardIndex | None:
    """Return the cached index of exactly this shard; None if there is none or it is damaged."""
    index = ShardIndex()
    try:
        content = json.loads(path.read_bytes())
        if [content["format"], content["shard"]] != [_FORMAT, [shard.address, shard.size, shard.tag]]:
            return None
        rows = zip(content["names"], content["offsets"], content["sizes"], content["said"], strict=True)
        for name, offset, size, (label, group, weight) in rows:
            if not 0 <= offset <= offset + size <= shard.size or not isinstance(label, int | str):
                return None
            index.add(name, offset, size, Annotation(label, str(group), float(weight)))
        index.left_out = {
            reason: (int(count), list(map(str, which))) for reason, (count, which) in content["left_out"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    return index
