"""Pages: what their policy allows, and HTML that any text leaves whole."""

import base64
import hashlib
import re

from tests.unit.use.report.test_page import Page

from vitreous.use.html import markup


def test_policy_allows_the_style_and_the_script_of_the_page_by_their_hashes() -> None:
    html = markup.page("<i>", ["<p>text</p>"], "p { color: red; }", script='"use strict";')
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[0]
    for kind, end in (("style", "p { color: red; }"), ("script", '"use strict";')):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        assert text.endswith(end)
        assert f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "<title>&lt;i&gt;</title>" in html


def test_shared_style_and_script_cannot_end_their_elements() -> None:
    html = markup.page("title", [])
    assert "</" not in html.split("<script>")[1].split("</script></body></html>")[0]
    assert "</" not in html.split("<style>")[1].split("</style></head>")[0]
    assert "<nav" not in html


def test_bars_have_the_length_of_their_count_without_a_style_attribute() -> None:
    html = markup.bars("class", {"<i>": 40, "b": 10, "none": 0})
    assert re.findall(r'<rect width="([\d.]+)"', html) == ["100.0", "25.0", "0.0"]
    assert "style=" not in html
    assert Page(f"<div>{html}</div>").texts == ["class", "images", "<i>", "40", "b", "10", "none", "0"]
    assert markup.bars("class", {}).count("<rect") == 0


def test_items_of_a_gallery_are_escaped() -> None:
    page = Page(markup.gallery([markup.photo([("data:,", '"><script>')], "<b>x</b>")], "small", 'a"b'))
    assert [tag for tag, _ in page.tags] == ["ul", "li", "figure", "img", "figcaption", "b"]
    assert dict(page.tags)["ul"]["aria-label"] == 'a"b'
    assert dict(page.tags)["img"]["alt"] == '"><script>'


def test_commands_in_sentences_are_marked_and_everything_is_escaped() -> None:
    found = markup.sentences(["`a --b <c>` does <d>", "one ` only"])
    assert found == "<ul><li><code>a --b &lt;c&gt;</code> does &lt;d&gt;</li><li>one ` only</li></ul>"
