"""Files and folders -> image files, in a stable order."""

from collections.abc import Iterable
from pathlib import Path

from vitreous.data.sources.folder import images_below
from vitreous.errors import DataNotFoundError


def list_images(paths: Iterable[Path]) -> list[Path]:
    """List image files: each given file, and all images in each given folder and its subfolders, sorted by path.

    Hidden files and run folders in a folder are skipped.

    Raises:
        DataNotFoundError: A path does not exist, or a folder contains no images.
    """
    files: list[Path] = []
    for path in (path.expanduser() for path in paths):
        if path.is_dir():
            inside = sorted(file for file in images_below(path) if file.is_file())
            if not inside:
                raise DataNotFoundError(f"image={path}: a folder without images; give images or a folder of them")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise DataNotFoundError(f"image={path}: no such file or folder; give images or folders of them")
    return files
