"""The long form: `python -m tests.faults [CASES [CAMPAIGN ...]]` runs campaigns, prints the table.

Faults are printed as they are found. `CASES` says which share of the cases is run: 0.1 is a tenth.
Campaigns are `kills`, `disks`, `mutated`, `damaged`, `signals`; all of them if none is named.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.faults.apart import fuzz_apart, names
from tests.faults.campaigns import (
    CODES,
    damages,
    interrupted,
    kills,
    sizes,
    try_damage,
    try_signal,
    try_small_disk,
)
from tests.faults.outcomes import Outcome, Place, Verdict

KILLS = {"search": 120, "search by trials": 200, "train": 60, "tune": 40, "compare": 40}
"""Kills of each command; of the others up to `OTHERS`, which is nearly every operation."""

OTHERS, SIZES, DAMAGES, SIGNALS, MUTATIONS = 60, 30, 120, 30, 75
"""Cases of each command, of each reader in the last."""

SMALL_DISKS = (48, 96, 160, 256, 400, 640)
"""Kilobytes."""


class Table:
    """Counts outcomes by campaign and command, and says what went wrong."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Counter[Outcome]] = {}
        self._began = time.monotonic()

    def run(
        self, campaign: str, name: str, cases: Iterable[tuple[str, Callable[[], Verdict]]]
    ) -> None:
        """Try cases one after the other."""
        tally = self.rows.setdefault((campaign, name), Counter())
        for case, attempt in cases:
            verdict = attempt()
            tally[verdict.outcome] += 1
            if not verdict.good:
                print(f"{campaign}, {name}, {case}: {verdict.outcome}: {verdict.why}", flush=True)
        minutes = (time.monotonic() - self._began) / 60
        print(f"{minutes:5.1f} min  {campaign}, {name}: {_counted(tally)}", flush=True)

    def text(self) -> str:
        """Return the table as Markdown, with a row for each campaign."""
        head = ["", "cases", *(str(outcome) for outcome in Outcome)]
        rows = [[f"{campaign}, {name}", tally] for (campaign, name), tally in self.rows.items()]
        rows.append(["all", sum((tally for _, tally in rows), Counter())])
        lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
        lines += [
            [name, str(tally.total()), *(str(tally[o]) for o in Outcome)] for name, tally in rows
        ]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    @property
    def good(self) -> bool:
        """Whether nothing went wrong."""
        wrong = set(Outcome) - {Outcome.IDENTICAL, Outcome.READ, Outcome.REFUSED}
        return not any(tally[outcome] for tally in self.rows.values() for outcome in wrong)


def _counted(tally: Counter[Outcome]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in tally.items())


def killed(place: Place, table: Table, share: float) -> None:
    """Kill every command at its operations."""
    for command in place.commands.values():
        faults = kills(place, command, some(KILLS.get(command.name, OTHERS), share))
        table.run("kills", command.name, place.cases(command, faults))


def filled(place: Place, table: Table, share: float) -> None:
    """Let every command run out of space, on disks that only seem full and on some that are."""
    small_disks(place, table)
    for command in place.commands.values():
        faults = sizes(place, command, some(SIZES, share))
        table.run("full disks", command.name, place.cases(command, faults))


def signalled(place: Place, table: Table, share: float) -> None:
    """Send signals at random moments."""
    rng, search = random.Random(0), place.commands["search"]
    numbers = [number for number in CODES for _ in range(some(SIGNALS // len(CODES), share))]
    cases = [(n.name, lambda n=n: try_signal(place, search, n, rng)) for n in numbers]
    table.run("signals", "search", cases)


def some(count: int, share: float) -> int:
    """Return a share of a number of cases."""
    return max(2, round(count * share))


def damaged(place: Place, table: Table, share: float) -> None:
    """Resume runs whose checkpoints are damaged, at an early and at a late moment."""
    search, kinds = place.commands["search"], damages()
    cases = []
    for number in range(some(DAMAGES, share)):
        name, damage = kinds[number % len(kinds)]
        kept = interrupted(place, search, (0.35, 0.7)[number // len(kinds) % 2])
        given: Any = (place, search, kept, damage, number)
        cases.append((name, lambda given=given: try_damage(*given)))
    table.run("damaged checkpoints", "search", cases)


def small_disks(place: Place, table: Table) -> None:
    """Run commands on disks that really are full, where they can be mounted."""
    for name in ("search", "tune", "export peml"):
        cases = [
            (f"{size} kB", lambda size=size: try_small_disk(place, place.commands[name], size))  # noqa: B023
            for size in SMALL_DISKS
        ]
        try:
            table.run("small disks", name, cases)
        except OSError as error:
            print(f"small disks, {name}: left out, not mounted: {error}", flush=True)
            del table.rows["small disks", name]


def mutated(place: Place, table: Table, share: float) -> None:
    """Read mutated files of every kind, each kind in a process of its own."""
    for name in names(place.folder):
        tally = fuzz_apart(place.folder, name, some(MUTATIONS, share))
        table.rows["mutated files", name] = tally
        print(f"mutated files, {name}: {_counted(tally)}", flush=True)


CAMPAIGNS: dict[str, Callable[[Place, Table, float], None]] = {
    "kills": killed,
    "disks": filled,
    "mutated": mutated,
    "damaged": damaged,
    "signals": signalled,
}


def main() -> int:
    """Run the campaigns in memory where there is room, and print the table."""
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    memory = Path("/dev/shm")
    table = Table()
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        try:
            place = Place(Path(folder))
            for name in sys.argv[2:] or CAMPAIGNS:
                CAMPAIGNS[name](place, table, share)
        finally:
            print(f"\n{table.text()}", flush=True)
    return 0 if table.good else 1


if __name__ == "__main__":
    sys.exit(main())
