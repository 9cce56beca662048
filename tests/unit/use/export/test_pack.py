"""Models for a page: what is packed, how large it is, and what is refused."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.unit.use.explain import models
from tests.unit.use.export.predictors import predictor_for

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.training.fit.familiarity import Familiarity, unit_length
from vitreous.use.export.page import pack as pack_module
from vitreous.use.export.page.document import app_html, script_text, style_text
from vitreous.use.export.page.pack import pack
from vitreous.use.predict.predictor import Predictor


def predictor(kind: str = "token", classes: tuple[str, ...] = (), **changes: Any) -> Predictor:
    made = predictor_for(models.make_model(kind, **changes))
    return Predictor(made.model, made.preprocess, classes or made.classes, 1.0, {})


def test_packed_model_has_everything_that_a_prediction_needs() -> None:
    data = json.loads(pack(predictor(), example=b"PNG").text)
    assert data["classes"] == ["class 0", "class 1", "class 2", "class 3", "class 4"]
    assert (data["temperature"], data["thresholds"], data["model"]["familiarity"]) == (1.0, None, None)
    assert (data["preprocess"]["img_size"], data["preprocess"]["fit"]) == ([8, 12], "crop")
    assert data["example"] == "UE5H"


def test_weight_takes_four_thirds_of_a_byte() -> None:
    made = predictor(embed_dim=192, num_heads=3)
    num_weights = sum(values.numel() for values in made.model.parameters())
    assert 1.33 < len(pack(made).text) / num_weights < 1.42


def test_class_name_cannot_end_the_element_of_the_model() -> None:
    names = ("</script>", "<!--", "a\u2028b", "\ud800", "c")
    packed = pack(predictor(classes=names))
    assert "<" not in packed.text
    assert tuple(json.loads(packed.text)["classes"]) == names
    assert re.findall("</?script", app_html(packed.text)) == ["<script", "</script"]


def test_script_and_style_load_nothing_and_end_where_their_elements_end() -> None:
    for text in (script_text(), style_text()):
        assert not re.search(r"</|https?:|url\(|@import|\beval\b|new Function|fetch\(|XMLHttpRequest", text)


def test_script_is_the_same_for_every_model() -> None:
    assert "MODEL" not in app_html(pack(predictor()).text)
    assert app_html(pack(predictor()).text).count("application/json") == 1


@pytest.mark.parametrize(("score", "kind"), [("neighbors", "points"), ("mahalanobis", "matrix"), ("energy", "scores")])
def test_what_training_images_look_like_is_packed_if_there_is_room(
    score: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = predictor()
    features = torch.randn(500, made.model.num_features, generator=torch.Generator().manual_seed(1))
    found = Familiarity(unit_length(features).half(), torch.arange(500) % 5, is_multilabel=False, score=score)
    without = len(pack(made).text)
    vars(made)["familiarity"] = replace(found, known=torch.arange(19).double())  # as if read from its file
    text = pack(made).text
    assert kind in json.loads(text)["model"]["familiarity"]
    assert len(text) > without
    monkeypatch.setattr(pack_module, "MOST_BYTES", len(text) - 1)
    assert len(pack(made).text) == without


@pytest.mark.parametrize("kind", ["merged", "lora"])
def test_changed_model_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"was changed after it was built; use `vitreous predict` for this model"):
        pack(predictor(kind))


def test_channels_that_a_browser_does_not_read_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.in_chans=5: a browser reads gray and color images; use `vitreous"):
        pack(
            Predictor(
                models.make_model(in_chans=5),
                Preprocess((8, 12), 5, mean=(0.5,) * 5, std=(0.2,) * 5),
                ("a",) * 5,
                1.0,
                {},
            )
        )


def test_deep_images_are_refused() -> None:
    made = predictor()
    preprocess = Preprocess((8, 12), 3, mean=(0.5,) * 3, std=(0.2,) * 3, value_range=(0.0, 4095.0))
    with pytest.raises(ConfigError, match=r"data\.value_range=0,4095: a browser reads only 8 bits of an image; use"):
        pack(Predictor(made.model, preprocess, made.classes, 1.0, {}))


@pytest.mark.parametrize("most", [10_000, 22_000])
def test_large_model_is_refused_before_or_after_it_is_packed(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "MOST_BYTES", most)
    with pytest.raises(
        ConfigError, match=rf"model=0\.0 MB: more than the {most / 1e6:g} MB, .* that a page takes; use"
    ):
        pack(predictor())
