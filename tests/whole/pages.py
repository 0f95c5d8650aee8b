"""The pages of the documentation: their blocks and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefixnas.launch.config import run_options
from prefixnas.run.objective import OBJECTIVES
from prefixnas.run.strategy import STRATEGIES
from tests import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name of the file that this block is, if it begins with one."""
        match = re.match(r"# ([\w/-]+\.\w+)$", self.text.partition("\n")[0])
        return match[1] if match else None


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start, language = None, ""
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start, language = number, line.removeprefix("```").strip()
            continue
        above = next((text for text in reversed(lines[:start]) if text.strip()), "")
        mark = re.fullmatch(r"<!-- not run: (.+) -->", above.strip())
        text = "\n".join(lines[start + 1 : number]) + "\n"
        found.append(Block(page, start + 1, language, text, mark[1] if mark else None))
        start = None
    assert start is None, f"{page.name}: the block of line {start} has no end"
    return found


def table_rows(page: Path, first: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (first cell, other cells) of the tables whose first heading is `first`."""
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if inside and not cells[0].startswith("---"):
            yield cells[0].strip("`"), cells[1:]
        inside = inside or cells[0] == first


def options(strategy: str) -> dict[str, type[Any]]:
    """Return the dataclasses of all keys of a search."""
    return {
        "run": run_options(OBJECTIVES.get("language-model")),
        "strategy": STRATEGIES.get(strategy),
        "objective": OBJECTIVES.get("language-model"),
    }
