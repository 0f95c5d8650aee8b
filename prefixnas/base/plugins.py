"""A user's own code: modules and files that register operations, strategies and the like."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from prefixnas.base.errors import UserError, brief

TRUSTED = "PREFIXNAS_PLUGINS"
"""Names the plugins that the user named by a flag, for the processes that are started from here."""


def trust(plugins: Iterable[str]) -> None:
    """Note that the user named plugins by a flag: files may name these, too."""
    known = trusted()
    new = [plugin for plugin in plugins if plugin not in known]
    os.environ[TRUSTED] = os.pathsep.join([*known, *new])


def trusted() -> list[str]:
    """Return the plugins that the user named by a flag."""
    return [plugin for plugin in os.environ.get(TRUSTED, "").split(os.pathsep) if plugin]


def load_named(plugin: str, where: str) -> None:
    """Import a plugin that a file names, if the user named it, too: a file alone runs no code.

    Args:
        plugin: The plugin.
        where: The file, for messages.

    Raises:
        UserError: The user did not name it, or it cannot be imported.
    """
    if plugin not in trusted():
        raise UserError(
            f"{where}: key 'plugin': names {brief(plugin)}, which is code; to run it, say "
            f"--plugin {brief(plugin)[1:-1]}"
        )
    load_plugin(plugin)


def _import_file(path: Path) -> None:
    name = path.stem
    if not name.isidentifier() or _taken(name, path):
        name = f"plugin_{name}"  # a plugin called random.py must not take the place of `random`
    if _is_file(sys.modules.get(name), path):
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _taken(name: str, path: Path) -> bool:
    """Tell whether another module than the file `path` goes by `name`."""
    if name in sys.modules:
        return not _is_file(sys.modules[name], path)
    spec = importlib.util.find_spec(name)
    return spec is not None and Path(spec.origin or "").resolve() != path.resolve()


def _is_file(module: object, path: Path) -> bool:
    return Path(getattr(module, "__file__", None) or "").resolve() == path.resolve()


def load_plugin(reference: str) -> None:
    """Import a user's module or `.py` file so that its decorators register.

    Raises:
        UserError: The file or module does not exist, or fails while it is imported.
    """
    path = Path(reference)
    try:
        if path.suffix == ".py":
            if not path.is_file():
                raise UserError(f"plugin {reference!r}: no such file")
            _import_file(path)
        else:
            importlib.import_module(reference)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"plugin {reference!r}: {type(error).__name__}: {error}") from error
