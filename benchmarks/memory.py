"""Bytes that a training step keeps for its backward pass, and the most that live at once.

LoRA by rank, MultiLoRA with n parts of rank 32 written three ways, MTL-LoRA and PEML, on one batch
of prompts of one length. Both numbers are counted, not measured: the same on every run, and on any
machine with the same kernels. MultiLoRA's growth with n is that of a way to write it: part by part,
a layer keeps the output of every part; folded, as in `peml.methods`, it does not.

    python benchmarks/memory.py
    python benchmarks/memory.py --model $MODELS/minilm --length 128 --batch-size 8
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from gpu import task
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from peml.methods.linear import LinearTerms
from peml.methods.lora import Lora
from peml.methods.method import Method, Setting
from peml.methods.mtl_lora import MtlLora
from peml.methods.multilora import MultiLora
from peml.model.model import LanguageModel
from peml.model.quiet import quiet_libraries
from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from peml.tables.saved import saved_bytes
from prefixnas.network.supernet import Supernet
from prefixnas.report.grid import Grid, Number
from prefixnas.report.terminal import Terminal
from prefixnas.space.loading import load_space

MIB = 2**20
LORA = "LoRA, r 32"
"""The row that others are compared with."""


@dataclass(frozen=True)
class PartByPart(MultiLora):
    """MultiLoRA as its equation is written: every part multiplied by its scales, then added."""

    label: ClassVar[str] = "MultiLoRA, part by part"
    shared: bool = False
    """Whether all parts read one draw of dropout."""

    def attach(self, lm: LanguageModel, setting: Setting) -> LinearTerms:
        """Put the parts on each layer."""
        return _Parts(self, lm, setting)


class _Parts(LinearTerms):
    method: PartByPart

    def _hook(self, term: Any) -> Any:
        rate, shared = self.method.dropout, self.method.shared

        def add(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            (x, *_) = args
            dropped = F.dropout(x, rate, layer.training) if shared else None
            for a, b, scales in zip(term.a, term.b, term.scales, strict=True):
                read = F.dropout(x, rate, layer.training) if dropped is None else dropped
                output = output + term.scale * scales * F.linear(F.linear(read, a), b)
            return output

        return add


class LivePeak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that operations make, until they are freed.

    Attributes:
        most: The largest sum so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if _is(t)}
        for tensor in tree_iter(made):
            if _is(tensor) and tensor.untyped_storage()._cdata not in given:
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._seen:
            return
        self._seen.add(storage._cdata)
        self._now += storage.nbytes()
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())

    def _freed(self, address: int, size: int) -> None:
        self._seen.discard(address)
        self._now -= size


def _is(value: object) -> bool:
    return isinstance(value, Tensor)


@dataclass(frozen=True)
class Row:
    """A line: a method, and the space of the prefix that is searched beside it, if any."""

    name: str
    method: Method
    space: str | None = None


def rows() -> list[Row]:
    """Return the table's lines; alpha is twice the rank, which keeps LoRA's scale."""
    lora = [Row(f"LoRA, r {r}", Lora(lora_rank=r, lora_alpha=2 * r)) for r in (16, 32, 96, 160)]
    forms: dict[str, Callable[..., MultiLora]] = {
        "folded": MultiLora,
        "parts": PartByPart,
        "parts, one dropout": lambda **keys: PartByPart(shared=True, **keys),
    }
    multi = [
        Row(f"MultiLoRA, n {n}, {form}", make(modules=n, lora_rank=32, lora_alpha=64))
        for form, make in forms.items()
        for n in (1, 3, 5)
    ]
    mtl = Row("MTL-LoRA, r 16", MtlLora(lora_rank=16, lora_alpha=32))
    return [*lora, *multi, mtl, Row("PEML, r 16, searching", lora[0].method, "default")]


def measure(config: LanguageModelConfig, row: Row) -> tuple[int, int, int]:
    """Return the weights that train, the bytes that a step keeps, and the peak of live bytes."""
    objective = JointObjective(config, 1000, 0, method=row.method)
    net = Supernet(load_space(row.space), objective.width) if row.space else None
    objective.reset(net, 0)
    objective.backward()  # gradients are there from now on
    kept = saved_bytes(objective)
    with LivePeak() as peak:
        objective.backward()
    weights = sum(w.numel() for group in objective.parameters() for w in group["params"])
    return weights, kept, peak.most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded:llama")
    parser.add_argument("--length", type=int, default=128, help="tokens of an example")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    quiet_libraries()
    found: dict[str, tuple[int, int, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        config = LanguageModelConfig(
            model=arguments.model,
            tasks=[str(task(Path(folder) / "words", arguments.length))],
            batch_size=arguments.batch_size,
            max_length=arguments.length,
        )
        for row in rows():
            found[row.name] = measure(config, row)
            gc.collect()  # a model in a circle of references would stay beside the next
    one = found[LORA][1]
    heads = ("weights", "kept MiB", "ratio", "peak MiB")
    lines = [
        [name, f"{weights:,}", f"{kept / MIB:.1f}", f"{kept / one:.2f}", f"{peak / MIB:.1f}"]
        for name, (weights, kept, peak) in found.items()
    ]
    Terminal().print(Grid(["", *map(Number, heads)], lines))


if __name__ == "__main__":
    main()
