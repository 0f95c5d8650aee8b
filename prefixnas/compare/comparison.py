"""A comparison of strategies: its settings, and the runs ("cells") that it consists of.

Every cell is an ordinary run under `OUT/SPACE/VARIANT/seedN`, of one budget in joint steps. Beside
the variants that are asked for there are the references that a search has to beat: random
architectures without a search, random search, and the objective's hand-made modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from prefixnas.base.errors import UserError
from prefixnas.base.options import fields_of, resolve, types_of
from prefixnas.compare.cells import REFERENCES, Cell, CellKind, _begun
from prefixnas.compare.variants import (
    HELD,
    CompareConfig,
    Variant,
    hand_made,
    variants,
    with_random_search,
)
from prefixnas.launch.config import RunConfig, word_for_alone
from prefixnas.launch.plan import Layers, find_options, plan_run
from prefixnas.space.loading import load_space

NO_BASELINE = "none"
_NONE = (NO_BASELINE, False)  # as version 0.1 wrote it

AVERAGE_RANDOM = "average random"
STRIDE = 1000
"""A seed's further random draws have the seeds 1000 + seed, 2000 + seed, ..."""


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        settings: The comparison's own keys.
        layers: Keys of the runs, for all variants that have them.
        variants: What is searched with.
        hand_made: What is trained without a search.
        random_search: Label of the variant that is random search.
    """

    settings: CompareConfig
    layers: Layers
    variants: Sequence[Variant]
    hand_made: Sequence[Variant]
    random_search: str
    objective: str = field(default="")

    @classmethod
    def of(cls, settings: CompareConfig, layers: Layers) -> Comparison:
        """Look up everything that is named.

        Args:
            settings: The comparison's own keys.
            layers: Keys of the runs.

        Raises:
            UserError: An unknown name, nothing to compare, or two things of one name.
        """
        options, names = find_options(layers)
        for key in ("space", "strategies", "seeds"):
            items = getattr(settings, key)
            if not items:
                raise UserError(f"key {key!r}: name at least one")
            if len(set(items)) < len(items):
                raise UserError(f"key {key!r}: one is named twice: {', '.join(map(str, items))}")
        if min(settings.seeds) < 0 or max(settings.seeds) >= STRIDE:
            raise UserError(f"key 'seeds': must be at least 0 and below {STRIDE}")
        known: Mapping[str, Mapping[str, Any]] = options["objective"].references
        asked, random_search = with_random_search(variants(settings.strategies), layers)
        made = hand_made(settings.references, known)
        every = [Variant(AVERAGE_RANDOM, {}), *asked, *made]
        folders: dict[str, str] = {}
        for variant in every:
            other = folders.setdefault(variant.folder.lower(), variant.label)
            if other != variant.label or sum(v.label == variant.label for v in every) > 1:
                raise UserError(f"two variants are called {variant.label!r}; rename one of them")
        return cls(settings, layers, asked, made, random_search, names["objective"])

    def cells(self, out: Path) -> list[Cell]:
        """Return all runs, in the order to run them: one seed after the other.

        Raises:
            UserError: A mistake in a space, a variant or a key.
        """
        cells = list(self._cells(out))
        if not any(cell.kind == "search" and cell.refused is None for cell in cells):
            first = next(cell for cell in cells if cell.refused is not None)
            raise UserError(f"nothing to compare: {first.label} on {first.space}: {first.refused}")
        return [self._with_baseline(cell, cells) for cell in cells]

    def shared(self) -> dict[str, Any]:
        """Return the keys that were given for all runs, as a configuration file has them."""
        given = dict.fromkeys(key for _, layer in self.layers for key in layer)
        values: dict[str, Any] = {}
        for variant in (*self.variants, Variant("fixed", {"strategy": "fixed"})):
            resolved = self._resolve(variant, {})
            values = {key: resolved[key] for key in given if key in resolved} | values
        values["baseline"] = self._baseline
        return {key: values[key] for key in given if key in values}

    @property
    def _baseline(self) -> str:
        """The value of the key `baseline` for the run that trains it for its seed."""
        options, _ = find_options([*self.layers, ("command", {"objective": self.objective})])
        former = {True: word_for_alone(options["objective"]), False: NO_BASELINE}
        given = [
            (where, {"baseline": former.get(layer["baseline"], layer["baseline"])})
            for where, layer in self.layers
            if "baseline" in layer
        ]
        return str(resolve({"run": options["run"]}, given)["baseline"])

    def _cells(self, out: Path) -> Iterator[Cell]:
        spaces = {Path(space).stem: space for space in self.settings.space}
        if len(spaces) < len(self.settings.space) or REFERENCES in spaces:
            raise UserError(f"key 'space': two folders would be called {', '.join(spaces)}")
        draw = Variant(AVERAGE_RANDOM, {"strategy": "random", "trials": 1, "weights": "train"})
        planned: dict[tuple[str, str], tuple[dict[str, Any], str | None]] = {}
        for label, space in spaces.items():
            self._check_settings(space)
            for variant in (draw, *self.variants):
                planned[label, variant.label] = self._plan(variant, space)
        for variant in self.hand_made:
            values = self._resolve(variant, {})
            plan_run(values)
            planned[REFERENCES, variant.label] = values, None

        def cell(kind: CellKind, space: str, variant: Variant, seed: int, number: int = 0) -> Cell:
            values, refused = planned[space, variant.label]
            own = seed + number * STRIDE
            folder = out / space / variant.folder / f"seed{own}"
            values = {**values, "seed": own}
            return Cell(kind, space, variant.label, seed, folder, values, refused)

        for seed in self.settings.seeds:
            for variant in self.hand_made:
                yield cell("hand-made", REFERENCES, variant, seed)
            for space in spaces:
                for number in range(self.settings.random_draws):
                    yield cell("draw", space, draw, seed, number)
                for variant in self.variants:
                    found = cell("search", space, variant, seed)
                    yield found
                    if self.settings.retrain:
                        yield self._retrained(found)

    def _check_settings(self, space: str) -> None:
        settings: list[str] = next(
            (layer["set"] for _, layer in reversed(self.layers) if "set" in layer), []
        )
        load_space(space).settle(RunConfig(set=settings).settings)

    def _plan(self, variant: Variant, space: str) -> tuple[dict[str, Any], str | None]:
        """Return a run's values, and why the strategy refuses the space.

        What it refuses on the default space too is a mistake in its options or the budget.
        """
        values = self._resolve(variant, {"space": space})
        try:
            plan_run(values)
        except UserError as error:
            try:
                plan_run({**values, "space": RunConfig.space, "set": []})
            except UserError:
                raise UserError(f"{variant.label}: {error}") from error
            return values, str(error)
        return values, None

    def _resolve(self, variant: Variant, more: Mapping[str, Any]) -> dict[str, Any]:
        """Return all keys of a variant's run; shared keys that it does not have are left out."""
        strategy = {"strategy": variant.options["strategy"], "objective": self.objective}
        named: Layers = [*self.layers, (variant.label, variant.options), ("command", strategy)]
        options, _ = find_options(named)
        known, kinds = fields_of(options), types_of(options)
        held = "set" if variant.options["strategy"] == "fixed" else ""
        shared = [
            (where, {k: v for k, v in layer.items() if k in known and k not in (held, *HELD)})
            for where, layer in self.layers
        ]
        own = {
            key: None if value == "none" and type(None) in get_args(kinds.get(key)) else value
            for key, value in variant.options.items()
        }
        plugins = [p for _, layer in self.layers for p in layer.get("plugin", [])]
        fixed = {
            **strategy,
            "steps": self.settings.budget,
            "baseline": NO_BASELINE,
            "plugin": list(dict.fromkeys(plugins)),
        }
        layers = [*shared, (variant.label, own), ("command", {**fixed, **more})]
        return resolve(options, layers)

    def _retrained(self, found: Cell) -> Cell:
        variant = Variant(found.label, {"strategy": "fixed", "arch": str(found.folder)})
        space = str(found.values["space"])
        values = self._resolve(variant, {"space": space, "seed": found.seed})
        folder = found.folder.with_name(found.folder.name + "-retrained")
        return replace(found, kind="retrained", folder=folder, values=values, needs=found.folder)

    def _with_baseline(self, cell: Cell, cells: Sequence[Cell]) -> Cell:
        """Let one cell of each seed train the objective without the module, too.

        What is resized to as many weights has those of that cell's child: of a random architecture,
        or of random search, which no strategy of a user's own can make fail.
        """
        same = [c for c in cells if c.seed == cell.seed and c.refused is None]
        same.sort(key=lambda c: (c.kind != "draw", c.label != self.random_search))
        trains = {c.folder: _begun(c.folder).get("baseline") for c in same}
        if all(value in (None, *_NONE) for value in trains.values()):
            fresh = next((folder for folder, value in trains.items() if value is None), Path())
            trains[fresh] = self._baseline
        baseline = trains.get(cell.folder)
        return replace(
            cell, values={**cell.values, "baseline": NO_BASELINE if baseline is None else baseline}
        )
