"""The JSON schema of a table's file."""

from __future__ import annotations

from typing import Any

from peml.tables.file import Paper, TableFile
from peml.tables.plan import EQUAL, OWN
from prefixnas.base.schema import Schema, any_of, document, mapping, properties_of
from prefixnas.launch.schema import run_keys

VARIABLE = {"type": "string", "pattern": r"\$"}
"""A text with a variable of the environment in it."""


def table_schema() -> Schema:
    """Return the schema of a table's file; texts with variables may stand for any value."""
    keys, own = run_keys(), properties_of(TableFile)
    keys.properties.update({key: any_of([s, VARIABLE]) for key, s in keys.properties.items()})
    every = {key: schema for key, schema in keys.properties.items() if key not in OWN}
    of_row: dict[str, Any] = {key: schema for key, schema in every.items() if key not in EQUAL}
    of_row["tasks"] = keys.properties["tasks"]
    row = any_of([mapping(of_row), {"type": "null"}])
    parts: dict[str, Schema] = {
        "common": mapping(every),
        "rows": {"type": "object", "additionalProperties": row},
        "paper": mapping(properties_of(Paper)),
    }
    for key, schema in parts.items():
        own[key] = {**schema, "description": own[key]["description"]}
    return document("A table of PEML", mapping(own))
