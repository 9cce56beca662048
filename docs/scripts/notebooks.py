"""A tutorial in Markdown -> the same tutorial as a notebook, without outputs; and back."""

import re

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FENCE = re.compile(r"^```(python|console)(?: title=\"([\w.]+)\")?\n(.*?)^```$\n?", re.MULTILINE | re.DOTALL)


def as_notebook(page: str) -> str:
    """Return the notebook as JSON: prose, Python, and commands after `!`. Printed output is left out."""
    cells, start = [], 0
    for found in FENCE.finditer(page):
        language, title, block = found.groups()
        code = block if language == "python" else _commands(block)
        cells += [new_markdown_cell(page[start : found.start()].strip())]
        cells += [new_code_cell((f"%%writefile {title}\n" if title else "") + code.strip())]
        start = found.end()
    cells.append(new_markdown_cell(page[start:].strip()))
    cells = [cell for cell in cells if cell["source"]]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # the same page gives the same file
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.writes(new_notebook(cells=cells, metadata=kernel))


def as_page(notebook: str) -> str:
    """Return the cells of a notebook as Markdown, without outputs."""
    cells = nbformat.reads(notebook, as_version=4).cells
    return "\n\n".join(f"```python\n{cell.source}\n```" if cell.cell_type == "code" else cell.source for cell in cells)


def _commands(block: str) -> str:
    """Return the lines after `$` as IPython runs them, joined where a backslash continues them."""
    lines = re.findall(r"^\$ (.*)", re.sub(r"\\\n\s*", "", block), re.MULTILINE)
    # A server would keep the cell busy.
    return "\n".join(
        f'get_ipython().system_raw("{line} &")' if line.startswith("vitreous serve") else f"!{line}" for line in lines
    )
