"""The prefix that a problem trains: where it goes, how it is read, and what makes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from peml.model.model import LanguageModel
from peml.objective.knobs import PrefixForm, check_knobs, first_form, kinds_of_attention
from peml.objective.options import LanguageModelOptions
from peml.prefix.encoder import Prefix, PrefixEncoder
from peml.prefix.handle import PrefixHandle, attach
from peml.prefix.sites import find_sites
from peml.prefix.starts import initialise
from prefixnas.base.errors import UserError
from prefixnas.network.modes import evaluation_mode
from prefixnas.space.decisions import Decision
from prefixnas.space.ops import width_after


class TrainedPrefix:
    """A place for a prefix on a model, empty until `begin`.

    Args:
        config: What the prefix is to be.
        lm: The model.

    Attributes:
        sites: The attention that reads it.
        gates: Number of each site's gate in the search space.
        kinds: The kinds of prefix attention that there may be.
        width: Width of the searched module's input.
        encoder: What makes it; None: there is no prefix.
        handle: Gives it to the model; there from `attach` on.

    Raises:
        UserError: It can't start so, or the model has no such sites.
    """

    handle: PrefixHandle

    def __init__(self, config: LanguageModelOptions, lm: LanguageModel) -> None:
        self._config, self._lm = config, lm
        self.sites = find_sites(lm.model, config.prefix_where)
        self.gates = list(range(len(self.sites)))
        self.form = first_form(config, lm)
        self.kinds: Sequence[str] = (self.form.attention,)
        self.width = config.prefix_width or lm.hidden_size
        self.encoder: PrefixEncoder | None = None

    def attach(self) -> None:
        """Let the model read a prefix: after everything else that is put into it."""
        self.handle = attach(self._lm.model, self.sites, self._config.prefix_attention)

    def check_knobs(self, knobs: Sequence[Decision]) -> None:
        """Refuse knobs that a prefix does not have, or that an option decides already."""
        check_knobs(knobs, len(self.sites), self._config, self._lm.family)
        self.kinds = kinds_of_attention(knobs, self._config)

    def begin(self, module: nn.Module | None, seed: int, *, chat: bool) -> None:
        """Draw embedding and output layer anew around a module.

        Args:
            module: The searched module, whose knobs say what the prefix begins as; None: there is
                no prefix.
            seed: Of the drawn weights.
            chat: Whether a text that the prefix starts from is one of a conversation.
        """
        self.encoder = None
        form = self.form = PrefixForm.of(module, self._config, self._lm.family)
        self.handle.switch(form.attention)
        if module is None:
            return
        width_out = width_after(module, self.width)
        encoder = PrefixEncoder(
            form.length, self.width, None, self.sites, width_out, self.gates, form.attention
        ).to(self._lm.device)
        text = self._config.prefix_text if form.start == "text" else None
        initialise(encoder, self._lm, form.start, seed=seed, text=text, chat=chat)
        self.encoder = encoder
        self.replace(module)

    def replace(self, module: nn.Module) -> None:
        """Put another body between embedding and output layer.

        Raises:
            UserError: Its output is of another width, which the output layer does not fit, or its
                prefix of another length, start or kind of attention.
        """
        assert self.encoder is not None
        self.form.check(module)
        wanted = self.encoder.output.in_features
        if (width := width_after(module, self.width)) != wanted:
            raise UserError(f"the prefix encoder's width was {wanted}, the new one's is {width}")
        self.encoder.replace_body(module.to(self._lm.device))

    def computed(self) -> Prefix:
        """Compute it, with gradient to what makes it."""
        return Prefix() if self.encoder is None else self.encoder.prefix()

    def evaluated(self) -> Prefix:
        """Compute it in evaluation mode."""
        with evaluation_mode(self.encoder):
            return self.computed()

    @contextmanager
    def read(self, prefix: Prefix) -> Iterator[None]:
        """Let the model read a prefix for a while."""
        with self.handle.using(prefix.blocks, prefix.gates):
            yield

    def state_dict(self) -> dict[str, Tensor] | None:
        """Return the encoder's own weights, without the module's; None: there is no prefix."""
        if self.encoder is None:
            return None
        own = self.encoder.state_dict()
        return {name: weight for name, weight in own.items() if not name.startswith("body.")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        assert self.encoder is not None
        self.encoder.load_state_dict(state, strict=False)
