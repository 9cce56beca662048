"""Model card of a run, name of a library -> `README.md` for a hub, with how to use the model."""

import re
from pathlib import Path
from typing import Any

import yaml

from vitreous import atomic
from vitreous.tensor_file import parsing
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.predict.predictor import Predictor

_FRONT = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)
_MARK = re.compile(r"^<!-- `vitreous report` .* -->$", re.MULTILINE)
_ABOUT_REPORT = re.compile(r"(?<=kind\.) `report\.html` shows .*")


def write_readme(predictor: Predictor, folder: Path, library: str, use: str, *, has_report: bool = False) -> None:
    """Write `README.md`: the model card of the run, with the library in its header, and how to use the model.

    `use` is Markdown. The card next to the file of the model is taken, since its owner may have changed it.

    Raises:
        DamagedFileError: The header of the model card is not valid YAML.
    """
    card = RunFolder(folder if predictor.file is None else predictor.file.parent).model_card
    with parsing(card, "correct the lines between the first two ---"):
        text = card.read_text("utf-8") if card.is_file() else "# A Vision Transformer\n"
        found = _FRONT.match(text)
        given: Any = yaml.safe_load(found[1]) if found else None
    header: dict[str, Any] = {"license": "unknown", "pipeline_tag": "image-classification"}
    header |= (given if isinstance(given, dict) else {}) | {"library_name": library}
    tags = header["tags"] if isinstance(header.get("tags"), list) else []
    header["tags"] = list(dict.fromkeys([*map(str, tags), "vision-transformer", "vitreous"]))
    body = _MARK.sub("", text[found.end() :] if found else text)
    if not has_report:
        body = _ABOUT_REPORT.sub("", body)
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    atomic.write_text(folder / "README.md", f"---\n{front}---\n\n{body.strip()}\n\n## How to use it\n\n{use}\n")
