"""An address -> the images below it, and the bytes of each one, which are requested when they are needed."""

from dataclasses import dataclass
from pathlib import Path

from vitreous.data.sources.image_files import is_image_name
from vitreous.data.sources.shards.files import import_fsspec, reaching
from vitreous.data.sources.source import MAX_FILE_BYTES, check_file_size, first_line
from vitreous.errors import DecodeError


@dataclass(frozen=True)
class RemoteImage:
    """An image file at an fsspec address."""

    address: str

    def read(self) -> bytes:
        """Return the bytes of the file. Raises DecodeError if they cannot be read or are too many."""
        fsspec = import_fsspec(self.address)
        try:
            files, path = fsspec.core.url_to_fs(self.address)
            content: bytes = files.cat_file(path, start=0, end=MAX_FILE_BYTES + 1)
        except Exception as error:  # each file system raises errors of its own types
            raise DecodeError(f"{self.address}: {first_line(error)}") from error
        check_file_size(self.address, len(content))
        return content


def list_addresses(address: str) -> list[str]:
    """Return the addresses of all image files below an address, without hidden ones. Raises as `reaching` does."""
    if is_image_name(address):
        return [address]
    fsspec = import_fsspec(address)
    with reaching(address):
        files, root = fsspec.core.url_to_fs(address)
        found = [path for path in map(str, files.find(root)) if is_image_name(path)]
        return [files.unstrip_protocol(path) for path in found if "/." not in path.removeprefix(root)]


def download(address: str, folder: Path) -> Path:
    """Copy a file at an address into a folder, under its own name. Raises as `reaching` does."""
    path = folder / address.rpartition("/")[2]
    with reaching(address):
        files, source = import_fsspec(address).core.url_to_fs(address)
        files.get_file(source, str(path))
    return path
