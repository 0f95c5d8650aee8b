"""The JSON schema of a task's file, from the types and the help of `TaskSpec`."""

from __future__ import annotations

import re
import typing
from typing import Any

from peml.tasks.spec import KEYS, SPLITS, TaskSpec
from prefixnas.base.schema import NUMERIC, Schema, any_of, document, mapping, type_schema

TEXT = {"type": "string"}
SCALAR = {"type": ["string", "number"]}
"""A text that YAML may take for a number."""

TAKEN: dict[str, Schema] = {
    "label_map": {"type": "object", "additionalProperties": SCALAR},
    "metrics": TEXT,
    "gamma": NUMERIC,
    "selection": NUMERIC,
}
"""What is read besides a key's type."""

NARROW: dict[str, Schema] = {
    "source": any_of([
        TEXT,
        {
            **mapping(dict.fromkeys(SPLITS, any_of([TEXT, {"type": "array", "items": TEXT}]))),
            "minProperties": 1,
        },
    ]),
    "choices": any_of([TEXT, {"type": "array", "items": SCALAR, "minItems": 2}]),
    "splits": mapping(dict.fromkeys(SPLITS, TEXT)),
}  # fmt: skip
"""Keys whose type says less than what is read."""


def task_schema() -> Schema:
    """Return the schema of a task's file; every key may be left empty."""
    hints, told = typing.get_type_hints(TaskSpec), _told()
    properties: dict[str, Any] = {}
    for key in KEYS:
        parts = [NARROW[key]] if key in NARROW else [type_schema(hints[key])]
        parts += [TAKEN[key]] if key in TAKEN else []
        properties[key] = {**any_of([*parts, {"type": "null"}]), "description": told.get(key, "")}
    return document("A task of PEML", mapping(properties))


def _told() -> dict[str, str]:
    """Return what the docstring says of each key."""
    text = (TaskSpec.__doc__ or "").partition("Attributes:")[2]
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", text, re.MULTILINE)
    return {key: " ".join(help.split()) for key, help in found}
