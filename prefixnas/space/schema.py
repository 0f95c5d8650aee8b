"""The JSON schema of a search space, from the operations that there are."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from torch import nn

from prefixnas.base.schema import Schema, any_of, document, mapping, single, type_schema
from prefixnas.space.loading import CHOICE, EXTRAS, NODES, STACK
from prefixnas.space.nodes import DecidedBy
from prefixnas.space.ops import OPS

TEXT, NODE, KNOB = {"type": "string"}, {"$ref": "#/$defs/node"}, {"$ref": "#/$defs/knob"}
COUNT = {"type": "integer", "minimum": 1}


def space_schema() -> Schema:
    """Return the schema of a space's file; registered operations are those of the moment."""
    bodies: dict[str, Any] = {
        "seq": {"type": "array", "items": NODE},
        "sum": {"type": "array", "items": NODE},
        "choice": _choice({"type": "array", "minItems": 1, "items": NODE}),
        "stack": _stack(NODE),
    }
    operations = {name: _operation(OPS.get(name)) for name in OPS.names()}
    node: Schema = any_of([
        {"enum": OPS.names()},
        {"type": "array", "items": NODE},
        single({**{name: bodies[name] for name in NODES}, **operations}),
    ])  # fmt: skip
    extras: dict[str, Any] = {
        "name": {"type": "string", "minLength": 1},
        "sizes": {"type": ["object", "null"], "additionalProperties": COUNT},
        "knobs": {"type": ["array", "null"], "items": KNOB},
    }
    root = mapping({name: extras[name] for name in EXTRAS} | bodies, ["name"])
    roots = [{"required": [name]} for name in NODES]
    definitions = {"node": node, "knob": _knob()}
    return document("A search space of PrefixNAS", {**root, "oneOf": roots, "$defs": definitions})


def _fields(fields: tuple[tuple[str, ...], tuple[str, ...]], known: dict[str, Any]) -> Schema:
    required, optional = fields
    return mapping({name: known[name] for name in (*required, *optional)}, required)


def _choice(options: Schema) -> Schema:
    known = {"key": TEXT, "options": options, "decided_by": type_schema(DecidedBy)}
    return _fields(CHOICE, known)


def _names() -> Schema:
    return {"type": "array", "minItems": 1, "items": {"type": ["string", "number"]}}


def _stack(cell: Schema) -> Schema:
    layers = any_of([COUNT, TEXT, single({"choice": _choice(_names())})])
    known = {"layers": layers, "cell": cell, "shared": {"type": "boolean"}, "name": {}}
    return _fields(STACK, known)


def _knob() -> Schema:
    mappings = single({"choice": _choice(_names()), "stack": _stack(KNOB)})
    knob: Schema = any_of([{"type": "array", "items": KNOB}, mappings])
    return knob


def _operation(operation: type[nn.Module]) -> Schema:
    """Return what stands behind an operation's name: nothing, its first parameter, or several."""
    hints = get_type_hints(operation.__init__)
    known, named = {}, True
    for name, parameter in inspect.signature(operation).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            named = False
        elif name != "width":
            plain = hints.get(name) in (bool, int, float, str)
            known[name] = type_schema(hints[name]) if plain else {}
    first = [*known.values()][:1] if named else [{"not": {"type": "array"}}]
    parameters = mapping(known) if named else {"type": "object"}
    summary = (inspect.getdoc(operation) or "").partition("\n")[0]
    return {**any_of([{"type": "null"}, *first, parameters]), "description": summary}
