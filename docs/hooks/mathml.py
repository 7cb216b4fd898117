"""TeX to MathML while the site is built: formulas need no script and nothing from the net."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
DISPLAYED = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace what arithmatex marked as TeX."""
    content = DISPLAYED.sub(lambda m: convert(html.unescape(m[1]).strip(), display="block"), content)
    return INLINE.sub(lambda m: convert(html.unescape(m[1]).strip()), content)
