"""Variables of the environment in the values of a file: `$NAME` and `${NAME:-default}`."""

from __future__ import annotations

import os
import re
from typing import Any

from prefixnas.base.errors import UserError

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^{}]*))?\}|\$(\w+)")


def expanded(value: Any, where: str) -> Any:
    """Return a value with the variables in all its texts replaced; a default may hold some, too.

    Raises:
        UserError: Names a variable that is not set and has no default.

    Example:
        >>> expanded(["${NOT_SET:-embedded}"], "table.yaml")
        ['embedded']
    """
    if isinstance(value, dict):
        return {key: expanded(item, where) for key, item in value.items()}
    if isinstance(value, list):
        return [expanded(item, where) for item in value]
    if not isinstance(value, str):
        return value

    def one(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        if os.environ.get(name):
            return os.environ[name]
        if match[2] is None:
            raise UserError(f"{where}: the variable {name} is not set; say {name}=... before peml")
        return str(expanded(match[2], where))

    return _VARIABLE.sub(one, value)
