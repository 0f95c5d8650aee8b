"""An architecture: one option for every decision of a search space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from prefixnas.base.errors import UserError, unknown
from prefixnas.base.files import write_text
from prefixnas.base.yaml import load_yaml, read_yaml


class Architecture(Mapping[str, str]):
    """A frozen, hashable mapping from decision name to option label.

    Args:
        choices: Option per decision.
        space: Name of the space it belongs to.

    Example:
        >>> found = Architecture({"layer0/act": "relu", "layer1/act": "tanh"}, "small")
        >>> found["layer1/act"]
        'tanh'
        >>> {found: 0.93}[Architecture(found.choices, "small")]
        0.93
    """

    __slots__ = ("_choices", "space")

    def __init__(self, choices: Mapping[str, str], space: str) -> None:
        object.__setattr__(self, "_choices", tuple(choices.items()))
        object.__setattr__(self, "space", space)

    space: str
    _choices: tuple[tuple[str, str], ...]

    @property
    def choices(self) -> dict[str, str]:
        """A copy of the choices."""
        return dict(self._choices)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an Architecture is frozen")

    def __reduce__(self) -> tuple[type[Architecture], tuple[dict[str, str], str]]:
        return Architecture, (self.choices, self.space)  # copies go through the constructor

    def __getitem__(self, name: str) -> str:
        return dict(self._choices)[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._choices)

    def __len__(self) -> int:
        return len(self._choices)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Architecture):
            return NotImplemented
        return self.space == other.space and self.choices == other.choices

    def __hash__(self) -> int:
        return hash((self.space, frozenset(self._choices)))

    def __repr__(self) -> str:
        listing = ", ".join(f"{name}={option}" for name, option in self._choices)
        return f"Architecture({self.space}: {listing})"

    def to_yaml(self) -> str:
        """Return the YAML text of this architecture."""
        return yaml.safe_dump({"space": self.space, "choices": self.choices}, sort_keys=False)

    def save(self, path: Path) -> None:
        """Write the YAML text to `path`, whole or not at all."""
        write_text(path, self.to_yaml())

    @classmethod
    def from_yaml(cls, text: str, where: str = "architecture") -> Architecture:
        """Parse the YAML text of an architecture.

        Raises:
            UserError: Not YAML, or not a mapping of `space` and `choices`.
        """
        return cls._read(load_yaml(text, where), where)

    @classmethod
    def _read(cls, data: Any, where: str) -> Architecture:
        if not isinstance(data, dict):
            raise UserError(f"{where}: expected a mapping with the keys 'space' and 'choices'")
        for key in data:
            if key not in ("space", "choices"):
                raise unknown("key", key, ["space", "choices"], where)
        choices = data.get("choices")
        if not isinstance(choices, dict) or not isinstance(data.get("space"), str):
            raise UserError(f"{where}: expected a mapping with the keys 'space' and 'choices'")
        return cls({str(name): str(option) for name, option in choices.items()}, data["space"])

    @classmethod
    def load(cls, path: Path) -> Architecture:
        """Read an architecture from a YAML file.

        Raises:
            UserError: The file is missing or does not hold an architecture.
        """
        if not path.is_file():
            raise UserError(f"{path}: no such architecture file")
        return cls._read(read_yaml(path), str(path))


def decision_key(name: str) -> str:
    """Return the key of a decision: `activation` of `layer0/activation`."""
    return name.rsplit("/", 1)[-1]


def by_layer(choices: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Group choices by layer: `{"layer0": {"activation": "relu"}}`; "" for those without one."""
    layers: dict[str, dict[str, str]] = {}
    for name, option in choices.items():
        layer, slash, key = name.partition("/")
        if not slash or "=" in layer:  # `outer=option/inner` is a condition, not a layer
            layer, key = "", name
        layers.setdefault(layer, {})[key] = option
    return layers
