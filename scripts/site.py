"""What `make docs` adds to the pages of docs/: files from elsewhere in the project, and the API.

A page links to a file outside of docs/ by its relative path, as a code host wants it. In the site
such a file is a page of its own: Markdown from the project's root as it is, anything else as
highlighted text. The pages of the API hold what the faces of the packages, their `__init__.pyi`,
name; griffe reads it from the source and imports nothing.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[1]

LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")
"""A link to a file: what is before its path, the path, and what is behind it."""

FACES = {
    "peml": "peml",
    "prefixnas": "prefixnas",
    "prefixnas.oneshot": "prefixnas/oneshot",
    "prefixnas.strategies": "strategies",
}
"""Per package with a face the folder that it lies in."""

UNSEARCHED = "---\nsearch: {exclude: true}\n---\n\n"
"""Begins a page that the search leaves out: those of code would come first for many words."""

LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}


class Examples(Extension):
    """Have sections called `Example:` read like those called `Examples:`, as code that is run."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Rename the sections of one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE
            )


def place(path: PurePosixPath) -> PurePosixPath:
    """Return where a file of the project lies in the site's sources.

    >>> str(place(PurePosixPath("docs/rows/bert.csv"))), str(place(PurePosixPath("README.md")))
    ('rows/bert.csv', 'readme.md')
    >>> str(place(PurePosixPath("examples/tune.yaml")))
    'files/examples/tune.yaml.md'
    """
    if path.parts[0] == "docs":
        return path.relative_to("docs")
    if len(path.parts) == 1 and path.suffix == ".md":
        return PurePosixPath(path.name.lower())
    return PurePosixPath("files", f"{path}.md")


def files_linked(path: PurePosixPath) -> Iterator[PurePosixPath]:
    """Yield the files of the project that a page links to, from the project's root."""
    for _, target, _ in LINK.findall((ROOT / path).read_text(encoding="utf-8")):
        linked = PurePosixPath(os.path.normpath(path.parent / target))
        if (ROOT / linked).is_file():
            yield linked


def files_reached() -> list[PurePosixPath]:
    """Return the pages in the project's root, and the files outside of docs/ that pages link to."""
    roots = {PurePosixPath(path.name) for path in ROOT.glob("*.md")}
    pages = roots | {PurePosixPath("docs", path.name) for path in ROOT.glob("docs/*.md")}
    linked = {path for page in pages for path in files_linked(page)}
    return sorted(roots | {path for path in linked if path.parts[0] != "docs"})


def page_of(path: PurePosixPath) -> str:
    """Return the Markdown that shows a file outside of docs/."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if place(path).parts[0] != "files":
        return text
    language = LANGUAGES.get(path.suffix, "text")
    return f"{UNSEARCHED}# `{path}`\n\n````{language}\n{text.rstrip()}\n````\n"


def names_of(folder: str) -> list[tuple[str, str]]:
    """Return (name, where it is defined) of all that the face of a package names."""
    face = ast.parse((ROOT / folder / "__init__.pyi").read_text(encoding="utf-8"))
    package = folder.replace("/", ".")
    return [
        (str(alias.asname), f"{package}.{node.module}.{alias.name}")
        for node in face.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


def page_of_face(package: str, folder: str) -> str:
    """Return the Markdown of a package's page of the API."""
    tree = ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8"))
    parts = [f"# {package}", ast.get_docstring(tree) or ""]
    parts += [
        f"::: {where}\n    options:\n      heading: {package}.{name}\n      toc_label: {name}"
        for name, where in sorted(names_of(folder), key=lambda pair: pair[0].lower())
    ]
    return "\n\n".join(parts) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings the anchors that code hosts give them."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/."""
    for path in files_reached():
        uri = str(place(path))
        shown = InclusionLevel.NOT_IN_NAV if uri.startswith("files/") else InclusionLevel.INCLUDED
        files.append(File.generated(config, uri, content=page_of(path), inclusion=shown))
    for package, folder in FACES.items():
        content = page_of_face(package, folder)
        files.append(File.generated(config, f"api/{package}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page to files of the project into links to pages of the site."""
    here = PurePosixPath(page.file.src_uri)
    roots = {str(place(path)): path for path in files_reached()}
    source = roots.get(str(here), "docs" / here)

    def moved(link: re.Match[str]) -> str:
        target = PurePosixPath(os.path.normpath(source.parent / link[2]))
        if not (ROOT / target).is_file():
            return link[0]
        return link[1] + os.path.relpath(place(target), here.parent) + link[3]

    return LINK.sub(moved, markdown)
