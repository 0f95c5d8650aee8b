"""The documentation as a site: every page is found in it, and nothing in it leads nowhere."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests import ROOT

griffe = pytest.importorskip("griffe", reason="needs the extra docs")
site = pytest.importorskip("scripts.site", reason="needs the extra docs")

LOADS = {("img", "src"), ("script", "src"), ("iframe", "src"), ("source", "src")}
"""What a browser fetches by itself; a link's address, too, unless it is one of those of `ASIDE`."""
ASIDE = {"canonical", "next", "prev", "edit", "alternate"}


def entries(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        (target,) = entry.values()
        yield from [target] if isinstance(target, str) else entries(target)


class Html(HTMLParser):
    """The addresses in a page, those that are loaded among them, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        for name in ("href", "src"):
            if name in given:
                self.links.add(given[name])
                fetched = tag == "link" and given.get("rel") not in ASIDE
                if fetched or (tag, name) in LOADS:
                    self.loaded.add(given[name])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Html]:
    """The built site, page by page."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", out]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path: Html(path.read_text("utf-8")) for path in out.rglob("*.html")}


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    nav = list(entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    docs = [path.name for path in (ROOT / "docs").glob("*.md")]
    roots = [path.name.lower() for path in ROOT.glob("*.md")]
    faces = [f"api/{package}.md" for package in site.FACES]
    assert sorted(nav) == sorted([*docs, *roots, *faces])


def test_the_first_page_has_the_groups_of_the_navigation_in_their_order() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    groups = {title: list(entries_of(entry)) for each in nav for title, entry in each.items()}
    parts = (ROOT / "docs" / "index.md").read_text().split("\n## ")[1:]
    shown = {
        part.splitlines()[0]: re.findall(r"^\| \[(.+?)\]\((.+?)\)", part, re.M) for part in parts
    }
    for title in ("Tutorials", "How-to guides", "Reference", "Explanation"):
        linked = [(name, site_place(target)) for name, target in shown[title]]
        assert linked == groups[title]


def entries_of(nav: Any) -> Iterator[tuple[str, str]]:
    """The pages right in a group of the navigation, with their titles."""
    for entry in nav if isinstance(nav, list) else ():
        yield from ((title, page) for title, page in entry.items() if isinstance(page, str))


def site_place(link: str) -> str:
    return str(site.place(PurePosixPath(os.path.normpath(f"docs/{link}"))))


def test_everything_in_the_api_says_what_it_is() -> None:
    """An entry of a page without a text would be a heading over nothing."""
    loader = griffe.GriffeLoader(search_paths=[ROOT], allow_inspection=False)
    roots = {folder.partition("/")[0] for folder in site.FACES.values()}
    found = {root: loader.load(root) for root in roots}
    silent = []
    for where in (where for folder in site.FACES.values() for _, where in site.names_of(folder)):
        root, _, path = where.partition(".")
        offered = found[root][path]
        own = [each for name, each in offered.members.items() if name[0] != "_"]
        functions = [each for each in own if offered.is_class and each.is_function]
        silent += [each.path for each in [offered, *functions] if not each.has_docstring]
    assert silent == []


def test_the_api_is_what_the_packages_offer() -> None:
    for package, folder in site.FACES.items():
        offered = set(importlib.import_module(package).__all__) - {"__version__"}
        assert {name for name, _ in site.names_of(folder)} == offered


def test_every_address_in_the_site_exists(pages: dict[Path, Html]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its addresses count from the host's root
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = target in pages and parts.fragment in {"", *pages[target].anchors}
            if not known and not (target.suffix != ".html" and target.exists()):
                broken.append((path.name, link))
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Html]) -> None:
    assert {
        link for page in pages.values() for link in page.loaded if urlsplit(link).netloc
    } == set()


def test_every_public_name_has_its_place(pages: dict[Path, Html]) -> None:
    anchors = {anchor for page in pages.values() for anchor in page.anchors}
    for folder in site.FACES.values():
        assert {where for _, where in site.names_of(folder)} <= anchors


@pytest.mark.parametrize(
    ("page", "link", "becomes"),
    [
        ("readme.md", "docs/tasks.md#one-file", "tasks.md#one-file"),
        ("index.md", "../README.md", "readme.md"),
        ("spaces.md", "../examples/digits.yaml", "files/examples/digits.yaml.md"),
        ("results.md", "rows/bert.csv", "rows/bert.csv"),
        ("index.md", "nowhere.md", "nowhere.md"),
        ("index.md", "https://arxiv.org/abs/1806.09055", "https://arxiv.org/abs/1806.09055"),
    ],
)
def test_a_link_leads_to_the_same_file_in_the_site(page: str, link: str, becomes: str) -> None:
    at: Any = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    shown = site.on_page_markdown(f"see [it]({link}).", at, config=None, files=None)
    assert shown == f"see [it]({becomes})."


def test_files_outside_of_the_documentation_have_places_of_their_own() -> None:
    reached = site.files_reached()
    assert PurePosixPath("README.md") in reached
    assert len({site.place(path) for path in reached}) == len(reached)
    assert not any((ROOT / "docs" / site.place(path)).exists() for path in reached)
