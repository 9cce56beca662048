"""The page: names are escaped, and its policy allows nothing but its own script, style and server."""

import base64
import hashlib
import re

import pytest

from vitreous.use.serve.page import page_html

HOSTILE = '"><script>alert(1)</script>'


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_policy_allows_only_the_own_script_style_and_server() -> None:
    text = page_html([HOSTILE], needs_key=False)
    (style,), (script,) = (re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("style", "script"))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert dict(rule.split(" ", 1) for rule in policy.split("; ")) == {
        "default-src": "'none'",
        "img-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "style-src": hash_of(style),
        "script-src": hash_of(script),
    }
    assert not re.findall(r"https?://|\bstyle=|\bon\w+=", text)


@pytest.mark.parametrize(("names", "is_hidden"), [(["a"], True), (["KEY", "FEW"], False)])
def test_models_are_offered_if_there_are_several(names: list[str], is_hidden: bool) -> None:
    text = page_html(names, needs_key=False)
    assert ('<fieldset id="models" hidden>' in text) is is_hidden
    assert re.findall(r'type="checkbox" value="(.+?)" checked', text) == names


@pytest.mark.parametrize("needs_key", [True, False])
def test_key_is_asked_for_only_if_it_is_needed(needs_key: bool) -> None:
    assert ('<p id="key" hidden>' in page_html(["a"], needs_key=needs_key)) is not needs_key
