"""The JSON schemas of a comparison's file, and of a group of tasks that `transfer` takes."""

from __future__ import annotations

from prefixnas.base.schema import Schema, any_of, document, mapping, properties_of, union
from prefixnas.compare import transfer, variants
from prefixnas.compare.variants import CompareConfig
from prefixnas.launch.config import VERSIONS
from prefixnas.launch.schema import run_keys

SEEDS = {"type": "string", "pattern": r"^\s*\d+\s*(,\s*\d+\s*)*$"}
"""Numbers with commas between."""


def comparison_schema() -> Schema:
    """Return the schema of a comparison's file: keys of its own, and of all that its runs take."""
    own = properties_of(CompareConfig)
    told = {word: own["seeds"][word] for word in ("description", "default")}
    whole = {"type": "integer", "minimum": 0}
    several = {"type": "array", "items": any_of([whole, SEEDS])}
    own["seeds"] = {**any_of([several, whole, SEEDS]), **told}
    keys = run_keys().properties
    called = {key for key, name in variants.HELD.items() if key != name}
    kept = {key: schema for key, schema in keys.items() if key not in {*called, *own}}
    noted = {VERSIONS: {"type": "object"}}
    return document("A comparison of PrefixNAS", mapping(union([own, kept, noted])))


def group_schema() -> Schema:
    """Return the schema of a group's file."""
    return document("A group of tasks for prefixnas transfer", run_keys().schema(transfer.HELD))
