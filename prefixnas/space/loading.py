"""Search spaces as YAML, both ways, and the search for a space by name or file.

    name: default
    stack:
      layers: 6
      cell:
        - linear
        - choice: {key: activation, options: [relu, tanh]}
        - layer_norm

A list is a sequence; a mapping with one key is a node (`seq`, `sum`, `choice`, `stack`) or an
operation with parameters (`{dropout: 0.1}`, `{linear: {bias: false}}`). `knobs` are choices that
the objective carries out, `sizes` are numbers of layers by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.base.registry import Registry
from prefixnas.base.yaml import load_yaml, read_yaml
from prefixnas.space.nodes import Choice, Node, Op, Seq, Stack, Sum
from prefixnas.space.space import SearchSpace

NODES = ("seq", "sum", "choice", "stack")
EXTRAS = ("name", "sizes", "knobs")
"""Keys of a space: what it is made of, and what it has besides."""

CHOICE = (("key", "options"), ("decided_by",))
STACK = (("layers", "cell"), ("shared", "name"))
"""Keys of a choice and of a stack: those that they need, and those that may be left out."""


def space_from_yaml(text: str, where: str = "space") -> SearchSpace:
    """Parse a space.

    Raises:
        UserError: Anything wrong in it, with the key it is at.
    """
    return _space(load_yaml(text, where), where)


def space_to_yaml(space: SearchSpace) -> str:
    """Return the YAML text of a space; `space_from_yaml` of it gives an equal space."""
    root = _dump(space.declared)
    body = root if isinstance(root, dict) and set(root) <= set(NODES) else {"seq": [root]}
    head: dict[str, Any] = {"name": space.name}
    if space.sizes:
        head["sizes"] = dict(space.sizes)
    if space.declared_knobs:
        head["knobs"] = [_dump(knob, plain=True) for knob in space.declared_knobs]
    return yaml.safe_dump({**head, **body}, sort_keys=False)


def hash_of_space(space: SearchSpace) -> str:
    """Return a hash of all that a space says: its file may have changed since it was read."""
    return hashlib.sha256(space_to_yaml(space).encode()).hexdigest()


SPACES: Registry[SearchSpace | str] = Registry("space", "prefixnas.spaces")
"""Spaces by name: the objects themselves, or the paths of YAML files."""

for _file in resources.files("prefixnas.search_spaces").iterdir():
    if _file.name.endswith(".yaml"):
        SPACES.register(_file.name.removesuffix(".yaml"))(str(_file))


def load_space(reference: str) -> SearchSpace:
    """Return the space called `reference`, or the one in the YAML file of that path.

    Raises:
        UserError: No such space or file, or a mistake in it.
    """
    if reference.endswith((".yaml", ".yml")):
        return _space(read_yaml(Path(reference)), reference)
    offered = SPACES.get(reference)
    return offered if isinstance(offered, SearchSpace) else load_space(offered)


def _space(data: Any, where: str) -> SearchSpace:
    if not isinstance(data, dict):
        raise UserError(f"{where}: a space is a mapping with 'name' and one of {', '.join(NODES)}")
    for key in data:
        if key not in (*EXTRAS, *NODES):
            raise unknown("key", key, [*EXTRAS, *NODES], where)
    roots = [key for key in data if key not in EXTRAS]
    if len(roots) != 1:
        raise UserError(
            f"{where}: a space needs exactly one of {', '.join(NODES)}, not {roots or 'none'}"
        )
    name = data.get("name")
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: key 'name' must be a text, not {brief(name)}")
    try:
        knobs = [_knob(item, f"knobs[{index}]") for index, item in enumerate(_knobs(data))]
        return SearchSpace(name, _node({roots[0]: data[roots[0]]}, ""), knobs, _sizes(data))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _sizes(data: dict[str, Any]) -> dict[str, int]:
    sizes = data.get("sizes") or {}
    if not isinstance(sizes, dict):
        raise UserError(f"sizes: expected a mapping of names to numbers, not {brief(sizes)}")
    for name, value in sizes.items():
        if not isinstance(name, str):
            raise UserError(f"sizes: a name must be a text, not {brief(name)}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(
                f"sizes.{name}: must be a whole number of at least 1, not {brief(value)}"
            )
    return sizes


def _knobs(data: dict[str, Any]) -> list[Any]:
    knobs = data.get("knobs") or []
    if not isinstance(knobs, list):
        raise UserError(f"knobs: expected a list of choices and stacks, not {brief(knobs)}")
    return knobs


def _knob(data: Any, at: str) -> Node:
    """Parse a choice between names, or a stack of such choices."""
    if isinstance(data, list):
        return Seq(*(_knob(item, f"{at}[{index}]") for index, item in enumerate(data)))
    if not isinstance(data, dict) or len(data) != 1 or not {*data} <= {"choice", "stack"}:
        raise UserError(f"{at}: expected a mapping with the key choice or stack, not {brief(data)}")
    if "choice" in data:
        return _plain_choice(data["choice"], f"{at}.choice")
    return _stack(data["stack"], f"{at}.stack", _knob)


def _plain_choice(data: Any, at: str, decided_by: str = "alpha") -> Choice:
    """Parse a choice whose options are names or numbers."""
    fields = _fields(data, at, *CHOICE)
    if not isinstance(fields["key"], str):
        raise UserError(f"{at}.key: expected a text, not {brief(fields['key'])}")
    options = fields["options"] or []
    if not isinstance(options, list):
        raise UserError(f"{at}.options: expected a list, not {brief(options)}")
    for index, option in enumerate(options):
        if isinstance(option, bool):
            raise UserError(
                f"{at}.options[{index}]: YAML reads on, off, yes and no as true and false; "
                "put the names in quotes"
            )
        if not isinstance(option, str | int | float):
            raise UserError(
                f"{at}.options[{index}]: expected a name or a number, not {brief(option)}"
            )
    return Choice(fields["key"], options, fields.get("decided_by", decided_by))


def _node(data: Any, at: str) -> Node:
    if isinstance(data, str):
        if data in NODES:
            raise UserError(f"{at}: {data!r} needs a value: a mapping or a list below it")
        return Op(data)
    if isinstance(data, list):
        return _sequence(data, at)
    if not isinstance(data, dict) or len(data) != 1:
        raise UserError(
            f"{at}: expected an operation, a list, or a mapping with one key, not {brief(data)}"
        )
    ((kind, body),) = data.items()
    if kind == "seq":
        return _sequence(body, at or "seq")
    if kind == "sum":
        return Sum(*_items(body, f"{at}.sum".lstrip(".")))
    if kind == "choice":
        return _choice(body, f"{at}.choice".lstrip("."))
    if kind == "stack":
        return _stack(body, f"{at}.stack".lstrip("."))
    from prefixnas.space.ops import OPS

    if kind not in OPS:
        raise unknown("operation or key", kind, [*OPS.names(), *NODES], at)
    if isinstance(body, dict):
        return Op(str(kind), **{str(key): value for key, value in body.items()})
    if isinstance(body, list):
        raise UserError(f"{at}: operation {kind!r} takes a value or a mapping, not a list")
    return Op(str(kind)) if body is None else Op(str(kind), body)


def _items(data: Any, at: str) -> list[Node]:
    if not isinstance(data, list):
        raise UserError(f"{at}: expected a list of nodes, not {brief(data)}")
    return [_node(item, f"{at}[{index}]") for index, item in enumerate(data)]


def _sequence(data: Any, at: str) -> Node:
    return Seq(*_items(data, at))


def _fields(
    data: Any, at: str, required: tuple[str, ...], optional: tuple[str, ...]
) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UserError(f"{at}: expected a mapping with the keys {', '.join(required)}")
    for key in data:
        if key not in (*required, *optional):
            raise unknown("key", key, [*required, *optional], at)
    for key in required:
        if key not in data:
            raise UserError(f"{at}: key {key!r} is missing")
    return data


def _choice(data: Any, at: str) -> Choice:
    fields = _fields(data, at, *CHOICE)
    if not isinstance(fields["key"], str):
        raise UserError(f"{at}.key: expected a text, not {brief(fields['key'])}")
    options: list[Node | str] = list(_items(fields["options"] or [], f"{at}.options"))
    return Choice(fields["key"], options, fields.get("decided_by", "alpha"))


def _stack(data: Any, at: str, inner: Callable[[Any, str], Node] = _node) -> Stack:
    fields = _fields(data, at, *STACK)
    shared = fields.get("shared", False)
    if not isinstance(shared, bool):
        raise UserError(f"{at}.shared: expected true or false, not {brief(shared)}")
    layers = fields["layers"]
    if isinstance(layers, dict) and set(layers) == {"choice"}:
        layers = _plain_choice(layers["choice"], f"{at}.layers.choice", "trial")
    name = fields.get("name", "layer")
    return Stack(layers, inner(fields["cell"], f"{at}.cell"), shared, str(name))


def _number(text: str) -> str | int:
    """Return the whole number that a text stands for, if YAML may show it as one."""
    return int(text) if text.isdecimal() and str(int(text)) == text else text


def _dump(node: Node, plain: bool = False) -> Any:
    """Return what YAML holds of a node; `plain` where options are names, not operations."""
    if isinstance(node, Op):
        if plain:
            return _number(node.name)
        if node.kwargs and node.args:
            raise UserError(
                f"operation {node.label!r}: YAML holds one value or named parameters, not both"
            )
        if len(node.args) > 1:
            raise UserError(f"operation {node.label!r}: name the parameters to write it as YAML")
        if node.kwargs:
            return {node.name: dict(node.kwargs)}
        return {node.name: node.args[0]} if node.args else node.name
    if isinstance(node, Seq):
        parts = [_dump(part, plain) for part in node.nodes]
        return parts if plain else {"seq": parts}
    if isinstance(node, Sum):
        return {"sum": [_dump(branch, plain) for branch in node.branches]}
    if isinstance(node, Stack):
        layers = node.layers
        shown = _dump(layers, plain=True) if isinstance(layers, Choice) else layers
        stack: dict[str, Any] = {"layers": shown, "cell": _dump(node.cell, plain)}
        if node.shared:
            stack["shared"] = True
        if node.name != "layer":
            stack["name"] = node.name
        return {"stack": stack}
    assert isinstance(node, Choice)
    choice: dict[str, Any] = {
        "key": node.key,
        "options": [_dump(option, plain) for option in node.options],
    }
    if node.decided_by != "alpha":
        choice["decided_by"] = node.decided_by
    return {"choice": choice}
