"""A page: one HTML file with everything inside, no scripts, nothing from outside."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from string import Template


def page(title: str, facts: Mapping[str, str], *sections: str) -> str:
    """Return the HTML text of a page.

    Args:
        title: Its heading.
        facts: What stands on top, by label.
        sections: See `section`.
    """
    shown = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>"
        for label, text in facts.items()
    )
    return _PAGE.substitute(title=escape(title), facts=shown, body="".join(sections))


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


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1d2127; --dim: #626a75; --page: #fff; --line: #dfe2e6;
  --soft: #f4f5f7; --warn: #fff4dd; --warn-line: #e0a100; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6ea; --dim: #9aa2ad; --page: #16191d;
  --line: #343a42; --soft: #20252b; --warn: #33290f; --warn-line: #a97d10; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 62rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .8rem; font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 .7rem; font-size: 1.2rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem;
  margin: 0; }
dl div { padding: .5rem .7rem; background: var(--soft); border-radius: .4rem; }
dt { color: var(--dim); font-size: .8rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { color: var(--dim); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
thead .number { white-space: normal; }
td > b, td > span { white-space: nowrap; }
.section > * { border-top: 2px solid var(--line); }
.section th { font-weight: 600; }
figure { margin: 1.2rem 0; }
figcaption { color: var(--dim); font-size: .9rem; margin-bottom: .35rem; }
.paper { background: #fff; border: 1px solid var(--line); border-radius: .4rem; padding: .5rem;
  overflow-x: auto; }
img { display: block; width: 100%; min-width: 34rem; height: auto; }
.warnings { margin-top: 1.2rem; padding: .1rem 1rem; background: var(--warn);
  border-left: 4px solid var(--warn-line); border-radius: .3rem; overflow-wrap: anywhere; }
.warnings h2 { margin: .6rem 0 0; font-size: 1rem; }
.warnings ul { margin: .3rem 0 .7rem; padding-left: 1.2rem; }
.dim { color: var(--dim); }
details { margin: .6rem 0; }
summary { cursor: pointer; padding: .25rem 0; }
pre { overflow-x: auto; padding: .8rem; background: var(--soft); border-radius: .4rem;
  font-size: .85rem; }
@media (max-width: 36rem) { th, td { padding-right: .5rem; } table { font-size: .86rem; } }
@media print { details > * { display: block; } .paper { border: none; } }
</style>
</head>
<body>
<h1>$title</h1>
<dl>$facts</dl>
$body
</body>
</html>
""")
