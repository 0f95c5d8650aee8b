"""HyperPrompt (He et al. 2022): every layer makes keys and values from a prompt of the task.

    o = softmax(q [h_k(P_t); K]^T) [h_v(P_t); V],    h(P) = relu(P D) U

P_t is the task's prompt ``[l, hidden]``. The matrices D and U of a layer are common to all tasks
(``share``), of each task (``separate``), or made by two maps, common to all layers, from
``I = W_2 relu(W_1 [k_t; z_layer])``, an MLP of a task's and a layer's embedding (``global``, the
paper's best). Open in the paper's text, and so choices here: no layer norm in the MLP, sizes, the
maps' start (N(0, 0.01)), and that self-attention alone reads prompts. The paper's main results
train the base as well (``tune_base``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from peml.methods.attention import AttentionMethod, AttentionTerm, AttentionTerms, Layer
from peml.methods.method import Attached, Merges, Setting
from peml.methods.prompt_keys import Generated, Network, Prompts, Trained
from peml.methods.together import Together
from peml.methods.whole import Whole, count_all
from peml.prefix.sites import SiteKind, block_shape
from prefixnas.base.options import option

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


@dataclass(frozen=True)
class HyperPrompt(AttentionMethod):
    """A prompt of each task, made into keys and values in front of the text in every layer."""

    label: ClassVar[str] = "HyperPrompt"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "no"
    starts_at_base: ClassVar[bool] = False
    changes_keys: ClassVar[bool] = True
    kinds: ClassVar[tuple[SiteKind, ...]] = ("encoder", "decoder")
    prompt_length: int = option(6, "rows of each task's prompt", at_least=1, at_most=10_000)
    bottleneck: int = option(8, "width b between D and U", at_least=1, at_most=10_000)
    variant: Literal["share", "separate", "global"] = option("global", "where D and U come from")
    task_width: int = option(32, "embeddings of tasks and layers (global)", at_least=1)
    hidden: int = option(32, "hidden width of the MLP (global)", at_least=1)
    tune_base: bool = option(False, "train the base model, too")
    base_learning_rate: float = option(1e-4, "of the base, with tune_base", above=0, at_most=10)

    def attach(self, lm: LanguageModel, setting: Setting) -> Attached:
        """Put the prompts into the layers, and let the base train where asked for."""
        prompts = AttentionTerms(self, lm, setting)
        if not self.tune_base:
            return prompts
        base = Whole(self, lm, setting, self.base_learning_rate)
        return Together(self, lm, {"prompts": prompts, "base": base})

    def size(self, lm: LanguageModel, tasks: int) -> int:
        """Return how many numbers train, from the shapes alone."""
        return super().size(lm, tasks) + self.tune_base * count_all(lm)

    def front_length(self) -> int:
        """Return the length of the prompts."""
        return self.prompt_length

    def terms(self, layers: Sequence[Layer], tasks: int) -> list[AttentionTerm | None]:
        """Return each layer's maps from the prompts, which are common to all layers."""
        kv_heads, head_dim = block_shape([layer.site for layer in layers])
        width, b = layers[0].width, self.bottleneck
        prompts = Prompts(tasks, self.prompt_length, width)
        if self.variant == "global":
            shapes = (width, b, kv_heads * head_dim)
            network = Network(tasks, self.task_width, self.hidden, shapes)
            return [Generated(layer, prompts, network) for layer in layers]
        sets = tasks if self.variant == "separate" else 1
        return [Trained(layer, prompts, b, sets) for layer in layers]
