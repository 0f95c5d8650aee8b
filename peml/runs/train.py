"""Train and search from Python: the keys of a configuration, as keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from peml.model.quiet import quiet_libraries
from peml.tasks.given import write_task
from peml.tasks.sources import each_source
from prefixnas import SearchResult
from prefixnas.base.errors import UserError, brief
from prefixnas.base.files import as_path, refuse_used
from prefixnas.base.plugins import trust
from prefixnas.launch.plan import plan_run
from prefixnas.launch.request import Request
from prefixnas.launch.start import free_folder, start_here
from prefixnas.report.progress import open_progress
from prefixnas.run.events import Event
from prefixnas.run.ranks import join

Place = str | PathLike[str]
Tasks = Place | Mapping[str, Any] | Sequence[Place | Mapping[str, Any]]
"""Where tasks lie, as `--tasks` takes them, or the keys of task files, with records in them."""

PROBLEM = "language-model"
"""The objective of every run that is begun here."""


def train(
    *,
    out: Place | None = None,
    config: Place | None = None,
    resume: bool = False,
    tasks: Tasks | None = None,
    on_event: Callable[[Event], None] | None = None,
    progress: bool = True,
    **keys: Any,
) -> SearchResult:
    """Train a known architecture, or a method without one, as `peml train` does.

    Args:
        out: The run directory, which must be new or empty; None: ``runs/SPACE-fixed-seedN``.
        config: A YAML file of keys; those given here win.
        resume: Go on with the run in `out`, under its own configuration; if it was not begun,
            begin it.
        tasks: The key `tasks`: one or several of what ``--tasks`` takes, or mappings of the keys
            of a task file. In such a mapping `source` may be records in memory (a list of mappings,
            a `datasets.Dataset`, a data frame, or a mapping from split to one of these); they are
            written into a folder beside the run, ``OUT-tasks``, which the run names.
        on_event: Called with every event of the run, after it was written.
        progress: Whether to show how far the run has come, as the command does.
        **keys: Every other key of a run, by the name that it has in YAML: ``model``, ``method``,
            ``steps``, ``lora_rank``, ``arch``, ``report_to`` ...

    Returns:
        What the run directory holds: scores by column and task, architecture, events, the folder of
        the adapter. `load`, `evaluate`, `predict` and `export` take it as they take its folder.

    Raises:
        UserError: What the command would refuse in one line.
        RunLost: One of several processes was killed, or failed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import peml
        >>> records = [
        ...     {"input": f"Ticket {n}: {text}", "label": team}
        ...     for n in range(12)
        ...     for text, team in (("charged twice", "billing"), ("no sound", "technical"))
        ... ]
        >>> with TemporaryDirectory() as folder:
        ...     run = peml.train(
        ...         tasks={"name": "tickets", "source": records},
        ...         method="lora",
        ...         steps=2,
        ...         out=f"{folder}/run",
        ...         progress=False,
        ...     )
        ...     [answer] = peml.predict(run, [{"input": "Ticket 99: no sound"}])
        >>> [*run.scores]
        ['untouched', 'trained child']
        >>> [*run.scores["trained child"]], [*answer.probabilities]
        (['tickets'], ['billing', 'technical'])
    """
    fixed = {"strategy": "fixed", "objective": PROBLEM}
    call = _Call("peml.train", fixed, out, config, resume)
    return call.carry_out(tasks, keys, on_event, progress)


def search(
    *,
    out: Place | None = None,
    config: Place | None = None,
    resume: bool = False,
    tasks: Tasks | None = None,
    on_event: Callable[[Event], None] | None = None,
    progress: bool = True,
    **keys: Any,
) -> SearchResult:
    """Search an architecture of the prefix, and train it, as `prefixnas search` does.

    Args:
        out: The run directory, which must be new or empty; None: ``runs/SPACE-STRATEGY-seedN``.
        config: As for `train`.
        resume: As for `train`.
        tasks: As for `train`.
        on_event: As for `train`.
        progress: As for `train`.
        **keys: Every other key of a run, ``strategy`` and those of the strategy among them.

    Returns:
        As `train`.

    Raises:
        UserError: What the command would refuse in one line.
        RunLost: One of several processes was killed, or failed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import peml
        >>> with TemporaryDirectory() as folder:
        ...     run = peml.search(
        ...         tasks="embedded:sentiment",
        ...         train_limit=40,
        ...         eval_limit=8,
        ...         steps=6,
        ...         baseline="none",
        ...         out=f"{folder}/run",
        ...         progress=False,
        ...     )
        >>> [*run.scores]
        ['untouched', 'mixture', 'argmax child', 'trained child']
        >>> run.architecture["layer0/activation"] in ("relu", "gelu", "tanh", "leaky_relu")
        True
    """
    call = _Call("peml.search", {"objective": PROBLEM}, out, config, resume)
    return call.carry_out(tasks, keys, on_event, progress)


class _Call:
    """A run that is asked for from Python; see `train`."""

    def __init__(
        self,
        who: str,
        fixed: Mapping[str, Any],
        out: Place | None,
        config: Place | None,
        resume: bool,
    ) -> None:
        if resume and out is None:
            raise UserError(f"{who}: resume needs out, the run directory")
        self.who, self.resume = who, resume
        self.out = None if out is None else as_path(out, f"{who}: out")
        file = None if config is None else as_path(config, f"{who}: config")
        self.request = Request(who, fixed, file, self.out if resume else None)

    def carry_out(
        self,
        tasks: Tasks | None,
        keys: Mapping[str, Any],
        on_event: Callable[[Event], None] | None,
        progress: bool,
    ) -> SearchResult:
        """Resolve the keys and start the run."""
        if on_event is not None and not callable(on_event):
            raise UserError(f"{self.who}: on_event: expected a function, not {brief(on_event)}")
        quiet_libraries()
        given = {key: _plain(value) for key, value in keys.items()}
        trust(_listed(given.get("plugin")))
        listed = [] if tasks is None else each_source(tasks)
        if any(isinstance(task, Mapping) for task in listed):
            listed = self._written(listed, given)
        if listed:
            given["tasks"] = [fspath(task) for task in listed]
        values = self.request.resolve((self.who, given))
        display = open_progress() if progress else None
        _, result = start_here(
            values, self.out, resume=self.resume, on_event=on_event, display=display
        )
        return result

    def _written(self, tasks: Sequence[Any], given: Mapping[str, Any]) -> list[Any]:
        """Return where tasks lie; write those that are given by their keys beside the run."""
        ranks = join()
        plan = plan_run(self.request.resolve((self.who, given)))
        self.out = Path(ranks.agree(str(self.out or free_folder(plan.run))))
        begun = refuse_used(self.out, "config.yaml", "run", resume=self.resume)
        folder = self.out.with_name(f"{self.out.name}-tasks")

        def write() -> list[str]:
            return [
                str(write_task(task, folder, anew=not begun))
                if isinstance(task, Mapping)
                else fspath(task)
                for task in tasks
                if ranks.first
            ]

        return ranks.carry_out(write)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    single = isinstance(value, str | PathLike | Mapping)
    return [value] if single else list(value)


def _plain(value: Any) -> Any:
    """Return a value as a configuration file holds it: paths are texts, tuples lists."""
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
