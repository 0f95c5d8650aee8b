"""JSON schemas (draft 2020-12) of what files may hold, made from the dataclasses of options.

A schema takes what `prefixnas.base.options.resolve` takes of one file: numbers that YAML reads as
texts (`1e-3`), one text in the place of a list of them, keys by their former names. What hangs on
several keys together is left to the program.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field
from typing import Any

from pydantic import TypeAdapter

from prefixnas.base.options import (
    BOOLEANS,
    Sections,
    common_limits,
    default_of,
    fields_of,
    types_of,
)

Schema = dict[str, Any]
Properties = dict[str, Any]
"""Schemas by key."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"

NUMERIC = {"type": "string", "pattern": r"^\s*[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"}
"""A text that stands for a number."""

_WORDS = {
    "at least": "minimum",
    "at most": "maximum",
    "above": "exclusiveMinimum",
    "below": "exclusiveMaximum",
}


def document(title: str, schema: Mapping[str, Any]) -> Schema:
    """Return the schema of a file."""
    return {"$schema": DIALECT, "title": title, **schema}


def mapping(properties: Mapping[str, Any], required: Sequence[str] = ()) -> Schema:
    """Return the schema of a mapping that has no other keys."""
    found: Schema = {"type": "object", "properties": dict(properties)}
    return {**found, "required": [*required], "additionalProperties": False}


def single(properties: Mapping[str, Any]) -> Schema:
    """Return the schema of a mapping with exactly one of some keys."""
    return {**mapping(properties), "minProperties": 1, "maxProperties": 1}


def any_of(schemas: Sequence[Any]) -> Any:
    """Return the schema of what one of several takes."""
    parts: list[Any] = []
    for schema in schemas:
        whole = isinstance(schema, dict) and schema.keys() == {"anyOf"}
        parts += schema["anyOf"] if whole else [schema]
    different = [part for place, part in enumerate(parts) if part not in parts[:place]]
    return different[0] if len(different) == 1 else {"anyOf": different}


def type_schema(kind: Any) -> Schema:
    """Return the schema of a type."""
    schema = TypeAdapter(kind).json_schema()
    return {key: value for key, value in schema.items() if key not in ("title", "default")}


def properties_of(*classes: type[Any]) -> Properties:
    """Return the schemas of all keys of dataclasses of options, by key and by former name."""
    options: Sections = {str(place): cls for place, cls in enumerate(classes)}
    kinds, found = types_of(options), Properties()
    for name, entry in fields_of(options).items():
        found[name] = _key(kinds[name], entry)
        if (former := entry.metadata.get("former")) is not None:
            found[former] = {**found[name], "deprecated": True}
    return found


def _key(kind: Any, entry: Field[Any]) -> Schema:
    own = entry.metadata.get("limits", {})
    limits = {_WORDS[word]: limit for word, limit in {**common_limits(own), **own}.items()}
    schema = _limited(type_schema(kind), limits, of_mappings=bool(own))
    parts = schema.get("anyOf", [schema])
    more: list[Schema] = []
    if any(part.get("type") in ("integer", "number") for part in parts):
        more.append(NUMERIC)
    items = [part.get("items", {}) for part in parts]
    more += [item for item in items if item.get("type") == "string"]
    more += [{"const": flag} for flag in _read_as_words(parts)]
    described = {"description": entry.metadata.get("help", ""), "default": default_of(entry)}
    return {**(any_of([*parts, *more]) if more else schema), **described}


def _read_as_words(parts: Sequence[Schema]) -> list[bool]:
    """Return the booleans that YAML makes of words which are values here."""
    named = {word for part in parts for word in [*part.get("enum", ()), part.get("const")]}
    return [flag for flag, words in BOOLEANS.items() if named.intersection(words)]


def _limited(schema: Schema, limits: Mapping[str, float], *, of_mappings: bool) -> Schema:
    """Return a schema in which numbers have limits."""
    if schema.get("type") in ("integer", "number"):
        return {**schema, **limits}
    inner = ["items", *(["additionalProperties"] if of_mappings else [])]
    found = dict(schema)
    for word in inner:
        if isinstance(schema.get(word), dict):
            found[word] = _limited(schema[word], limits, of_mappings=of_mappings)
    if "anyOf" in schema:
        found["anyOf"] = [_limited(p, limits, of_mappings=of_mappings) for p in schema["anyOf"]]
    return found


def union(tables: Collection[Mapping[str, Any]]) -> Properties:
    """Return the keys of several mappings; one that several have takes what any of them takes."""
    found: dict[str, list[Schema]] = {}
    for properties in tables:
        for key, schema in properties.items():
            found.setdefault(key, []).append(schema)
    return {key: _taken_by_any(schemas) for key, schemas in found.items()}


def _taken_by_any(schemas: Sequence[Schema]) -> Schema:
    """Return one schema for several of a key; its help is the first one's."""
    told = {word: schemas[0][word] for word in _TOLD if word in schemas[0]}
    if any(schema.get("default") != told.get("default") for schema in schemas):
        told.pop("default", None)
    return {**any_of([_bare(schema) for schema in schemas]), **told}


_TOLD = ("description", "default", "deprecated")
"""Words that allow and forbid nothing."""


def _bare(schema: Schema) -> Schema:
    return {word: value for word, value in schema.items() if word not in _TOLD}


def by_name(key: str, tables: Mapping[str, Mapping[str, Any]]) -> tuple[Properties, list[Schema]]:
    """Return the keys that hang on the name that `key` has.

    Args:
        key: The key.
        tables: The keys that there are, by name.

    Returns:
        All of them together, and a rule for each name that leaves its own, where `key` is given.
    """
    every, rules = union([*tables.values()]), []
    for name, own in tables.items():
        kept: Properties = {place: False for place in every if place not in own}
        kept |= {place: own[place] for place in own if _bare(own[place]) != _bare(every[place])}
        if kept:
            condition = {"properties": {key: {"const": name}}, "required": [key]}
            rules.append({"if": condition, "then": {"properties": kept}})
    return every, rules


def named(schema: Schema, names: Collection[str], *, none: bool = False) -> Schema:
    """Return the schema of a key whose value is one of some names."""
    told = {word: schema[word] for word in _TOLD if word in schema}
    return {"enum": [*names, *([None] if none else [])], **told}
