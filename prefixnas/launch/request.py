"""What is asked of a run, by flags or by a call from Python: layers of values, and what they make.

`prefixnas search`, `peml train` and the functions of the same names resolve their keys here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefixnas.base.errors import UserError, brief
from prefixnas.base.files import nothing_begun, refuse_used
from prefixnas.base.options import fields_of
from prefixnas.launch.config import FREE, read_config, refuse_change, refuse_former
from prefixnas.launch.plan import Layers, check_space, find_options, resolve_run


class Request:
    """A run that is asked for: what stands before the user's own values, and what these make of it.

    Args:
        who: Who asks, for messages (`peml train`).
        fixed: Keys that it sets and does not offer.
        config: A configuration file.
        resumed: The folder of a run that is to go on, under its own configuration; if it was not
            begun, it begins, and somebody has to say what.

    Raises:
        UserError: No such file, or a value in it of a key that is set already.
    """

    def __init__(
        self,
        who: str,
        fixed: Mapping[str, Any],
        config: Path | None = None,
        resumed: Path | None = None,
    ) -> None:
        self._who, self._fixed, self._resumed = who, fixed, None
        self._beginning: Path | None = None
        self._stored: Mapping[str, Any] = {}
        self._layers: list[tuple[str, Mapping[str, Any]]] = [("command", fixed)]
        if resumed is not None and refuse_used(resumed, "config.yaml", "run", resume=True):
            path = resumed / "config.yaml"
            self._resumed, self._stored = resumed, read_config(path)
            self._layers.append((str(path), self._stored))
        elif config is None:
            self._beginning = resumed
        if config is not None:
            self._layers.append((str(config), read_config(config)))
        self._refuse_fixed(self._layers)

    def _refuse_fixed(self, layers: Layers) -> None:
        for where, layer in layers:
            for name, value in self._fixed.items():
                if layer.get(name, value) != value:
                    raise UserError(
                        f"{where}: key {name!r}: {self._who} takes {brief(value)}, "
                        f"not {brief(layer[name])}"
                    )

    def options(self, *given: tuple[str, Mapping[str, Any]]) -> dict[str, type[Any]]:
        """Return the dataclasses whose fields are the run's keys; see `find_options`.

        Args:
            given: The user's own layers, as far as they are known.

        Raises:
            UserError: What `find_options` raises, or the run that goes on is of another strategy,
                or of a version that did not know all keys.
        """
        options, names = find_options([*self._layers, *given])
        if self._resumed is not None:
            refuse_change(self._stored, names, self._resumed)
            refuse_former(self._stored, fields_of(options), self._resumed)
        return options

    def resolve(self, *given: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return every key's value.

        Args:
            given: The user's own layers; the last one wins.

        Raises:
            UserError: What `resolve_run` raises, no such space, a key that is set already, a value
                other than that of the run that goes on, or a run that is to go on was not begun and
                nothing says what to begin.
        """
        from prefixnas.run.ranks import launched

        self._refuse_fixed(given)
        said = {key for _, layer in given for key in layer}
        if self._beginning is not None and said <= {*FREE, "plugin"}:
            raise nothing_begun(self._beginning, "config.yaml", "run")
        layers = [*self._layers, *given]
        if launched() > 1 and not any("processes" in layer for _, layer in layers):
            layers.append(("launcher", {"processes": launched()}))
        values = resolve_run(layers)
        check_space(layers)
        if self._resumed is not None:
            refuse_change(self._stored, values, self._resumed)
        return values
