"""The JSON schema of a run's configuration: keys of all strategies, objectives and their parts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from prefixnas.base.options import fields_of
from prefixnas.base.schema import (
    Properties,
    Schema,
    by_name,
    document,
    mapping,
    named,
    properties_of,
    union,
)
from prefixnas.launch.config import VERSIONS, RunConfig, run_options
from prefixnas.run.objective import OBJECTIVES
from prefixnas.run.strategy import STRATEGIES


@dataclass(frozen=True)
class RunKeys:
    """The keys that a configuration may have.

    Attributes:
        properties: All of them; a key that several names have takes what any of them takes.
        rules: What is left of them by a strategy, an objective or a part of one that is named.
    """

    properties: Properties
    rules: list[Schema]

    def schema(self, without: Collection[str] = ()) -> Schema:
        """Return the schema of a mapping of these keys, but for some of them."""
        kept = {key: value for key, value in self.properties.items() if key not in without}
        return {**mapping(kept), "allOf": self.rules}


def run_keys() -> RunKeys:
    """Return the keys of the strategies and objectives that are registered at the moment."""
    strategies = {name: properties_of(STRATEGIES.get(name)) for name in STRATEGIES.names()}
    every, rules = by_name("strategy", strategies)
    objectives: dict[str, Properties] = {}
    for name in OBJECTIVES.names():
        objectives[name], of_parts = _objective(OBJECTIVES.get(name))
        rules += of_parts
    of_objectives, more = by_name("objective", objectives)
    own = properties_of(RunConfig)
    del own["baseline"]  # an objective has a word of its own in it
    properties = union([own, every, of_objectives])
    properties["strategy"] = named(own["strategy"], strategies)
    properties["objective"] = named(own["objective"], objectives, none=True)
    return RunKeys(properties, [*rules, *more])


def _objective(cls: Any) -> tuple[Properties, list[Schema]]:
    """Return the keys of an objective, with those of all its parts, and the rules of the parts."""
    properties, rules = properties_of(cls), list[Schema]()
    for key, registry in getattr(cls, "parts", {}).items():
        names = registry.names()
        parts = {name: properties_of(cls.with_parts({key: name})) for name in names}
        former = fields_of({"": cls})[key].metadata.get("former")
        for place in filter(None, (key, former)):
            properties[place] = named(properties[place], names)
            for of_part in parts.values():
                of_part[place] = properties[place]
        every, of_names = by_name(key, parts)
        properties = {**properties, **every}
        rules += of_names
    return {**properties, "baseline": properties_of(run_options(cls))["baseline"]}, rules


def run_schema() -> Schema:
    """Return the schema of a configuration's file."""
    keys = run_keys()
    noted: Schema = {"type": "object", "description": "what a run noted; left out when it is read"}
    keys.properties[VERSIONS] = noted
    return document("A run of PrefixNAS", keys.schema())
