"""What a configuration asks for: method, tasks, the base model with its attention, and heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from peml.methods.method import METHODS, Attached, Method
from peml.objective.options import LanguageModelOptions
from peml.objective.order import refuse_nothing_to_order
from prefixnas.base.errors import UserError
from prefixnas.base.options import make

if TYPE_CHECKING:
    from peml.answers.heads import TaskHeads
    from peml.model.model import LanguageModel
    from peml.tasks.task import Task
    from prefixnas.run.ranks import Ranks
    from prefixnas.space.space import SearchSpace


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


def check_attention(
    config: LanguageModelOptions, lm: LanguageModel, method: Method, kinds: Sequence[str]
) -> None:
    """Refuse an attention function that was asked for and does not go with what reads it.

    Args:
        config: The options.
        lm: The model, with the method attached.
        method: The method.
        kinds: The kinds of prefix attention that there may be.

    Raises:
        UserError: Names what needs another function, which it put in its place or would put there.
    """
    from peml.prefix.concat import Concat
    from peml.prefix.interception import DENSE

    asked = config.attn_implementation
    if asked is None or asked in DENSE:
        return
    by = f"a prefix with {Concat.name!r} attention" if Concat.name in kinds else None
    if by is None and lm.model.config._attn_implementation != asked:
        by = f"method {method.label!r}"
    if by is not None:
        raise UserError(
            f"key 'attn_implementation': {by} puts keys into the softmax over the text, which "
            f"needs a mask with an entry for every two tokens, and {asked!r} has none; take 'sdpa' "
            "or 'eager'"
        )


def tasks_of(config: LanguageModelOptions) -> list[Task]:
    """Load the tasks that a configuration names.

    Raises:
        UserError: One is not usable.
    """
    from peml.tasks.load import load_tasks

    return load_tasks(
        config.tasks,
        train_limit=config.train_limit,
        eval_limit=config.eval_limit,
        shots=config.shots,
        num_beams=config.num_beams,
        chat=config.chat,
    )


def gamma_of(config: LanguageModelOptions, task: Task) -> float:
    """Return a task's sampling weight in eq. 1: its own, or the run's."""
    return config.gamma if task.gamma is None else task.gamma


def remarks_of(config: LanguageModelOptions, task: Task) -> Iterator[str]:
    """Yield a line for all that is odd in a task's data, and for batches of a single example."""
    from peml.batches.sampler import batch_size_of
    from peml.tasks.remarks import remarks

    yield from remarks(task)
    gamma, size = gamma_of(config, task), len(task.splits["train"])
    alone = batch_size_of(gamma, size, config.batch_size) == 1
    if alone and config.sampling == "gamma" and min(size, config.batch_size) > 1:
        yield (
            f"{task.name}: a step takes 1 of {size} training examples, by a gamma of {gamma:g}; "
            f"a larger one takes more of them, up to batch_size ({config.batch_size})"
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
    if config.shard and config.order != "parallel":
        raise UserError(
            f"key 'order': {config.order!r} needs the model once more, for a baseline that trains "
            "both together, and with 'shard' it is there once; leave one of them out"
        )
    if not method.parameters():
        refuse_nothing_to_order(config.order, f"method {label!r} trains nothing")


def check_space(
    config: LanguageModelOptions, method: Method, space: SearchSpace, *, trains: bool
) -> None:
    """Refuse a searched prefix beside a method that has keys and values of its own.

    Args:
        config: The options.
        method: The method.
        space: The space.
        trains: Whether anything trains without a prefix.

    Raises:
        UserError: That; or, where there is no prefix, an order of method and prefix, or a method
            that trains nothing.
    """
    if space.empty:
        refuse_nothing_to_order(config.order, f"space {space.name!r} has no prefix")
        if not trains:
            raise UserError(
                f"method {method.label!r}: nothing trains in this model without a prefix; name a "
                "space of one, such as --space preembedd"
            )
    elif method.changes_keys:
        raise UserError(
            f"method {method.label!r} gives attention keys and values of its own, so no searched "
            f"prefix goes with it (space {space.name!r}); take --space none"
        )


def base_of(
    config: LanguageModelOptions, method: Method, ranks: Ranks, lm: LanguageModel | None
) -> LanguageModel:
    """Return the base model that a configuration asks for, as it asks for it.

    Args:
        config: The options.
        method: What is going to be put into it.
        ranks: The processes that keep parts of it (key `shard`).
        lm: The model, where it is loaded already.

    Raises:
        UserError: It can't be loaded, cut up, or attend so.
    """
    from peml.model.attention import set_attention
    from peml.model.device import device_of_rank
    from peml.model.load import load_language_model
    from peml.objective.shard import check_shard, shard_layers

    device = device_of_rank()
    lm = lm or load_language_model(
        config.model,
        device="cpu" if config.shard else device,
        dtype=config.dtype,
        revision=config.revision,
        quantize=config.quantize,
    )
    if config.shard:
        check_shard(lm, method, ranks)
        shard_layers(lm, device, ranks)
    if config.attn_implementation is not None:
        set_attention(lm.model, config.attn_implementation)
    return lm


def heads_of(
    config: LanguageModelOptions, lm: LanguageModel, tasks: Sequence[Task], seed: int
) -> TaskHeads | None:
    """Return fresh heads for an encoder-only model; None: the model answers in words."""
    from peml.answers.heads import TaskHeads

    if lm.family != "encoder":
        return None
    heads = TaskHeads.for_tasks(lm.hidden_size, tasks, pooling=config.pooling, seed=seed)
    return heads.to(lm.device)
