"""Cases of `data/corrections.py` and `use/doctor/`: files of corrections that are refused, then repaired."""

from pathlib import Path

from tests.advice.data_cases import images
from tests.advice.walk import Refusals, case

from vitreous.cli.main import main
from vitreous.data.corrections import corrected, read_corrections
from vitreous.data.sources import Source, open_source
from vitreous.use.inspect import DataOptions, inspect

HEADINGS = "path,label,action,to,reason,confidence\n"


def photos(folder: Path) -> Path:
    return images(folder / "photos", *(f"{name}/{n}.png" for name in ("cat", "dog", "eel", "fox") for n in range(3)))


def several_labels(folder: Path) -> Path:
    """Write a table of the photos, some of which have two labels."""
    rows = (f"photos/{name}/{n}.png,{name};dog\n" for name in ("cat", "dog", "eel") for n in range(3))
    (folder / "tags.csv").write_text("path,label\n" + "".join(rows).replace("dog;dog", "dog"))
    return folder / "tags.csv"


@case
def rows_of_corrections(folder: Path) -> Refusals:
    data, file = photos(folder), folder / "fix.csv"

    def read(rows: str, source: Path = data, root: Path | None = None) -> Source:
        file.write_text(HEADINGS + rows)
        return corrected(open_source(source, root), file)

    dropped, other_path = "cat/1.png,cat,drop,\n", f'"{data}/cat/1.png",cat,keep,\n'
    broken: dict[str, tuple[str, ...]] = {
        "cat/1.png,cat,drp,\n": ("did you mean drop?", dropped),
        "cat/1.png,cat,,\n": ("use one of drop, keep", dropped, "cat/1.png,cat,keep,\n"),
        "cat/1.png,cat,split:val,\n": ("write split:train or keep", "cat/1.png,cat,split:train,\n"),
        "cat/1.png,cat,merge,dog\n": ("must be empty for the action merge; correct it", ",cat,merge,dog\n"),
        ",cat,drop,\n": ("is needed for the action drop; correct it", dropped),
        "cat/1.png,cat,relabel,\n": ("use one of cat, dog, eel, fox", "cat/1.png,cat,relabel,fox\n"),
        "cat/1.png,cat,relabel,dgo\n": (
            "did you mean dog?, or write relabel:new", "cat/1.png,cat,relabel,dog\n", "cat/1.png,cat,relabel:new,dgo\n",
        ),
        "cat/1.png,cat,relabel:new,dog\n": (
            "write its name, or relabel for a class of the data", "cat/1.png,cat,relabel:new,owl\n",
            "cat/1.png,cat,relabel,dog\n",
        ),
        ",cta,merge,dog\n": ("did you mean cat?", ",cat,merge,dog\n"),
        ",cat,merge,dog\n,cat,merge,eel\n": ("merge it once", ",cat,merge,eel\n"),
        ",cat,merge,dog\n,dog,merge,eel\n": ("use one of eel, fox", ",cat,merge,fox\n,dog,merge,eel\n"),
        dropped + "cat/1.png,cat,keep,\n": ("is in line 2 too; delete one of them", dropped, "cat/1.png,cat,keep,\n"),
        dropped + other_path: ("delete it", dropped),
        "cat/9.png,cat,drop,\n": ("did you mean cat/", dropped),
        "9.jpg,cat,drop,\n": ("paths are written like cat/0.png", dropped),
        "cat/1.png,dog,drop,\n": ("the data has cat here; write that", dropped),
    }  # fmt: skip
    for rows, (advice, *repaired) in broken.items():
        yield lambda rows=rows: read(rows), advice
        assert all(map(read, repaired))
    other = folder / "other.csv"
    other.write_text("path,label\ncat/0.png,cat\ncat/1.png,dog\n")
    yield lambda: read("cat/1.png,dog,drop,\n"), "or use the data that the file is for"
    assert read("cat/1.png,dog,split:train,\n", other, data)


@case
def files_of_corrections(folder: Path) -> Refusals:
    data, file = photos(folder), folder / "fix.csv"
    table = several_labels(folder)
    yield lambda: read_corrections(data), "`vitreous inspect DATA --fix corrections.csv` writes one"
    yield lambda: read_corrections(folder / "corrections.csv"), "check the file"
    assert main(["inspect", str(data), "--fix", str(folder / "corrections.csv")]) == 0
    assert corrected(open_source(data), folder / "corrections.csv")
    for text, advice, repaired in (
        ("", f"write the line `{HEADINGS.strip()}`", HEADINGS),
        ("path,label,to\n", f"begin with the line {HEADINGS.strip()}", HEADINGS),
        (HEADINGS + 'cat/1.png,"cat,drop,\n', "check the quotes in this line", HEADINGS + 'cat/1.png,"cat",drop,\n'),
    ):
        file.write_text(text)
        yield lambda: read_corrections(file), advice
        file.write_text(repaired)
        assert corrected(open_source(data), file)
    yield lambda: corrected(open_source(table), file), "leave it out"
    assert open_source(table).is_multilabel
    yield lambda: inspect(str(data), options=DataOptions(fix=file)), "choose another name, or remove it"
    assert inspect(str(data), options=DataOptions(fix=folder / "new.csv"))
    file.unlink()
    assert inspect(str(data), options=DataOptions(fix=file))
    yield lambda: inspect(str(table), options=DataOptions(fix=folder / "proposed.csv")), "leave it out"
    assert inspect(str(table))
