"""Predictor, JSON of its model -> the page that `vitreous export --to html` writes."""

from typing import Any

from vitreous.use.evaluate.evaluation import scored_split
from vitreous.use.evaluate.headline import accuracy_text
from vitreous.use.export.page.texts import app_html, style_text
from vitreous.use.html import markup
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import plural


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
