"""The JSON schema of an experiment's file, which `tune` and `experiment` take."""

from __future__ import annotations

from typing import Any

from prefixnas.base.schema import NUMERIC, Schema, any_of, document, mapping, properties_of, single
from prefixnas.experiments.experiment import ExperimentFile, Target
from prefixnas.experiments.hyperparameters import KINDS
from prefixnas.experiments.nni.settings import NniSettings
from prefixnas.launch.config import VERSIONS
from prefixnas.launch.schema import run_keys

PARAMETER = {"$ref": "#/$defs/hyperparameter"}


def experiment_schema() -> Schema:
    """Return the schema of an experiment's file."""
    keys, own = run_keys(), properties_of(ExperimentFile)
    names: Schema = {"propertyNames": {"enum": [*keys.properties]}}
    parts: dict[str, Schema] = {
        "base": keys.schema(),
        "hyperparameters": {"type": "object", **names, "additionalProperties": PARAMETER},
        "objective": mapping(properties_of(Target)),
        "early_stopping": mapping({"patience": {"type": "integer", "minimum": 1}}),
        "nni": mapping(properties_of(NniSettings)),
    }
    for key, schema in parts.items():
        own[key] = {**schema, "description": own[key]["description"]}
    own[VERSIONS] = {"type": "object"}
    definitions = {"hyperparameter": _hyperparameter(names)}
    return document("An experiment of PrefixNAS", {**mapping(own), "$defs": definitions})


def _hyperparameter(names: Schema) -> Schema:
    """Return the schema of a range, or of a choice whose options may have keys of their own."""
    number: Any = any_of([{"type": "number"}, NUMERIC])
    bounds = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
    with_keys: Schema = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": {
            "type": "object",
            **names,
            "additionalProperties": any_of([{"not": {"type": "object"}}, PARAMETER]),
        },
    }
    option = any_of([{"not": {"type": "object"}}, with_keys])
    choice = {"type": "array", "items": option, "minItems": 1}
    return single({kind: choice if kind == "choice" else bounds for kind in KINDS})
