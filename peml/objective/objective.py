"""The joint loss of PEML (eq. 4) as a prefixnas objective.

One step takes a batch of every task. The prefix does not depend on the input, so the encoder runs
once a step: its output is detached into a leaf, every task's batch adds its gradient to the leaf,
and the encoder's backward pass runs once with the sum. The gradient is the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peml.adapters.card import write_run_card
from peml.adapters.check import some_examples
from peml.adapters.peft import why_not
from peml.adapters.save import save_adapter
from peml.adapters.tasks import described
from peml.answers.evaluation import evaluate_tasks
from peml.answers.loss import answer_loss
from peml.answers.shown import Shown
from peml.batches.chat import read_as_text
from peml.batches.collate import Collator
from peml.batches.shares import Shares
from peml.methods.method import Attached, Method, Setting, attach_method
from peml.model.device import autocast, device_of_rank
from peml.model.model import LanguageModel
from peml.objective import asked
from peml.objective.data import JointData
from peml.objective.memory import check_memory
from peml.objective.options import LanguageModelOptions
from peml.objective.order import ORDERS, Resting, refuse_proxy
from peml.objective.prefix import TrainedPrefix
from peml.objective.proxy import (
    LAYERS,
    MAX_LENGTH,
    TRAIN,
    cut_model,
    fewer_examples,
    read_settings,
    skeleton,
)
from peml.objective.rates import parameter_groups
from peml.tasks.examples import Example
from peml.tasks.sources import whole_sources
from peml.tasks.task import Task, check_unchanged
from prefixnas.base.errors import UserError
from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.run.objective import Objective, Part
from prefixnas.run.ranks import ALONE, ranks_here
from prefixnas.space.decisions import Decision
from prefixnas.space.space import SearchSpace


class JointObjective(Objective):
    """A method, heads and a prefix encoder around the searched module.

    Args:
        config: All options.
        total_steps: Optimiser steps of the run; AdaLoRA's schedule needs them.
        seed: Seed of the first weights (`reset` draws anew).
        lm: The language model; loaded as `config` says if not given.
        tasks: The tasks; likewise.
        method: What to put into the model, in the place of what `config` names.

    Raises:
        UserError: The model, a task or an option is not usable.
    """

    name = "language-model"
    splits_batches = True

    def __init__(
        self,
        config: LanguageModelOptions,
        total_steps: int,
        seed: int,
        *,
        lm: LanguageModel | None = None,
        tasks: Sequence[Task] | None = None,
        method: Method | None = None,
    ) -> None:
        if not config.tasks:
            raise UserError("key 'tasks': name at least one task")
        self.config, self.order = config, ORDERS[config.order]
        chosen = method or asked.method_of(config)
        self.shares = Shares(ranks_here(), config.micro_batch_size, even=config.shard)
        self.autocast = autocast(config.mixed_precision, device_of_rank())
        self.tasks: Sequence[Task] = tasks or asked.tasks_of(config)
        self.lm = asked.base_of(config, chosen, self.shares.ranks, lm)
        self.bare = None if config.shard else skeleton(self.lm.model)
        self._built, self._missed = (total_steps, seed), list[str]()
        self.collator = Collator(
            self.lm, max_length=config.max_length, input_rows=chosen.input_rows
        )
        self.collator.check(self.tasks)
        self.data = {task.name: task.digest() for task in self.tasks}
        self.tested = any("test" in task.splits for task in self.tasks)
        for task in self.tasks:
            for split in task.splits:  # prompts without room show now, not in the middle of a run
                self.collator.lengths(task, split)
        self.prefix = TrainedPrefix(config, self.lm)
        self.sizes = {"attention_layers": len(self.prefix.sites)}
        self.width = self.prefix.width
        check_memory(config, chosen, self.lm, self.tasks, self.collator, self.prefix.sites)
        names = tuple(task.name for task in self.tasks)
        of_method = config.steps_apart(total_steps) or total_steps
        self.method = attach_method(chosen, self.lm, Setting(names, of_method, seed))
        asked.check_method(config, self.method)
        self.training: Attached = self.method
        self._part: Part = "both"
        self._held: dict[str, Any] = {}
        self.about = {"model": config.model, "method": chosen.title}
        self.rewrites_weights = self.method.rewrites_weights
        self.splits_batches = self.method.splits_batches
        self.without_label = f"{chosen.title} alone" if method is None else chosen.title
        self.heads = asked.heads_of(config, self.lm, self.tasks, seed)
        if config.gradient_checkpointing:
            self.lm.model.gradient_checkpointing_enable(  # type: ignore[no-untyped-call]
                {"use_reentrant": False, "context_fn": self.shares.again}
            )
        self.optional = bool(self.method.parameters()) or self.heads is not None
        self.prefix.attach()
        self._check_attention()
        self.batches = JointData(config, self.tasks, self.collator)

    def _check_attention(self) -> None:
        asked.check_attention(self.config, self.lm, self.method.method, self.prefix.kinds)

    def check_space(self, space: SearchSpace) -> None:
        """Refuse a searched prefix beside a method that has keys and values of its own."""
        asked.check_space(self.config, self.method.method, space, trains=self.optional)

    def check_knobs(self, knobs: Sequence[Decision]) -> None:
        """Refuse knobs that a prefix does not have, or that an option decides already."""
        self.prefix.check_knobs(knobs)
        self._check_attention()

    def check_proxy(self, settings: Mapping[str, str]) -> None:
        """Refuse settings of a proxy that are unknown, or more than this problem has."""
        read_settings(settings, self._whole(), self.config)
        refuse_proxy(self.config.order)

    def _whole(self) -> PreTrainedModel:
        """Return the base model, which other problems are made of."""
        if self.bare is None:
            raise UserError("key 'shard': there is no proxy of a model in pieces; leave one out")
        return self.bare

    def proxy(self, settings: Mapping[str, str]) -> JointObjective:
        """Return a problem with fewer layers, fewer examples or shorter inputs.

        It shares the frozen weights; method, heads and prefix are its own.

        Args:
            settings: `layers`, `train` (examples a task) and `max_length`, whole numbers.
        """
        bare = self._whole()
        numbers = read_settings(settings, bare, self.config)
        config = replace(self.config, max_length=numbers.get(MAX_LENGTH, self.config.max_length))
        lm = cut_model(self.lm, bare, numbers.get(LAYERS))
        tasks = fewer_examples(self.tasks, numbers.get(TRAIN))
        made = JointObjective(config, *self._built, lm=lm, tasks=tasks)
        paths = [site.path for site in self.prefix.sites]
        made.prefix.gates = [paths.index(site.path) for site in made.prefix.sites]
        made.turn(self._part)
        return made

    def undivided(self) -> JointObjective:
        """Return this problem with method and prefix in parallel; the frozen weights are shared."""
        return self if self.order == "together" else self._in_parallel()

    def turn(self, part: Part) -> None:
        """Let the method train, or the prefix, or both; heads always do.

        The prefix trains from where the method left heads and data, whenever it is reset.
        """
        for group in self.parameters():
            for weight in group["params"]:
                weight.grad = None
        if isinstance(self.training, Resting):
            self.training = self.training.wake()
        self._part, self._held = part, {}
        if part == "module":
            self.training = Resting(self.method)
            self._held = copy.deepcopy(self._place())

    def alone(self, weights: int) -> JointObjective | None:
        """Return the method without a prefix, resized until so many weights train with the heads.

        It shares the frozen weights; None if it can't be resized, or has the nearest size.
        """
        if self.bare is None:
            self._missed = ["no baseline at equal weights: a model in pieces (shard) is there once"]
            return None
        heads = sum(weight.numel() for weight in self.heads.parameters()) if self.heads else 0
        method = self.method.resized(weights - heads)
        return None if method is None else self._in_parallel(method)

    def _in_parallel(self, method: Method | None = None) -> JointObjective:
        config, lm = replace(self.config, order="parallel"), cut_model(self.lm, self._whole(), None)
        return JointObjective(config, *self._built, lm=lm, tasks=self.tasks, method=method)

    def reset(self, module: nn.Module | None, seed: int) -> None:
        """Draw method, heads, embedding and output layer anew; restart the order of the data."""
        self.training.reset(seed)
        if self.heads is not None:
            self.heads.reset(seed)
        self.batches.restart(seed)
        self._go_to(self._held)
        chat = any(self.collator.chat_of(task) is not None for task in self.tasks)
        self.prefix.begin(module, seed, chat=chat)

    def replace(self, module: nn.Module) -> None:
        """Put another body between embedding and output layer.

        Raises:
            UserError: Its output is of another width, which the output layer does not fit, or its
                prefix of another length, start or kind of attention.
        """
        self.prefix.replace(module)

    def parameters(self) -> list[dict[str, Any]]:
        """Return a group for each part that has a learning rate of its own."""
        encoder = None if self._part == "own" else self.prefix.encoder
        return parameter_groups(self.config, self.training, self.heads, encoder)

    def count_weights(self) -> int:
        """Return how many numbers there are in the model and in all that is trained beside it."""
        trained = [weight for group in self.parameters() for weight in group["params"]]
        every = {id(weight): weight.numel() for weight in (*self.lm.model.parameters(), *trained)}
        return sum(every.values())

    def backward(self, split: Split = "train") -> dict[str, float]:
        """Add the gradient of the mean over tasks of each task's mean loss (eq. 4)."""
        drawn = next(self.draws(split))
        self.lm.model.train()
        prefix = self.prefix.evaluated() if self._part == "own" else self.prefix.computed()
        gathered = prefix.leaves()
        leaves = [*self._own(), *gathered.tensors()]
        before = [leaf.grad for leaf in leaves]
        if self.shares.ranks.count > 1:  # what is summed must be of this step alone
            for leaf in leaves:
                leaf.grad = None
        with self.prefix.read(gathered):
            losses = self._passes(drawn)
        losses = self.shares.gather(leaves, before, losses)
        if split == "train":
            self.training.observed(losses)
        prefix.backward(gathered)
        of_weights: Tensor | None = self.training.step_loss()
        if of_weights is not None:
            torch.autograd.backward(of_weights)
        return losses

    def _passes(self, drawn: Sequence[tuple[Task, list[Example]]]) -> dict[str, float]:
        """Pass this process's share of a joint batch forth and back; return the share's losses."""
        losses: dict[str, float] = {}
        for place, (task, examples) in enumerate(drawn):
            share = self.shares.share(len(examples), place)
            whole = self.collator.batch(task, examples)
            losses[task.name] = 0.0
            with self.lm.on(task.name):
                for part in self.shares.parts(share):
                    batch = whole.take(part.rows).to(self.lm.device)
                    with self.shares.draws(part), self.autocast():
                        loss = answer_loss(self.lm, batch, self.heads) * part.weight
                    with self.autocast():  # it may pass the batch once more
                        term = self.training.batch_loss()
                    both = loss if term is None else loss + term
                    torch.autograd.backward(both / len(drawn))
                    losses[task.name] += loss.item()
        return losses

    def _own(self) -> list[nn.Parameter]:
        heads = list(self.heads.parameters()) if self.heads is not None else []
        return [*self.training.parameters(), *heads]

    def draws(self, split: Split) -> Iterator[list[tuple[Task, list[Example]]]]:
        """Return the joint batches of a split, one a step: examples per task (eq. 1)."""
        return self.batches.draws(split)

    def stepped(self, step: int) -> None:
        """Let the method do what is due after a step: AdaLoRA allocates its ranks."""
        self.training.stepped(step)

    def evaluate(self, split: Split) -> Evaluation:
        """Score every task, with the prefix computed once in eval mode."""
        shown = Shown()
        with self.prefix.read(self.prefix.evaluated()):
            found = evaluate_tasks(
                self.lm,
                [task for task in self.tasks if split in task.splits],
                split,
                heads=self.heads,
                collator=self.collator,
                ranks=ALONE if self.config.shard else self.shares.ranks,  # as many passes each
                autocast=self.autocast,
                seen=shown.add,
            )
        return replace(found, answers=shown.answers)

    def state_dict(self) -> dict[str, Any]:
        """Return method, heads, the encoder's own weights and the place in the data."""
        state: dict[str, Any] = {
            "data": self.data,
            "method": self.method.state_dict(),
            **self._place(),
        }
        if self._held:
            state["held"] = self._held
        if (encoder := self.prefix.state_dict()) is not None:
            state["encoder"] = encoder
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            UserError: It was saved on other data.
        """
        check_unchanged(self.data, state.get("data", {}))
        self.method.load_state_dict(state["method"])
        self._held = state.get("held", {})
        self._go_to(state)
        if self.prefix.encoder is not None:
            self.prefix.load_state_dict(state["encoder"])

    def _place(self) -> dict[str, Any]:
        """Return the place in the data, and the heads."""
        heads = {} if self.heads is None else {"heads": self.heads.state_dict()}
        return {"samplers": self.batches.state_dict(), **heads}

    def _go_to(self, place: Mapping[str, Any]) -> None:
        self.batches.load_state_dict(place.get("samplers", {}))
        if self.heads is not None and "heads" in place:
            self.heads.load_state_dict(place["heads"])

    def save(self, folder: Path) -> None:
        """Write the adapter: method, the computed prefix of the sites that it changes, heads."""
        prefix = self.prefix.evaluated().needed(self.prefix.handle.attention)
        if prefix.gates.soft:
            raise RuntimeError("a prefix whose gates are still open cannot be saved: cut a child")
        tasks = [
            described(task, source, self.collator)
            for task, source in zip(self.tasks, whole_sources(self.config.tasks), strict=True)
        ]
        save_adapter(
            folder,
            self.lm,
            sites=[self.prefix.sites[site] for site in prefix.gates.sites],
            attention=self.prefix.form.attention,
            blocks=prefix.blocks,
            method=self.method,
            heads=self.heads,
            tasks=tasks,
            examples=some_examples(self.collator, self.tasks),
        )

    def finished(self, folder: Path) -> None:
        """Write the model card of the adapter."""
        write_run_card(folder)

    def warnings(self) -> Iterable[str]:
        """Say how data was read, what is odd in it or cut, and if PEFT can't hold the result."""
        for task in self.tasks:
            yield from (*task.notes, *asked.remarks_of(self.config, task))
        yield from read_as_text(self.lm, self.tasks)
        yield from self.collator.truncation.messages()
        yield from self._missed
        for kind in self.prefix.kinds:
            if reason := why_not(self.lm, self.prefix.sites, kind):
                what = f"no export to stock PEFT later of a prefix with {kind!r} attention"
                yield f"{what} (the format 'peml' works): {reason}"
