"""YAML in: one reader, with limits, for every file that this project or its user wrote.

What a file may hold is less than what YAML allows: no tags of its own, no date (it stays a text),
no key twice, and only as much as a person would write. A file beyond the limits is refused before
anything is made of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from prefixnas.base.errors import UserError, brief, first_line
from prefixnas.base.files import read_text

SIZE = 1_000_000
"""Characters of a file."""

NODES = 50_000
"""Values, lists, mappings and keys in a file, those counted again that an alias repeats."""

DEPTH = 50
"""Lists and mappings inside each other."""

DIGITS = 100
"""Characters of a number."""

_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
_TAGS = {None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", *_PLAIN}
_TEXTS = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")

_RESOLVERS = {
    first: [(tag, form) for tag, form in resolvers if tag not in _TEXTS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.

    Raises:
        UserError: The file is missing, unreadable or not YAML, or it is beyond the limits.
    """
    return load_yaml(read_text(path, SIZE), str(path))


def load_yaml(text: str, where: str) -> Any:
    """Parse YAML into dicts, lists, texts, numbers, booleans and None.

    Raises:
        UserError: A syntax error or something that is not allowed, with its line and column.
    """
    return load_with_nodes(text, where)[0]


def load_with_nodes(text: str, where: str) -> tuple[Any, Any]:
    """Parse YAML; return what `load_yaml` does, and PyYAML's node of it, which knows its lines.

    Raises:
        UserError: As `load_yaml`.
    """
    if len(text) > SIZE:
        raise UserError(f"{where}: more than {SIZE:,} characters of YAML")
    try:
        loader = _Loader(text)  # looks for characters that YAML does not allow
        try:
            node = loader.get_single_node()
            return (None if node is None else loader.construct_document(node)), node
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        kind = "" if isinstance(error, _Refused) else "not valid YAML: "
        raise UserError(f"{where}:{place} {kind}{problem}") from error


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that is not allowed here."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """The safe loader within the limits of this module."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.yaml_implicit_resolvers = _RESOLVERS
        self._nodes, self._depth, self._height = 0, 0, 0
        self._whole: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Make a node of the next events; what an alias repeats is counted once more."""
        loader: Any = self  # PyYAML has no annotations
        event = loader.peek_event()
        if isinstance(event, yaml.AliasEvent):
            node: Any = super().compose_node(parent, index)
            if id(node) not in self._whole:
                raise _Refused(f"alias {event.anchor!r} refers to what it is in", event.start_mark)
            size, height = self._whole[id(node)]
            self._count(size, height, event.start_mark)
        else:
            if event.tag not in _TAGS:
                raise _Refused(f"the tag {brief(event.tag)} is not allowed", event.start_mark)
            before, beside, self._height = self._nodes, self._height, 0
            self._count(1, 1, event.start_mark)
            self._depth += 1
            node = super().compose_node(parent, index)
            self._depth -= 1
            height = self._height + 1
            self._height = beside
            self._whole[id(node)] = self._nodes - before, height
            _check_number(node)
        self._height = max(self._height, height)
        return node

    def _count(self, nodes: int, height: int, mark: Any) -> None:
        self._nodes += nodes
        if self._nodes > NODES:
            raise _Refused(f"more than {NODES:,} values", mark)
        if self._depth + height > DEPTH:
            raise _Refused(f"more than {DEPTH} lists and mappings inside each other", mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; a key that occurs twice is refused instead of dropping the first."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Refused("a key must be a text or a number", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {brief(key_node.value)} occurs twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Build a value; a number that Python cannot read is no traceback."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise _Refused(f"{brief(node.value)} is no number", node.start_mark) from error


def _check_number(node: Any) -> None:
    number = node.tag.endswith((":int", ":float"))
    if number and isinstance(node, yaml.ScalarNode) and len(node.value) > DIGITS:
        raise _Refused(
            f"a number of {len(node.value):,} characters, at most {DIGITS}", node.start_mark
        )
