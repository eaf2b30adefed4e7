"""What a model wrote becomes harmless HTML: nothing in it runs, loads, styles or hides."""

from __future__ import annotations

import re
import time

import pytest
from hostile_texts import HOSTILE

from labeling.rich_text import LONGEST, plain, rich


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_runs_loads_or_styles(text: str) -> None:
    html = rich(text)
    if html is None:
        return  # shown as plain text, which nothing can run from
    tags = re.findall(r"<\s*/?\s*([a-zA-Z0-9]+)([^>]*)>", html)
    assert tags
    for name, attributes in tags:
        assert name not in {"script", "img", "svg", "iframe", "style", "a", "form", "input", "meta", "base", "link"}
        assert name not in {"object", "embed", "div", "video", "audio", "animate"}
        assert not re.search(r"\b(on\w+|style|href|src|srcset|id|formaction|xlink)\s*=", attributes)
        for found in re.findall(r'class="([^"]*)"', attributes):
            assert set(found.split()) <= {"address", "picture"}


def test_markdown_tables_code_and_formulas_are_shown() -> None:
    lists_and_code = "# Title\n\n- one\n- **two**\n\n```py\nx < 1\n```\n"
    html = rich(f"{lists_and_code}\n| a | b |\n|---|---|\n| 1 | 2 |\n\n$\\frac{{1}}{{2}}$ ~~no~~") or ""
    for part in ("<h1>Title</h1>", "<li>one</li>", "<strong>two</strong>", "<pre><code>x &lt; 1\n</code></pre>"):
        assert part in html
    for part in ("<th>a</th>", "<td>2</td>", "<mfrac>", "<s>no</s>"):
        assert part in html


def test_a_link_keeps_its_address_as_text() -> None:
    html = rich("[docs](https://example.org/a?b=1&c=2)") or ""
    assert "docs" in html
    assert "(https://example.org/a?b=1&amp;c=2)" in html
    assert "<a" not in html


@pytest.mark.parametrize("text", ["just words.", "two\nlines", "costs $5 and $6", "a < b & c > d", "", "<b>raw</b>"])
def test_words_stay_words(text: str) -> None:
    assert rich(text) is None


def test_a_formula_that_cannot_be_read_stays_as_it_was_written() -> None:
    assert "<code>\\frac{</code>" in (rich("so $\\frac{$ it is") or "")


def test_hidden_characters_become_visible_and_broken_ones_are_replaced() -> None:
    assert plain("safe\u202egnp.exe") == "safe[U+202E]gnp.exe"
    assert plain("a\u2066b\u2069\ufeff") == "a[U+2066]b[U+2069][U+FEFF]"
    assert plain("x\ud800y\x1b[0m\x00") == "x\ufffdy\ufffd[0m\ufffd"
    assert plain("tab\tand\nline") == "tab\tand\nline"
    assert "[U+202E]" in (rich("**a**\u202e") or "")


def test_long_texts_take_no_time() -> None:
    began = time.monotonic()
    assert rich("**a** " * LONGEST) is None
    for nasty in ("[" * 9000, "*" * 19_000, "> " * 9000, "$" * 19_000, "`" * 19_000, "|" * 19_000):
        rich(nasty)
    assert time.monotonic() - began < 20
