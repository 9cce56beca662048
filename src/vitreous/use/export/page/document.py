"""Predictor, JSON of its model -> the page that `vitreous export --to html` writes; its parts, for other pages."""

from pathlib import Path
from typing import Any

from vitreous.use.evaluate.evaluation import scored_split
from vitreous.use.evaluate.headline import accuracy_text
from vitreous.use.html import markup
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import plural

_FOLDER = Path(__file__).parent


def document(predictor: Predictor, name: str, model: str, script: str, *, wasm: bool = False) -> str:
    """Return a complete page: `model` is the JSON that `page_data` returns, and `script` what runs it.

    Set `wasm` if the script runs WebAssembly.
    """
    metrics: Any = predictor.metadata.get("metrics", {})
    split = scored_split(metrics)
    known, several = plural(len(predictor.classes), "class", "classes"), predictor.thresholds is not None
    sentences = [
        f"The model knows {known}, and a photo gets {'any number' if several else 'one'} of them, whatever it shows",
        *([] if split is None else [f"Accuracy on photos that it was not trained on: {accuracy_text(metrics[split])}"]),
        "It runs in this page. Photos stay on your device, and no network is needed",
    ]
    parts = [app_html(model), markup.sentences(sentences)]
    return markup.page(name, parts, style_text(), script=script, wasm=wasm)


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
