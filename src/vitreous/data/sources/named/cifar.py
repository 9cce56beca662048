"""A name (`cifar10`, `cifar100`) -> its official binary version, found on this machine or downloaded.

The files consist of records of equal length: one label byte (CIFAR-100: two, the coarse label first), then 1,024 red
values row by row, 1,024 green and 1,024 blue ones. The version "for Python" is never opened, because it is a pickle
file and could execute code.
"""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from vitreous.data.sources.named.official import MAX_BYTES, check_official, find_or_download
from vitreous.data.sources.source import ArraySource
from vitreous.errors import DataError

ADDRESS = "https://www.cs.toronto.edu/~kriz"
SIDE_PX = 32

_TEN_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
_HUNDRED_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""

_PIXEL_BYTES = 3 * SIDE_PX * SIDE_PX


@dataclass(frozen=True)
class CifarSet:
    """A data set that is published as one archive of binary files.

    The archive unpacks to `folder`. `files` has the SHA-256 of each file in it; the last file holds the test set. Each
    record begins with `label_bytes` label bytes, of which the last is the class.
    """

    name: str
    archive: str
    sha256: str
    folder: str
    files: Mapping[str, str]
    label_bytes: int
    classes: tuple[str, ...]

    @property
    def python_files(self) -> tuple[str, str]:
        """The names of the pickled version: its archive, and the folder that this unpacks to."""
        stem = self.archive.removesuffix("-binary.tar.gz")
        return f"{stem}-python.tar.gz", f"{stem}-batches-py" if stem == "cifar-10" else f"{stem}-python"


CIFAR10 = CifarSet(
    name="cifar10",
    archive="cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",  # MD5 c32a1d4ab5d03f1284b67883e8d87530
    folder="cifar-10-batches-bin",
    files={
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    label_bytes=1,
    classes=tuple(_TEN_CLASSES.split()),
)
"""Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images", chapter 3."""

CIFAR100 = CifarSet(
    name="cifar100",
    archive="cifar-100-binary.tar.gz",
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",  # MD5 03b5dce01913d631647c71ecec9e9cb8
    folder="cifar-100-binary",
    files={
        "train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
        "test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
    },
    label_bytes=2,
    classes=tuple(_HUNDRED_CLASSES.split()),
)
"""Source: the same report as `CIFAR10`; the 100 fine labels, in alphabetical order."""


def open_cifar(wanted: CifarSet) -> ArraySource:
    """Find the archive or its unpacked folder, or download the archive; check it and read it without unpacking to disk.

    Images are RGB; the official training set is `train`, the official test set `test`. Raises as `find_or_download`
    does.
    """
    contents, notes = find_or_download(
        wanted.name,
        ADDRESS,
        [wanted.archive],
        lambda folder: _read_folder(wanted, folder),
        lambda downloaded: _unpack(wanted, downloaded[wanted.archive], f"{ADDRESS}/{wanted.archive}"),
    )
    records = [np.frombuffer(contents[file], np.uint8) for file in wanted.files]
    num_test = len(records[-1]) // (wanted.label_bytes + _PIXEL_BYTES)
    table = np.concatenate(records).reshape(-1, wanted.label_bytes + _PIXEL_BYTES)
    planes = table[:, wanted.label_bytes :].reshape(-1, 3, SIDE_PX, SIDE_PX)
    return ArraySource(
        name=wanted.name,
        classes=wanted.classes,
        images=np.ascontiguousarray(planes.transpose(0, 2, 3, 1)),
        labels=table[:, wanted.label_bytes - 1].astype(np.int64),
        splits=np.repeat(["train", "test"], [len(table) - num_test, num_test]),
        notes=tuple(notes),
    )


def _read_folder(wanted: CifarSet, folder: Path) -> tuple[dict[str, bytes] | None, str]:
    """Return the files by name, or None and the reason why the folder does not hold this set."""
    if not folder.is_dir():
        return None, "no such folder"
    try:
        if (folder / wanted.archive).is_file():
            return _unpack(wanted, _read(folder / wanted.archive), wanted.archive), ""
        for inner in (folder / wanted.folder, folder):
            if (inner / next(iter(wanted.files))).is_file():
                contents = {file: _read(inner / file) for file in wanted.files}
                for file, content in contents.items():
                    check_official(wanted.name, file, content, wanted.files[file])
                return contents, ""
    except (OSError, DataError) as error:
        return None, str(error)
    pickled = next((file for file in wanted.python_files if (folder / file).exists()), None)
    return None, f"no {wanted.archive}" if pickled is None else (
        f"{pickled} is a pickle file, which is never opened because it could run code; download {wanted.archive}"
    )


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES)


def _unpack(wanted: CifarSet, content: bytes, where: str) -> dict[str, bytes]:
    """Return the archive's files by name. Raises DataError if it is not the official archive."""
    check_official(wanted.name, where, content, wanted.sha256)
    contents = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            file = PurePosixPath(member.name).name
            opened = archive.extractfile(member) if file in wanted.files and member.isfile() else None
            if opened is not None:
                contents[file] = opened.read(MAX_BYTES)
    return contents
