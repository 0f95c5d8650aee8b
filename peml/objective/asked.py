"""The method and the tasks that a configuration asks for."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from peml.methods.method import METHODS, Attached, Method
from peml.objective.options import LanguageModelOptions
from peml.objective.order import refuse_nothing_to_order
from prefixnas.base.errors import UserError
from prefixnas.base.options import make

if TYPE_CHECKING:
    from peml.tasks.task import Task


def method_of(config: LanguageModelOptions) -> Method:
    """Return the method that a configuration names, set as it says.

    Raises:
        UserError: Unknown, or the configuration lacks its options or has those of another.
    """
    cls: Any = METHODS.get(config.method, "key 'method'")
    needed = {entry.name for entry in fields(cls)}
    common = {entry.name for entry in fields(LanguageModelOptions)}
    if needed != {entry.name for entry in fields(config)} - common:
        raise UserError(
            f"key 'method': {config.method!r} has options of its own: make the configuration by "
            f"LanguageModelConfig.of({config.method!r})"
        )
    made: Method = make(cls, vars(config))
    return made


def tasks_of(config: LanguageModelOptions) -> list[Task]:
    """Load the tasks that a configuration names.

    Raises:
        UserError: One is not usable.
    """
    from peml.tasks.task import load_tasks

    return load_tasks(
        config.tasks,
        train_limit=config.train_limit,
        eval_limit=config.eval_limit,
        shots=config.shots,
        num_beams=config.num_beams,
    )


def check_method(config: LanguageModelOptions, method: Attached) -> None:
    """Refuse options that need more of a method than it has.

    Raises:
        UserError: Names the option.
    """
    label = method.method.label
    if config.micro_batch_size is not None and not method.splits_batches:
        raise UserError(
            f"key 'micro_batch_size': method {label!r} has a loss over whole batches, to which "
            "their parts do not add up; leave it out"
        )
    if not method.parameters():
        refuse_nothing_to_order(config.order, f"method {label!r} trains nothing")
