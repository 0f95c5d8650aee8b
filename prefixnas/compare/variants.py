"""What a comparison is asked for: its keys, and the variants that they name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.base.options import Options, option
from prefixnas.launch.plan import Layers, find_options
from prefixnas.multitrial.strategy import TrialStrategy
from prefixnas.run.strategy import STRATEGIES

Named = list[str] | dict[str, dict[str, Any]]


@dataclass(frozen=True)
class CompareConfig(Options):
    """The keys that a comparison has beside those of its runs."""

    space: list[str] = option(["default"], "spaces, with commas between: shipped ones or files")
    strategies: Named = option(
        ["darts", "random"], "variants, with commas between: NAME or NAME:KEY=VALUE+KEY=VALUE"
    )
    seeds: list[int] = option([0, 1, 2], "seeds, with commas between; each is a run of its own")
    budget: int = option(
        240, "joint steps of every run, searching and training on", at_least=1, at_most=10**8
    )
    random_draws: int = option(
        3, "random architectures a seed, for the average one; 0: none", at_least=0, at_most=1000
    )
    references: Named = option(
        ["all"], "hand-made modules: all that the objective names, none, names, or SPACE:KEY=VALUE"
    )
    retrain: bool = option(False, "also train what was found anew, with the whole budget")
    jobs: int = option(1, "runs side by side", at_least=1, at_most=1024)


HELD = {
    "strategy": "strategies",
    "steps": "budget",
    "seed": "seeds",
    "space": "space",
    "objective": "objective",
    "plugin": "plugin",
    "baseline": "baseline",
}
"""Keys of a run that are the same for all variants, and what a comparison calls them."""


@dataclass(frozen=True)
class Variant:
    """A strategy with options, or a hand-made module.

    Attributes:
        label: Its name in tables.
        options: Keys of a run; "strategy" is one of them.
    """

    label: str
    options: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """The label without what has a meaning in file names."""
        return re.sub(r"[^\w.+=-]+", "-", self.label).strip("-.") or "variant"


def option_classes(settings: CompareConfig, layers: Layers) -> list[type[Any]]:
    """Return the dataclasses whose fields are keys of some run of the comparison."""
    options, _ = find_options(layers)
    asked = variants(settings.strategies)
    made = hand_made(settings.references, options["objective"].references)
    named = [
        find_options([*layers, (v.label, _without_strategy(v))])[0]["objective"]
        for v in (*asked, *made)
    ]
    names = [variant.options["strategy"] for variant in asked]
    strategies = [STRATEGIES.get(name) for name in dict.fromkeys([*names, "random", "fixed"])]
    return [options["run"], *dict.fromkeys([options["objective"], *named]), *strategies]


def _without_strategy(variant: Variant) -> dict[str, Any]:
    return {key: value for key, value in variant.options.items() if key != "strategy"}


def _parse(text: str, first: str) -> dict[str, Any]:
    """Return the keys of `NAME:KEY=VALUE+KEY=VALUE`; the name is the key `first`."""
    name, colon, rest = text.partition(":")
    values: dict[str, Any] = {first: name}
    for item in rest.split("+") if colon else ():
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise UserError(
                f"variant {text!r}: expected NAME:KEY=VALUE+KEY=VALUE, not {brief(item)}"
            )
        key = key.strip().replace("-", "_")
        if key == "set":
            values.setdefault(key, []).append(value)
        elif key in values:
            raise UserError(f"variant {text!r}: key {key!r} is given twice")
        else:
            values[key] = value
    return values


def variants(given: Named) -> list[Variant]:
    """Return the variants that a user names.

    Raises:
        UserError: An unknown strategy, or a key that is the same for all variants.
    """
    if isinstance(given, list):
        given = {text: _parse(text, "strategy") for text in given}
    for label, options in given.items():
        for key in options:
            if key in HELD and key != "strategy":
                raise UserError(
                    f"variant {label!r}: key {key!r} is the same for all variants; "
                    f"set {HELD[key]!r} for the comparison"
                )
        STRATEGIES.get(str(options.get("strategy", label)), f"variant {label!r}")
    return [
        Variant(label, {"strategy": options.get("strategy", label), **options})
        for label, options in given.items()
    ]


def hand_made(given: Named, known: Mapping[str, Mapping[str, Any]]) -> list[Variant]:
    """Return the hand-made modules that a user names.

    Args:
        given: What is named: "all", "none", labels, or spaces with options.
        known: Those that the objective names.

    Raises:
        UserError: One without a space.
    """
    if isinstance(given, list):
        given = {"all": list(known), "none": []}.get(" ".join(given), given)
        given = {text: dict(known.get(text) or _parse(text, "space")) for text in given}
    for label, options in given.items():
        if "space" not in options:
            raise unknown("key", next(iter(options), ""), ["space"], f"reference {label!r}")
    return [Variant(label, {"strategy": "fixed", **options}) for label, options in given.items()]


def with_random_search(asked: Sequence[Variant], layers: Layers) -> tuple[list[Variant], str]:
    """Make sure that random search is among the variants; return its label, too.

    Without a number of trials, `random` would be a single random architecture.
    """
    trials = TrialStrategy.trials
    given = any("trials" in layer for _, layer in layers)
    completed = [
        replace(variant, options={**variant.options, "trials": trials})
        if variant.options["strategy"] == "random" and not given and "trials" not in variant.options
        else variant
        for variant in asked
    ]
    for variant in completed:
        options = variant.options
        alone = str(options.get("trials")) == "1" or options.get("weights") == "one-shot"
        if options["strategy"] == "random" and not alone:
            return completed, variant.label
    label = "random search" if any(v.label == "random" for v in asked) else "random"
    more = {} if given else {"trials": trials}
    return [*completed, Variant(label, {"strategy": "random", **more})], label
