"""Texts, tables, figures -> HTML of a self-contained page, which can load and run nothing but what it contains."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from html import escape
from pathlib import Path

from vitreous.data.sources.source import as_text
from vitreous.wording import shortened

_COMMAND = re.compile("`([^`]+)`")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


def page(
    title: str,
    parts: Iterable[str],
    style: str = "",
    *,
    script: str = "",
    links: Sequence[tuple[str, str]] = (),
    loads: str = "img-src data:",
    wasm: bool = False,
) -> str:
    """Return a complete page, whose policy forbids requests, style attributes, and all styles and scripts but its own.

    The title, and the anchors and titles of sections in `links`, are plain text. Texts in `parts`, which are HTML, are
    escaped by the caller. `style` and `script` are added to those of all pages and have no user content. The page has
    to be complete without the script. `loads` are the directives of the policy that say what it may load; with `wasm`,
    the script may also run WebAssembly that it contains.
    """
    style, script, name = f"{_asset('page.css')}{style}", f"{_asset('page.js')}{script}", escape(title)
    policy = f"default-src 'none'; {loads}; base-uri 'none'; form-action 'none'; "
    policy += f"style-src {_hash(style)}; script-src {_hash(script)}" + (" 'wasm-unsafe-eval'" if wasm else "")
    listed = "".join(f'<li><a href="#{escape(anchor)}">{escape(text)}</a></li>' for anchor, text in links)
    navigation = f'<nav aria-label="Sections"><ul>{listed}</ul></nav>' if listed else ""
    body = "\n".join(parts)
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{name}</title><style>{style}</style></head>
<body><a class="skip" href="#main">Skip to the content</a><header><h1>{name}</h1></header>
{navigation}
<main id="main" tabindex="-1">
{body}
</main>
<script>{script}</script></body></html>
"""
    return _CONTROLS.sub("\ufffd", as_text(text))


def sentences(texts: Iterable[str]) -> str:
    """Return a bulleted list of plain texts with commands in `backticks`; an empty string if there are none."""
    items = "".join("<li>" + _COMMAND.sub(r"<code>\1</code>", escape(text)) + "</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int = 99) -> str:
    """Return a table of HTML cells; columns from `numbers_from` on are right-aligned as numbers."""
    kinds = ['class="number"' if index >= numbers_from else 'class="text"' for index in range(len(header))]
    head = "".join(
        f'<th {kind} scope="col">{name}</th>' if name else f"<td {kind}></td>"
        for kind, name in zip(kinds, header, strict=True)
    )
    lines = ("".join(f"<td {kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide" tabindex="0"><table><tr>{head}</tr>{body}</table></div>'


def command(text: str) -> str:
    """Return a command, plain text; the script of the page adds a button that copies it."""
    return f'<pre class="command" tabindex="0"><code>{escape(text)}</code></pre>'


def photo(pictures: Iterable[tuple[str, str]], caption: str = "", data: str = "") -> str:
    """Return an item of a gallery: addresses of pictures and what they show, plain text; caption and data are HTML."""
    images = [f'<img src="{uri}" alt="{escape(text)}">' for uri, text in pictures]
    kind = "pair" if len(images) > 1 else "single"
    return f'<li class="{kind}" {data}><figure>{"".join(images)}<figcaption>{caption}</figcaption></figure></li>'


def gallery(items: Iterable[str], kind: str = "", label: str = "") -> str:
    """Return items from `photo`; with a label, plain text, the script of the page filters them and turns pages."""
    is_long = f' aria-label="{escape(label)}"' if label else ""
    return f'<ul class="photos {kind}"{is_long}>{"".join(items)}</ul>'


def class_name(name: str) -> str:
    """Escape and shorten the name of a class, and isolate it from text that is written in the other direction."""
    short = shortened(name)
    title = "" if short == name else f' title="{escape(name)}"'
    return f"<bdi{title}>{escape(short)}</bdi>"


def bars(title: str, counts: Mapping[str, int]) -> str:
    """Return a horizontal bar chart; names are plain text and are escaped."""
    largest = max(counts.values(), default=0) or 1
    rows = [(class_name(name), f"{count:,}", bar(count / largest)) for name, count in counts.items()]
    return table((escape(title), "images", ""), rows)


def bar(share: float, low: float | None = None, high: float | None = None) -> str:
    """Return a bar for a share in [0, 1], with a line from `low` to `high` if they are given; text has to repeat it."""
    line = "" if low is None or high is None else f'<path d="M{100 * low:.1f} 6H{100 * high:.1f}"/>'
    shape = f'<rect width="{100 * share:.1f}" height="12"/>{line}'
    return f'<svg class="bar" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">{shape}</svg>'


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(content.encode()).digest()).decode()}'"
