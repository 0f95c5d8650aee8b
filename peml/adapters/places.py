"""How an adapter folder names what lies elsewhere, its base model and data, and finds it again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peml.tasks.sources import whole_sources
from prefixnas.base.errors import UserError
from prefixnas.base.yaml import read_yaml


def path_from(home: Path, name: str) -> str:
    """Return how a file in `home` names a folder or file: by the path from there to it.

    What is no folder or file (``embedded:llama``, a hub id) keeps its name, and what shares nothing
    but the root with `home` its full path: they can't be moved together.
    """
    path = Path(name).expanduser()
    if not path.exists():
        return name
    path = path.resolve()
    if len(Path(os.path.commonpath([home, path])).parts) < 2:
        return str(path)
    relative = Path(os.path.relpath(path, home)).as_posix()
    return relative if relative.startswith("..") else f"./{relative}"


def found_from(
    home: Path, base: str | None, tasks: Sequence[Mapping[str, Any]]
) -> tuple[str | None, list[Mapping[str, Any]]]:
    """Return names with full paths in the place of those from a folder.

    Where nothing is at such a path, because a run was moved and they were not, it is where the
    run's own configuration says, if that is there.

    Args:
        home: The adapter folder, by its full path.
        base: Name of the base model.
        tasks: One object a task, with its ``source``.
    """
    said_base, said_sources = _named_by_run(home)
    if len(said_sources) != len(tasks):
        said_sources = [None] * len(tasks)

    def full(name: str, said: str | None) -> str:
        if not name.startswith(("./", "../")):
            return name
        path = os.path.normpath(home / name)
        moved = not Path(path).exists() and said is not None and Path(said).exists()
        return str(Path(said).resolve()) if moved and said is not None else path

    found = [
        {**task, "source": full(task["source"], said)} if "source" in task else task
        for task, said in zip(tasks, said_sources, strict=True)
    ]
    return None if base is None else full(base, said_base), found


def _named_by_run(home: Path) -> tuple[str | None, Sequence[str | None]]:
    """Return the model and the tasks that the run around an adapter was told; nothing if none."""
    path = home.parent / "config.yaml"
    if home.name != "adapter" or not path.is_file():
        return None, ()
    try:
        known = read_yaml(path)
    except UserError:  # whoever reads the run itself is told
        return None, ()
    known = known if isinstance(known, dict) else {}
    model, tasks = known.get("model"), known.get("tasks")
    listed = isinstance(tasks, list) and all(isinstance(task, str) for task in tasks)
    sources = whole_sources(tasks) if listed and isinstance(tasks, list) else []
    return str(Path(model).expanduser()) if isinstance(model, str) else None, sources
