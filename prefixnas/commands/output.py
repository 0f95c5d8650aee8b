"""What every command says, and where: results on standard output, all else on standard error."""

from __future__ import annotations

import json
import math
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prefixnas.base.errors import one_line, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

FLAGS = ("json", "quiet", "verbose")
"""What the flags of `add_output` are called among the parsed ones."""


def add_output(parser: ArgumentParser) -> None:
    """Offer the flags that every command has; `Output.of` reads them."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the result as one JSON document")
    extent = group.add_mutually_exclusive_group()
    extent.add_argument(
        "-q", "--quiet", action="store_true", help="results, warnings and errors alone"
    )
    extent.add_argument(
        "-v", "--verbose", action="store_true", help="a line for every step of the progress"
    )


@dataclass(frozen=True)
class Output:
    """The two streams of a command.

    Attributes:
        json: Whether the result is printed as one JSON document, and nothing else beside it.
        quiet: Whether progress and notes are left out.
        verbose: Whether every step of the progress is told.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False

    @classmethod
    def of(cls, args: Namespace) -> Self:
        """Return what the flags of `add_output` say."""
        return cls(args.json, args.quiet, args.verbose)

    def note(self, line: str) -> None:
        """Say what is of no use once the command is over."""
        if not self.quiet:
            print(visible(line), file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """Say in one line what the user should know of the result."""
        print(one_line(f"warning: {message}"), file=sys.stderr, flush=True)

    def failed(self, what: str) -> None:
        """Say in one line what came to nothing, where the rest goes on."""
        print(one_line(f"failed: {what}"), file=sys.stderr, flush=True)

    def result(
        self, document: Any, *parts: RenderableType, wide: int | None = None, wrap: bool = True
    ) -> None:
        """Print the result.

        Args:
            document: All of it, for `--json`: mappings, lists, texts, numbers; paths become texts,
                dataclasses mappings, and numbers that JSON has not (NaN) null.
            parts: What is shown without: texts as they are, and tables.
            wide: Columns of a table where there is no terminal; 80 if not given.
            wrap: Whether lines are broken at the width of the terminal.
        """
        if self.json:
            indent = 2 if sys.stdout.isatty() else None  # one line for programs and logs
            print(json.dumps(plain(document), indent=indent, allow_nan=False))
            return
        for part in parts:
            if isinstance(part, str):
                print(part)
            else:
                _print(part, wide, wrap)


def _print(part: RenderableType, wide: int | None, wrap: bool) -> None:
    from prefixnas.report.terminal import Terminal

    console = Terminal(soft_wrap=not wrap)
    if wide is not None and not console.is_terminal:
        console = Terminal(width=wide, soft_wrap=not wrap)
    console.print(part)


def plain(value: Any) -> Any:
    """Return a value as JSON knows it; see `Output.result`."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Collection) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
