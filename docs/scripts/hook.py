"""The documents of the project -> the pages of the site: a hook of MkDocs.

README.md becomes the home page. The reference is generated from the code. Files outside docs/ that a page links to get
a page below `project/`, so that no link leads out of the site. Each tutorial is offered as a notebook too.
"""

import posixpath
import re
from pathlib import Path

import notebooks
import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(\]\(|src=\")(?!\w+:|#)([^)#\"\s]+)")
GENERATED = {
    "reference/commands.md": reference.commands,
    "reference/errors.md": reference.errors_page,
    "reference/run-folder.md": reference.run_folder_page,
    "reference/results.md": reference.results_page,
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show pages that mkdocs.yml does not list at the end of How-to, so that no page is forgotten."""
    names = sorted(path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md"))
    how_to = next(section["How-to"] for section in config.nav or () if "How-to" in section)
    how_to += [name for name in names if name not in str(config.nav)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from other files."""
    _add(files, config, "index.md", (ROOT / "README.md").read_text(encoding="utf-8"))
    for name, make in GENERATED.items():
        _add(files, config, name, make())
    waiting = {name for file in files.documentation_pages() for name in _outside(file.src_uri, file.content_string)}
    waiting |= {"ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md"}
    done: set[str] = set()
    while waiting - done:
        name = min(waiting - done)
        done.add(name)
        path = ROOT / name
        if path.is_dir():
            waiting |= {f"{name}/{file.name}" for file in path.glob("*.py")}
            text = "\n".join(file.name for file in sorted(path.glob("*.py")))
        else:
            text = path.read_text(encoding="utf-8")
        if name.endswith(".md"):
            waiting |= _outside(_place(name), text)
        _add(files, config, _place(name), text if name.endswith(".md") else _listing(name, text))
    for file in files.documentation_pages():
        if file.src_uri.startswith("tutorials/"):
            notebook = notebooks.as_notebook(file.content_string)
            files.append(File.generated(config, file.src_uri.removesuffix(".md") + ".ipynb", content=notebook))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links to files outside docs/ to their pages, and offer the notebook of a tutorial."""
    here = page.file.src_uri
    if here.startswith("project/") and not (ROOT / here.removeprefix("project/")).is_file():
        return markdown  # the listing of a file
    if here.startswith("tutorials/"):
        name = posixpath.basename(here).removesuffix(".md")
        markdown += f"\n\n[Download this page as a notebook]({name}.ipynb){{: download='{name}.ipynb'}}\n"

    def moved(found: re.Match[str]) -> str:
        source = _source(here, found[2])
        if not (ROOT / source).exists():  # code such as `table[name](value)`, or a generated page
            return found[0]
        target = source.removeprefix("docs/") if source.startswith("docs/") else _place(source)
        return found[1] + posixpath.relpath(target, posixpath.dirname(here) or ".")

    return LINK.sub(moved, markdown)


def _add(files: Files, config: MkDocsConfig, name: str, text: str) -> None:
    files.append(File.generated(config, name, content=text))


def _source(page: str, link: str) -> str:
    """Return the path in the repository of what a page of the site links to."""
    if page == "index.md":
        folder = "."
    elif page.startswith("project/"):
        folder = posixpath.dirname(page.removeprefix("project/"))
    else:
        folder = posixpath.join("docs", posixpath.dirname(page))
    return posixpath.normpath(posixpath.join(folder, link))


def _outside(page: str, text: str) -> set[str]:
    found = {_source(page, link) for _, link in LINK.findall(text)}
    return {name for name in found if not name.startswith("docs/") and name != "README.md" and (ROOT / name).exists()}


def _place(source: str) -> str:
    """Return the page of a file outside docs/."""
    if source == "README.md":
        return "index.md"
    return f"project/{source}" if source.endswith(".md") else f"project/{source}.md"


def _listing(name: str, text: str) -> str:
    """Return a page with the content of a file that is not a document."""
    if name.endswith(".ipynb"):
        return notebooks.as_page(text)
    language = "python" if name.endswith(".py") else "text"
    return f"---\nsearch: {{exclude: true}}\n---\n# {Path(name).name}\n\n`{name}`\n\n````{language}\n{text}\n````\n"
