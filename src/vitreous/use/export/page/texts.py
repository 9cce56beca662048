"""PackedModel -> HTML of a model that runs in its page; the script and the style that the page needs once."""

from pathlib import Path

from vitreous.use.export.page.pack import PackedModel

_FOLDER = Path(__file__).parent
_SCRIPTS = ("engine.js", "pixels.js", "answer.js", "app.js")


def app_html(packed: PackedModel) -> str:
    """Return the part of a page in which a photo is chosen and classified; it has no script and no style of its own."""
    return asset("app.html").replace("MODEL", packed.text)


def script_text() -> str:
    """Return the content of the script element, which must come after the HTML; its hash may go into a policy."""
    return "".join(map(asset, _SCRIPTS))


def style_text() -> str:
    """Return the content of the style element."""
    return asset("answer.css") + asset("app.css")


def asset(name: str) -> str:
    """Return the content of a file of this folder; other pages show answers with `answer.js` and `answer.css`."""
    return (_FOLDER / name).read_text("utf-8")
