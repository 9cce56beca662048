"""A built site -> its dead links, and what its pages would load from other hosts.

Command: `python docs/scripts/check_site.py build/site`
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"audio", "embed", "iframe", "img", "input", "link", "object", "script", "source", "video"}
"""Elements whose addresses the browser loads without a click."""
IN_STYLES = re.compile(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)")


class PageParser(HTMLParser):
    """The addresses and the names of the places in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the addresses, with the element that has them."""
        values = dict(attrs)
        self.places |= {str(values[name]) for name in ("id", "name") if values.get(name)}
        if not (tag == "link" and values.get("rel") in ("canonical", "next", "prev")):
            self.links += [(tag, str(values[name])) for name in ("href", "src", "data") if values.get(name)]
        if "//" in (style := values.get("style") or ""):
            self.links += [("link", address) for address in IN_STYLES.findall(style)]


def problems(site: Path) -> Iterator[str]:
    """Yield one line per dead link and per request to another host."""
    pages = {path.resolve(): PageParser(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for tag, address in page.links:
            parts = urlsplit(address)
            if parts.scheme in ("data", "mailto", "javascript"):
                continue
            if parts.scheme or parts.netloc:
                if tag in LOADED:
                    yield f"{name}: <{tag}> loads {address}"
                continue
            start = site if parts.path.startswith("/") else path.parent
            target = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            if not target.is_file():
                yield f"{name}: {address} leads nowhere"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                yield f"{name}: {address} leads to no place on that page"
    for path in sorted(site.rglob("*.css")):
        for address in IN_STYLES.findall(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)}: loads {address}"


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1])))
    sys.stdout.writelines(f"{line}\n" for line in found)
    sys.exit(bool(found))
