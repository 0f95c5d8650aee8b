"""A page: one HTML file with everything inside, no scripts, nothing from outside."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template

SHORT, LONG_FACT = 18, " class='long'"
"""Characters of a fact that fit into a narrow field, and what makes it a wide one."""


def page(title: str, facts: Mapping[str, str], *sections: str) -> str:
    """Return the HTML text of a page.

    Args:
        title: Its heading.
        facts: What stands on top, by label.
        sections: See `section`.
    """
    shown = "".join(
        f"<div{LONG_FACT * (len(text) > SHORT)}>"
        f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>"
        for label, text in facts.items()
    )
    template = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), facts=shown, body="".join(sections))


def section(title: str, *parts: str) -> str:
    """Return a part of a page with a heading; nothing if it holds nothing."""
    content = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def image(title: str, png: bytes) -> str:
    """Return a picture that stands in the page itself."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f"<figure><figcaption>{escape(title)}</figcaption><div class='paper'>"
        f"<img alt='{escape(title)}' src='data:image/png;base64,{data}'></div></figure>"
    )


def details(title: str, content: str) -> str:
    """Return HTML that is shown when its title is clicked on; nothing if there is none."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>" if content else ""


def verbatim(text: str) -> str:
    """Return a text with its lines as they are; nothing if it is empty."""
    return f"<pre>{escape(text)}</pre>" if text else ""
