"""HyperFormer (Mahabadi et al. 2021): adapters whose weights a network makes of task and place.

    I = LN(W_2 relu(W_1 [z_t; e_layer; b_branch]))
    y <- y + LN_{gamma,beta}(U gelu(D y + d) + u),     D, d, U, u, gamma, beta linear in I

z_t is an embedding of the task, e of the layer, b of the branch: self-attention or feed-forward
(HyperFormer++). Without ``shared_branches`` each of the two has linear maps of its own and no
embedding. Encoder and decoder have networks of their own. Every map starts at N(0, 0.01), gamma
too, so the start is near the base, not at it. The paper trains T5's own layer norms as well; here
the base stays frozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from peml.methods.beside import Beside
from peml.methods.ends import End, at_end, find_ends
from peml.methods.generated_adapters import AdapterNetwork, Sizes
from peml.methods.method import Attached, Merges, Method, Setting
from prefixnas.base.options import option

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


@dataclass(frozen=True)
class HyperFormer(Method):
    """Adapters in every layer, whose weights one network makes of the task, layer and branch."""

    label: ClassVar[str] = "HyperFormer"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "no"
    starts_at_base: ClassVar[bool] = False
    rate: ClassVar[float] = 3e-4
    reduction: int = option(32, "hidden width over the adapters' width", at_least=1)
    task_width: int = option(64, "embeddings of tasks, layers and branches", at_least=1)
    hidden: int = option(128, "hidden width of the network", at_least=1)
    shared_branches: bool = option(True, "one set of maps for both branches (HyperFormer++)")

    @property
    def sizes(self) -> Sizes:
        """Sizes of the network."""
        return Sizes(self.reduction, self.task_width, self.hidden, self.shared_branches)

    def attach(self, lm: LanguageModel, setting: Setting) -> Attached:
        """Put an adapter at the end of each branch."""
        ends = find_ends(lm.model)
        network = AdapterNetwork(self.sizes, ends, len(setting.tasks))
        attached = Beside(self, lm, setting, network)

        def adapt(end: End, y: Tensor) -> Tensor:
            added: Tensor = network(attached.task, end, y.to(network.dtype))
            return y + added.to(y.dtype)

        attached.undo_by(
            at_end(partial(adapt, end), lm.model.get_submodule(end.path)) for end in ends
        )
        return attached

    def size(self, lm: LanguageModel, tasks: int) -> int:
        """Return how many numbers train, from the shapes alone."""
        ends = find_ends(lm.model)
        with torch.device("meta"):
            network = AdapterNetwork(self.sizes, ends, tasks)
        return sum(parameter.numel() for parameter in network.parameters())
