"""JSON of a model -> HTML of a page in which it runs; the script and the style that the page needs once."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def app_html(model: str) -> str:
    """Return the part of a page in which a photo is chosen and classified; it has no script and no style of its own."""
    return asset("app.html").replace("MODEL", model)


def script_text(engine: str = "engine.js") -> str:
    """Return the content of the script element, which must come after the HTML; its hash may go into a policy.

    The engine that runs the model is `engine.js`, or `runtime.js` after a script that defines `ort`.
    """
    return "".join(map(asset, (engine, "pixels.js", "answer.js", "app.js")))


def style_text() -> str:
    """Return the content of the style element."""
    return asset("answer.css") + asset("app.css")


def asset(name: str) -> str:
    """Return the content of a file of this folder; other pages show answers with `answer.js` and `answer.css`."""
    return (_FOLDER / name).read_text("utf-8")
