"""The campaigns: kills, full disks, damaged checkpoints and signals, each a list of cases."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.commands import Command, Result
from tests.faults.layer import WRITE, Fault
from tests.faults.outcomes import Outcome, Place, Verdict, compared
from tests.workbench import digest


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many items, from the first to the last, evenly."""
    if most == 1:
        return [items[len(items) // 2]]
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def kills(place: Place, command: Command, most: int) -> list[Fault]:
    """Return kills before operations and in the middle of writes, three to one."""
    _, operations = place.whole(command)
    writes = [n for n, line in enumerate(operations, 1) if line.startswith(WRITE)]
    torn = spread(writes, max(1, most // 4))
    whole = spread(range(1, len(operations) + 1), most - len(torn))
    return [Fault("kill", n) for n in whole] + [Fault("torn", n) for n in torn]


def sizes(place: Place, command: Command, most: int) -> list[Fault]:
    """Return disks that are full from the first byte to the last."""
    _, operations = place.whole(command)
    total = int(operations[-1].split()[1])
    return [Fault("full", size) for size in spread(range(total), most)]


# A disk that really is full


@contextmanager
def small_disk(place: Place, kilobytes: int) -> Iterator[Callable[[], None]]:
    """Have the work take place on a small file system; what is yielded makes room.

    Raises:
        OSError: It cannot be mounted here.
    """
    folder = str(place.out.parent)

    def mount(*options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip())

    shutil.rmtree(place.out, ignore_errors=True)
    mount(f"size={kilobytes}k")
    try:
        yield lambda: mount("remount", "size=256m")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def try_small_disk(place: Place, command: Command, kilobytes: int) -> Verdict:
    """Run a command on a small disk, make room, and let it go on."""
    whole, _ = place.whole(command)
    with small_disk(place, kilobytes) as make_room:
        command.before(place.out)
        end = place.run(command.program, command.first)
        make_room()
        if wrong := end.fault():
            return wrong
        if end.code and "No space left" not in end.said:
            return Verdict(Outcome.TRACEBACK, f"does not say why: {end.said}")
        return place.goes_on(command, whole)


# Damaged checkpoints

Damage = Callable[[Path, random.Random], None]
"""Damages an interrupted run."""


def interrupted(place: Place, command: Command, share: float) -> Path:
    """Return a copy of a run that was killed when it had done a share of its operations."""
    _, operations = place.whole(command)
    kept = place.folder / f"killed at {share}"
    if not kept.is_dir():
        command.clear(place.out)
        place.run(command.program, command.first, Fault("kill", int(share * len(operations))))
        place.out.rename(kept)
    return kept


def damages() -> list[tuple[str, Damage]]:
    """Return all kinds of damage by name."""
    files = {"state": "state.json", "previous": "previous.json"}
    found: list[tuple[str, Damage]] = [
        (f"{kind} {name}", _on(file, act))
        for name, file in files.items()
        for kind, act in (("flip", flip), ("cut", cut), ("lose", lose), ("edit", edit_number))
    ]
    found += [
        (f"{kind} tensors of {name}", _on_tensors(file, act))
        for name, file in files.items()
        for kind, act in (("flip", flip), ("cut", cut), ("lose", lose))
    ]
    found += [
        (f"{kind} {file}", _beside(file, act))
        for file, act, kind in (
            ("metrics.jsonl", cut, "cut"),
            ("metrics.jsonl", lose, "lose"),
            ("config.yaml", lose, "lose"),
            ("config.yaml", cut, "cut"),
        )
    ]
    keys = ("seed", "steps", "learning_rate", "batch_size", "prefix_length", "tasks")
    found += [(f"edit {key} of config.yaml", _edited(key)) for key in keys]
    return [*found, ("flip both", _both(flip)), ("lose both", _both(lose))]


def flip(path: Path, rng: random.Random) -> None:
    """Flip a bit."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    """Cut a file off."""
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def lose(path: Path, rng: random.Random) -> None:
    """Remove a file."""
    path.unlink()


def edit_number(path: Path, rng: random.Random) -> None:
    """Add 1 to a number in a JSON file: a seed, a step, a score."""
    data = json.loads(path.read_text())
    spots: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(inner, dict | list):
                visit(inner)
            elif isinstance(inner, int | float) and not isinstance(inner, bool):
                spots.append((node, key))

    visit(data)
    node, key = rng.choice(spots)
    node[key] += 1
    path.write_text(json.dumps(data))


def _on(file: str, act: Damage) -> Damage:
    return lambda run, rng: act(run / "checkpoint" / file, rng)


def _on_tensors(file: str, act: Damage) -> Damage:
    def damage(run: Path, rng: random.Random) -> None:
        name = json.loads((run / "checkpoint" / file).read_text())["tensors"]
        act(run / "checkpoint" / name, rng)

    return damage


def _beside(file: str, act: Damage) -> Damage:
    return lambda run, rng: act(run / file, rng)


def _both(act: Damage) -> Damage:
    def damage(run: Path, rng: random.Random) -> None:
        for name in ("state.json", "previous.json"):
            act(run / "checkpoint" / name, rng)

    return damage


def _edited(key: str) -> Damage:
    def damage(run: Path, rng: random.Random) -> None:
        import yaml

        data = yaml.safe_load((run / "config.yaml").read_text())
        data[key] = data[key] * 2 if isinstance(data[key], list) else (data[key] or 0) + 1
        (run / "config.yaml").write_text(yaml.safe_dump(data, sort_keys=False))

    return damage


def try_damage(place: Place, command: Command, kept: Path, damage: Damage, seed: int) -> Verdict:
    """Damage an interrupted run and resume it: equal in the end, or refused and untouched."""
    whole, _ = place.whole(command)
    command.clear(place.out)
    shutil.copytree(kept, place.out)
    damage(place.out, random.Random(seed))
    before = _untouched(place.out)
    end = place.run(command.program, command.again)
    if wrong := end.fault():
        return wrong
    if end.refused:
        same = compared(before, _untouched(place.out))
        return Verdict(Outcome.REFUSED, end.said) if same.good else Verdict(Outcome.LOST, same.why)
    if end.code != 0:
        return Verdict(Outcome.DEAD_END, f"exit code {end.code}: {end.said}")
    return place.judged(command, whole)


def _untouched(run: Path) -> Result:
    return {name: held for name, held in digest(run).items() if name != ".lock"}


# Signals

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}


def try_signal(
    place: Place, command: Command, number: signal.Signals, rng: random.Random
) -> Verdict:
    """Send a signal at a random moment, and let the command go on."""
    whole, _ = place.whole(command)
    seconds = _seconds(place, command)
    command.clear(place.out)
    process = place.begin(command.program, command.first)
    time.sleep(rng.random() * seconds)
    if process.poll() is None:
        process.send_signal(number)
    end = place.end(process)
    told = end.code == CODES[number] and end.said.count("\n") == (number != signal.SIGKILL)
    if not told and end.code != 0:
        return end.fault() or Verdict(Outcome.TRACEBACK, f"exit code {end.code}: {end.said}")
    return place.goes_on(command, whole)


_measured: dict[tuple[Path, str], float] = {}


def _seconds(place: Place, command: Command) -> float:
    key = place.folder, command.name
    if key not in _measured:
        began = time.monotonic()
        command.clear(place.out)
        place.run(command.program, command.first)
        _measured[key] = time.monotonic() - began
    return _measured[key]
