"""Files and folders -> image files, in a stable order."""

from collections.abc import Iterable
from pathlib import Path

from vitreous.data.sources.folder import is_image_name
from vitreous.errors import DataNotFoundError


def list_images(paths: Iterable[Path]) -> list[Path]:
    """List image files: each given file, and all images in each given folder and its subfolders, sorted by path.

    Hidden files in a folder are skipped.

    Raises:
        DataNotFoundError: A path does not exist, or a folder contains no images.
    """
    files: list[Path] = []
    for path in (path.expanduser() for path in paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _is_visible_image(file, path))
            if not inside:
                raise DataNotFoundError(f"image={path}: a folder without images; give images or a folder of them")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise DataNotFoundError(f"image={path}: no such file or folder; give images or folders of them")
    return files


def _is_visible_image(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in file.relative_to(folder).parts)
    return not hidden and is_image_name(file.name) and file.is_file()
