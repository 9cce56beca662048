"""An XML file of CVAT for images 1.1 -> Export: the tags of an image are its labels.

If no image has tags, the labels of its boxes, polygons and other shapes are. An image without either shows none of the
labels. Document types are refused, and with them all entities. https://docs.cvat.ai/docs/other/xml_format
"""

from pathlib import Path
from xml.parsers import expat

from vitreous.data.sources.annotations.export import Entry, Export, read_bytes
from vitreous.errors import DataError
from vitreous.wording import plural

_ROOT = "annotations"
_SHAPES = frozenset({"box", "cuboid", "ellipse", "mask", "points", "polygon", "polyline", "skeleton"})


def read_cvat(path: Path) -> Export | None:
    """Read the images of a file; None if its root is not `annotations`, or it has no images and no tracks.

    Raises DataError if it is damaged, too large, has a document type, or is the export of a video.
    """
    where = f"data.source={path}"
    reader = _Reader(where)
    try:
        reader.parser.Parse(read_bytes(path), True)
    except StopIteration:  # the root is not that of CVAT
        return None
    except expat.ExpatError as error:
        if not reader.path:
            return None
        raise DataError(f"{where}: not valid XML ({error}); export it again, or move it elsewhere") from error
    if reader.num_tracks:
        tracks = plural(reader.num_tracks, "track")
        raise DataError(f"{where}: {tracks} of a video; export it as `CVAT for images 1.1`")
    if not reader.images:
        return None
    has_tags = any(tags for _, tags, _, _ in reader.images)
    entries = [Entry(name, tuple(tags if has_tags else shapes), subset) for name, tags, shapes, subset in reader.images]
    return Export("CVAT for images" if has_tags else "shapes of CVAT for images", entries)


class _Reader:
    """Collects the name, the tags, the labels of the shapes and the subset of each image."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.images: list[tuple[str, dict[str, None], dict[str, None], str]] = []
        self.path: list[str] = []
        self.num_tracks = 0
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler, self.parser.EndElementHandler = self.start, self.end
        self.parser.StartDoctypeDeclHandler = self.refuse

    def refuse(self, name: str, *_: object) -> None:
        """Refuse a document type, because entities are declared in it. Its name is that of the root."""
        if name != _ROOT:
            raise StopIteration(name)
        raise DataError(f"{self.where}: has a document type, which CVAT does not write; remove its line <!DOCTYPE …>")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Read the beginning of an element."""
        if not self.path and name != _ROOT:
            raise StopIteration(name)
        if self.path == [_ROOT]:
            self.num_tracks += name == "track"
            if name == "image":
                self.images.append((attributes.get("name", ""), {}, {}, attributes.get("subset", "")))
        elif self.path == [_ROOT, "image"]:
            _, tags, shapes, _ = self.images[-1]
            if "label" in attributes and (name == "tag" or name in _SHAPES):
                (tags if name == "tag" else shapes)[attributes["label"]] = None
        self.path.append(name)

    def end(self, name: str) -> None:
        """Read the end of an element."""
        self.path.pop()
