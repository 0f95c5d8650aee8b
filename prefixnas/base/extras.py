"""Packages that not everybody needs: an extra of this project installs each of them.

Which extra holds which package is what the project's own metadata says, `pyproject.toml`.
"""

from __future__ import annotations

import re
from importlib.metadata import requires
from importlib.util import find_spec

from prefixnas.base.errors import UserError

PROJECT = "prefixnas"

_REQUIREMENT = re.compile(r"([\w.-]+).*;.*\bextra == ['\"]([\w-]+)['\"]")


def extra_of(module: str) -> str | None:
    """Return the extra that installs a module; None if no extra does.

    >>> extra_of("optuna.samplers"), extra_of("numpy")
    ('tune', None)
    """
    package = module.partition(".")[0].replace("_", "-").lower()
    for requirement in requires(PROJECT) or ():
        found = _REQUIREMENT.fullmatch(requirement)
        if found and found[1].replace("_", "-").lower() == package:
            return found[2]
    return None


def lacking(module: str, what: str) -> str | None:
    """Return the line for a module that is not installed; None if it is.

    Args:
        module: Name of the module, of a package that an extra names.
        what: What needs it, to begin the line with.
    """
    try:
        installed = find_spec(module) is not None
    except ModuleNotFoundError:
        installed = False
    return None if installed else f"{what} needs {_to_install(module)}"


def require(module: str, what: str) -> None:
    """Refuse to begin with what a missing package would stop later.

    Raises:
        UserError: The module is not installed; the line names the extra that holds it.
    """
    line = lacking(module, what)
    if line is not None:
        raise UserError(line)


def missing(error: ModuleNotFoundError) -> UserError | None:
    """Return the error to show in the place of a failed import, if an extra would put it right."""
    module = error.name or ""
    if extra_of(module) is None:
        return None
    return UserError(f"this needs {_to_install(module)}")


def _to_install(module: str) -> str:
    package = module.partition(".")[0]
    extra = extra_of(module)
    wanted = f"'{PROJECT}[{extra}]'" if extra is not None else package
    return f"{package}, which is not installed: pip install {wanted}"
