"""A tar file -> where its images lie and what is said of each, kept in this user's cache where finding it took long.

WebDataset's conventions: members in a row that share a key, the path up to the first dot of its last part, are one
sample; what follows that dot says which part of it. Nothing is unpickled, and no other part is read.
"""

import hashlib
import json
import math
import unicodedata
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitreous import atomic
from vitreous.data.sources.folder import IMAGE_SUFFIXES
from vitreous.data.sources.official import cache_folder
from vitreous.data.sources.paths import PackedPaths
from vitreous.data.sources.shards.files import LocalShard, ShardFile
from vitreous.data.sources.shards.tar_members import Member, TarMembers
from vitreous.data.sources.source import as_text
from vitreous.data.sources.spelling import columns_of
from vitreous.errors import DataError, DecodeError, SaveError

MAX_TEXT_BYTES = 256
"""A longer `.cls` or `.txt` is no class."""
MAX_JSON_BYTES = 1 << 20
"""A longer `.json` is not read."""
MAX_EXAMPLES = 3
"""So many of what is left out are named; the others are counted."""

_CACHED_FROM_BYTES = 64 << 20
_FORMAT = 1
_CODE = frozenset({"pkl", "pickle", "pyd", "pth", "pt", "joblib", "dill"})


@dataclass
class ShardIndex:
    """The labelled images of a shard, in its order.

    Attributes:
        names: Their names in the tar, `[n]`.
        offsets: Where their bytes begin, `[n]`.
        sizes: How many those are, `[n]`.
        labels: Class index, or name of the class, `[n]`.
        groups: As a `.json` says, `[n]`; an empty text for none.
        weights: As a `.json` says, `[n]`; 1 for none.
        left_out: What is not among them: why -> how often, and the first few.
    """

    names: PackedPaths = field(default_factory=lambda: PackedPaths(Path()))
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    labels: list[int | str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    weights: "array[float]" = field(default_factory=lambda: array("d"))
    left_out: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def add(self, name: str, offset: int, size: int, said: "_Said") -> None:
        """One more image."""
        self.names.append(name)
        self.offsets.append(offset)
        self.sizes.append(size)
        self.labels.append(said.label)
        self.groups.append(said.group)
        self.weights.append(said.weight)

    def leave_out(self, why: str, which: str, count: int = 1) -> None:
        """Note what is not among them."""
        before, examples = self.left_out.get(why, (0, []))
        self.left_out[why] = before + count, [*examples, which][:MAX_EXAMPLES]


@dataclass(frozen=True)
class _Said:
    """What the other parts of a sample say of its image."""

    label: int | str
    group: str = ""
    weight: float = 1.0


def index_shard(shard: ShardFile) -> ShardIndex:
    """Go through the headers of a tar; the next time, those of a large or remote one come from the cache.

    Args:
        shard: A tar that is not compressed.

    Returns:
        Its samples. Where the tar is damaged, those before the damage; `left_out` says so.

    Raises:
        DataError: It is no tar, is compressed, or cannot be read.
    """
    is_kept = bool(shard.tag) and (shard.size >= _CACHED_FROM_BYTES or not isinstance(shard, LocalShard))
    name = hashlib.blake2b(shard.address.encode("utf-8", "replace"), digest_size=16).hexdigest()
    path = index_folder() / f"{name}.json"
    found = _read_kept(path, shard) if is_kept else None
    if found is not None:
        return found
    try:
        with shard.open() as file:
            index = _scan(TarMembers(file, shard.size, f"data.source={as_text(shard.address)}"))
    except DataError:
        raise
    except Exception as error:  # each remote file system has errors of its own
        raise DataError(
            f"data.source={as_text(shard.address)}: cannot be read ({' '.join(str(error).split())[:200]}); check it"
        ) from error
    if is_kept:
        _keep(path, shard, index)
    return index


def index_folder() -> Path:
    """Where indices are kept, a file a shard."""
    return cache_folder() / "shards"


def _scan(members: TarMembers) -> ShardIndex:
    index = ShardIndex()
    for key, parts in _samples(members, index):
        images = [part for part in parts if f".{part.rpartition('.')[2]}" in IMAGE_SUFFIXES]
        # `0001.jpg` is the image, `0001.mask.png` something else about it.
        images = [part for part in images if "." not in part] or images
        if not images:
            index.leave_out("samples without an image are left out", key)
            continue
        if len(images) > 1:
            index.leave_out(
                f"samples have several images ({as_text(', '.join(images[:3]))}), and the first counts", key
            )
        image = parts[images[0]]
        try:
            said = _said(members, parts)
        except DecodeError as error:
            index.leave_out(f"samples {error} are left out", key)
            continue
        index.add(as_text(image.name), image.offset, image.size, said)
    if members.num_special:
        index.leave_out("links, devices and sparse files are left out", "", members.num_special)
    if members.damage:
        index.leave_out("damaged tars are read as far as they go", members.damage)
    return index


def _samples(members: TarMembers, index: ShardIndex) -> Iterator[tuple[str, dict[str, Member]]]:
    """Key and parts of each sample, extensions in lower case."""
    current, parts = "", dict[str, Member]()
    for member in members:
        slash = member.name.rfind("/") + 1
        dot = member.name.find(".", slash)
        key, extension = member.name[:dot], member.name[dot + 1 :].casefold()
        if dot <= slash or not extension:  # hidden files, and those without a kind
            continue
        if extension.rpartition(".")[2] in _CODE:
            index.leave_out("files that could hold code are never opened", as_text(member.name))
            continue
        if key != current and parts:
            yield as_text(current), parts
            parts = {}
        current = key
        if extension in parts:
            index.leave_out("files stand there twice, and the first counts", as_text(member.name))
        else:
            parts[extension] = member
    if parts:
        yield as_text(current), parts


def _said(members: TarMembers, parts: Mapping[str, Member]) -> _Said:
    """Label, group and weight. Raises DecodeError, the end of a sentence, where there is no label to read."""
    facts = _json(members, parts["json"]) if "json" in parts else {}
    group, weight = facts.get("group", ""), facts.get("weight", 1.0)
    if not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
        raise DecodeError("with a weight that is no number of at least 0")
    label = _label(members, parts, facts)
    if isinstance(label, str):
        label = unicodedata.normalize("NFC", label.strip())
    if label == "" or label == -1:
        raise DecodeError("without a label")
    if isinstance(label, int) and not 0 <= label < 1 << 31:
        raise DecodeError("with a label that is no class index")
    return _Said(label, _clean(str(group)) if isinstance(group, str | int) else "", float(weight))


def _label(members: TarMembers, parts: Mapping[str, Member], facts: Mapping[str, Any]) -> int | str:
    """From `.cls`, else from `.json`, else from `.txt`."""
    if "cls" in parts:
        text = _text(members, parts["cls"], "cls")
        return int(text) if text.removeprefix("-").isdecimal() and len(text) < 20 else text
    columns = list(facts)
    places = columns_of("label", columns)
    if len(places) > 1:
        raise DecodeError(
            f"whose .json has {columns[places[0]]} and {columns[places[1]]}, which could each be the label"
        )
    if places:
        label = facts[columns[places[0]]]
        if isinstance(label, bool) or not isinstance(label, int | str):
            raise DecodeError(f"whose {columns[places[0]]} in .json is a {type(label).__name__}, no class")
        return _clean(label) if isinstance(label, str) else label
    return _text(members, parts["txt"], "txt") if "txt" in parts else ""


def _clean(text: str) -> str:
    """Without the halves of characters that JSON can spell."""
    return text.encode("utf-8", "replace").decode()


def _text(members: TarMembers, member: Member, kind: str) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise DecodeError(f"whose .{kind} has over {MAX_TEXT_BYTES} bytes and is no class")
    try:
        return _content(members, member).decode().strip()
    except UnicodeError as error:
        raise DecodeError(f"whose .{kind} is no UTF-8 text") from error


def _json(members: TarMembers, member: Member) -> dict[str, Any]:
    if member.size > MAX_JSON_BYTES:
        raise DecodeError(f"whose .json has over {MAX_JSON_BYTES:,} bytes")
    try:
        content = json.loads(_content(members, member))
    except (ValueError, RecursionError) as error:
        raise DecodeError("whose .json is damaged") from error
    return content if isinstance(content, dict) else {}


def _content(members: TarMembers, member: Member) -> bytes:
    return member.start if len(member.start) == member.size else members.read(member.offset, member.size)


def _keep(path: Path, shard: ShardFile, index: ShardIndex) -> None:
    """Write what was found; where that fails, it is found again the next time."""
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


def _read_kept(path: Path, shard: ShardFile) -> ShardIndex | None:
    """What was kept of this very shard; None where there is none, or it makes no sense."""
    index = ShardIndex()
    try:
        content = json.loads(path.read_bytes())
        if [content["format"], content["shard"]] != [_FORMAT, [shard.address, shard.size, shard.tag]]:
            return None
        rows = zip(content["names"], content["offsets"], content["sizes"], content["said"], strict=True)
        for name, offset, size, (label, group, weight) in rows:
            if not 0 <= offset <= offset + size <= shard.size or not isinstance(label, int | str):
                return None
            index.add(name, offset, size, _Said(label, str(group), float(weight)))
        index.left_out = {
            why: (int(count), list(map(str, which))) for why, (count, which) in content["left_out"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    return index
