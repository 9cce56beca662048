"""An export of a labeling tool, a file or a folder -> FileSource.

One module reads each format: `coco`, `cvat`, `fiftyone`, `label_studio` and `yolo`. It returns an `Export`, which is
what the file says. `places` finds the images, `read` puts both together, and `source` makes classes of the names.
"""

from vitreous.data.sources.annotations.read import is_export_name, read_export
from vitreous.data.sources.annotations.source import open_export

__all__ = ["is_export_name", "open_export", "read_export"]
