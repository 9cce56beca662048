"""Models -> the page on which people choose photos and see what each model answers."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from vitreous.use.export.page.document import asset
from vitreous.use.html.markup import class_name, page

_FOLDER = Path(__file__).parent


def page_html(models: Iterable[str], *, needs_key: bool) -> str:
    """Return the page, which loads nothing and sends photos only to where it comes from; it may ask for an API key."""
    boxes = [f'<label><input type="checkbox" value="{escape(m)}" checked> {class_name(m)}</label>' for m in models]
    body, style, script = ((_FOLDER / f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    style, script = asset("answer.css") + style, asset("answer.js") + script
    body = body.replace("FEW", "" if len(boxes) > 1 else "hidden").replace("KEY", "" if needs_key else "hidden")
    body = body.replace("MODELS", "".join(boxes))
    return page("What is in this photo?", [body], style, script=script, loads="img-src blob:; connect-src 'self'")
