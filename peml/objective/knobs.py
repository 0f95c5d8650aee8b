"""The decisions of a search space that the prefix carries out itself (`SearchSpace.knobs`).

| knob | options | decided by |
|---|---|---|
| `length` | numbers of virtual tokens | trial |
| `start` | `random`, `text`, with `concat` alone also `zero` | trial |
| `attention` | `parallel`, `concat` | trial |
| `attention0/gate`, `attention1/gate`, ... | `on`, `off` | alpha or trial |

What a gate does is said in `peml.prefix.gates`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from peml.model.model import Family, LanguageModel
from peml.objective.options import LONGEST, LanguageModelOptions
from peml.prefix.gates import gate
from peml.prefix.kinds import ATTENTIONS, prefix_attention
from peml.prefix.starts import STARTS, check_start, text_tokens
from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.network.supernet import knobs_of
from prefixnas.space.decisions import Decision

LENGTH, START, ATTENTION = "length", "start", "attention"
_KEYS = {LENGTH: "prefix_length", START: "prefix_start", ATTENTION: "prefix_attention"}


@dataclass(frozen=True)
class PrefixForm:
    """What a prefix begins as, and stays while it is trained.

    Attributes:
        length: Number of virtual tokens.
        start: Name of its starting point.
        attention: Name of the kind of prefix attention.
    """

    length: int
    start: str
    attention: str

    @classmethod
    def of(
        cls, module: nn.Module | None, config: LanguageModelOptions, family: Family
    ) -> PrefixForm:
        """Return what the knobs of a module say, and the options where it has no such knob."""
        length = int(_decided(module, LENGTH) or config.prefix_length)
        attention = _decided(module, ATTENTION) or config.prefix_attention
        start = _decided(module, START) or config.prefix_start
        return cls(length, start or prefix_attention(attention).start(family), attention)

    def check(self, module: nn.Module) -> None:
        """Raise a UserError if the knobs of another module say something else."""
        begun = {LENGTH: str(self.length), START: self.start, ATTENTION: self.attention}
        for knob, value in begun.items():
            if (option := _decided(module, knob)) not in (None, value):
                raise UserError(f"the prefix began with {knob} {value}, not {option}")


def first_form(config: LanguageModelOptions, lm: LanguageModel) -> PrefixForm:
    """Return what a prefix begins as where no knob says it.

    Raises:
        UserError: It can't start so, or the text that it starts from is not usable.
    """
    form = PrefixForm.of(None, config, lm.family)
    check_start(form.start, prefix_attention(form.attention))
    check_text(config, [form.start])
    if config.prefix_text is not None:
        text_tokens(lm, config.prefix_text)
    return form


def kinds_of_attention(knobs: Sequence[Decision], config: LanguageModelOptions) -> tuple[str, ...]:
    """Return the kinds of prefix attention that a space leaves open."""
    decided = (knob.options for knob in knobs if knob.name == ATTENTION)
    return next(decided, (config.prefix_attention,))


def check_text(config: LanguageModelOptions, starts: Iterable[str]) -> None:
    """Raise a UserError if a text is given that a prefix with one of these starts does not read."""
    for start in starts if config.prefix_text is not None else ():
        if start != "text":
            raise UserError(
                f"key 'prefix_text': this prefix starts with {start!r}, which reads no "
                "text; set prefix_start to 'text'"
            )


def check_knobs(
    knobs: Sequence[Decision], sites: int, config: LanguageModelOptions, family: Family
) -> None:
    """Refuse knobs that a prefix does not have, or that an option decides already.

    Args:
        knobs: The space's decisions.
        sites: Number of attention sites of the model.
        config: The options of the objective.
        family: The family of the model.

    Raises:
        UserError: Unknown knob or option, a knob that alpha cannot decide, or a text that a kind of
            prefix attention would not start from.
    """
    allowed = _allowed(knobs, sites, config)
    for knob in knobs:
        where, key = f"knob {knob.name!r}", _KEYS.get(knob.name)
        if key and getattr(config, key) != getattr(LanguageModelOptions, key):
            raise UserError(
                f"key {key!r}: the space decides it by its {where}; leave the key out, "
                f"or set {knob.name}=..."
            )
        if knob.name not in allowed:
            raise unknown("knob", knob.name, allowed, "the prefix")
        if knob.name in _KEYS and knob.decided_by != "trial":
            raise UserError(f"{where}: alpha cannot decide it; say decided_by: trial")
        options = allowed[knob.name]
        for option in knob.options:
            if options and option not in options:
                raise unknown("option", option, options, where)
            if not options and not (option.isdecimal() and 1 <= int(option) <= LONGEST):
                raise UserError(
                    f"{where}: must be whole numbers of at least 1 and at most {LONGEST:,}, "
                    f"not {brief(option)}"
                )
    if config.prefix_start is None and START not in (knob.name for knob in knobs):
        kinds = kinds_of_attention(knobs, config)
        check_text(config, (prefix_attention(kind).start(family) for kind in kinds))


def _allowed(
    knobs: Sequence[Decision], sites: int, config: LanguageModelOptions
) -> Mapping[str, Sequence[str]]:
    """Return the knobs of a prefix with their options; empty: whole numbers."""
    kinds = [ATTENTIONS[k] for k in kinds_of_attention(knobs, config) if k in ATTENTIONS]
    # Start and kind are drawn apart, so that every kind must know every start.
    starts = [start for start in STARTS if all(start in kind.starts for kind in kinds)]
    gates = {gate(site): ("on", "off") for site in range(sites)}
    return {LENGTH: (), START: starts, ATTENTION: [*ATTENTIONS], **gates}


def _decided(module: nn.Module | None, knob: str) -> str | None:
    """Return the option of a knob that is decided by trial; None where the space has no such."""
    options = knobs_of(module).get(knob, {})
    return next(iter(options), None)
