"""Answers as people read them: Markdown with code, tables and formulas, made into harmless HTML.

What a model wrote is hostile until shown otherwise. Raw HTML in it stays text; links keep their address as text alone;
pictures are never fetched; formulas become MathML; and whatever comes out passes an allow-list of plain elements
without attributes that could load, run or style anything. Characters that turn the direction of writing, with which a
text can show what it does not say, become visible.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import nh3
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

LONGEST = 20_000  # characters; a longer text is shown as it is
LONGEST_FORMULA = 2_000
MATH = {
    *("math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "msup", "msub", "msubsup", "mfrac", "msqrt", "mroot"),
    *("mover", "munder", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded", "mphantom", "menclose", "mfenced"),
}
TEXT = {
    *("p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "span"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {
    "ol": {"start"},
    "math": {"display"},
    "mo": {"stretchy", "fence", "separator"},
    "mtable": {"columnalign", "rowspacing", "columnspacing"},
    "mfrac": {"linethickness"},
}
CLASSES = {"span": {"address", "picture"}}
# Bidirectional overrides, embeddings and isolates (Unicode TR 9), and other characters that are there to hide.
HIDDEN = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\u2028\u2029\ufeff]")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def plain(text: str) -> str:
    """The text with hidden characters made visible (as `[U+202E]`) and control characters replaced."""
    return CONTROL.sub("\ufffd", HIDDEN.sub(lambda m: f"[U+{ord(m[0]):04X}]", text))


@lru_cache(maxsize=2048)
def rich(text: str) -> str | None:
    """The text as HTML; None when it is too long, or nothing but words, which the page shows as they are."""
    if len(text) > LONGEST:
        return None
    shown = plain(text)
    html = nh3.clean(
        _MARKDOWN.render(shown),
        tags=TEXT | MATH,
        attributes=ATTRIBUTES,
        allowed_classes=CLASSES,
        url_schemes=set(),
        link_rel=None,
    )
    bare = re.sub(r"</?p>|\n|<br>", " ", html)
    return html if "<" in bare else None


def _address(self: RendererHTML, tokens: Sequence[Token], n: int, options: Any, env: Any) -> str:
    """The end of a link: its address as text, where that is not what the link says already."""
    begin = n
    while tokens[begin].type != "link_open":
        begin -= 1
    address = str(tokens[begin].attrGet("href") or "")
    said = "".join(token.content for token in tokens[begin:n])
    return "" if said == address else f' <span class="address">({_escape(address)})</span>'


def _picture(self: RendererHTML, tokens: Sequence[Token], n: int, options: Any, env: Any) -> str:
    """A picture as its words."""
    return f'<span class="picture">[picture: {_escape(tokens[n].content)}]</span>'


def _formula(content: str, options: dict[str, Any]) -> str:
    """A formula as MathML; what cannot be read stays as it was written."""
    source = f"<code>{_escape(content)}</code>"
    if len(content) > LONGEST_FORMULA:
        return source
    try:
        return str(convert(content, display="block" if options.get("display_mode") else "inline"))
    except Exception:  # the converter raises what it likes on what it does not know
        return source


def _escape(text: str) -> str:
    return nh3.clean_text(text)


def _markdown() -> MarkdownIt:
    # No raw HTML; no typographic changes: people compare what was written.
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    markdown.validateLink = lambda url: True  # type: ignore[method-assign]  # no address becomes a link
    markdown.use(dollarmath_plugin, allow_space=False, allow_digits=False, double_inline=True, renderer=_formula)
    markdown.add_render_rule("link_open", lambda self, tokens, n, options, env: "")
    markdown.add_render_rule("link_close", _address)
    markdown.add_render_rule("image", _picture)
    return markdown


_MARKDOWN = _markdown()
