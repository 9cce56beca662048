"""Texts, tables, counts -> HTML of a self-contained page."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from vitreous.data.sources.source import as_text
from vitreous.wording import shortened

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .9rem .15rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #999; } .number { text-align: right; font-variant-numeric: tabular-nums; }
td { overflow-wrap: anywhere; } td:first-child { white-space: nowrap; } pre { overflow-x: auto; }
.headline { font-size: 2.2rem; font-weight: 600; } code { font-size: .9em; } svg { max-width: 100%; height: auto; }
"""


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Return a complete page.

    Args:
        title: Plain text; it is escaped.
        parts: HTML; the caller has escaped texts in it.
        style: CSS rules in addition to `STYLE`.
    """
    text = "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f"<style>{STYLE}{style}</style></head>",
            f"<body><h1>{escape(title)}</h1>",
            *parts,
            "</body></html>\n",
        ]
    )
    return as_text(text)


def sentences(texts: Iterable[str]) -> str:
    """Return a bulleted list of plain texts, which are escaped; an empty string if there are none."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int = 99) -> str:
    """Return a table of HTML cells; columns from `numbers_from` on are right-aligned as numbers."""
    kinds = ['class="number"' if index >= numbers_from else 'class="text"' for index in range(len(header))]
    head = "".join(f"<th {kind}>{name}</th>" for kind, name in zip(kinds, header, strict=True))
    lines = ("".join(f"<td {kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def class_name(name: str) -> str:
    """Escape the name of a class; a long one is shortened, and shown in full when the mouse is over it."""
    short = shortened(name)
    return escape(name) if short == name else f'<span title="{escape(name)}">{escape(short)}</span>'


def bars(title: str, counts: Mapping[str, int]) -> str:
    """Return a horizontal bar chart; names are plain text and are escaped."""
    largest = max(counts.values(), default=0) or 1
    rows = [
        (escape(name), f"{count:,}", f'<div class="bar" style="width:{14 * count / largest:.2f}rem"></div>')
        for name, count in counts.items()
    ]
    return table((escape(title), "images", ""), rows)
