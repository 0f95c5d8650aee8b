"""The processes that train one run together, and what they tell each other.

Every process (rank) runs the same program with the same random state; an objective splits its
batches among them. Rank 0 alone writes files. What a clock or a file says may differ between
ranks, so rank 0's word counts (`Ranks.agree`).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from prefixnas.base.errors import Ended, RunLost, UserError, first_line
from prefixnas.base.processes import end_when_orphaned

T = TypeVar("T")

STORE = "PREFIXNAS_STORE"
"""Environment variable: the file through which the ranks that `launch` starts find each other."""


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that train one run.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0

    def agree(self, value: T) -> T:
        """Return rank 0's `value`, a JSON value, on all ranks."""
        if self.count == 1:
            return value
        agreed: T = self.gather(value if self.first else None)[0]
        return agreed

    def carry_out(self, make: Callable[[], T]) -> T:
        """Call `make` on all ranks and return what it returned on rank 0, a JSON value.

        Raises:
            Ended: On the other ranks, where it raised on rank 0.
        """
        if self.count == 1:
            return make()
        try:
            value = make()
        except Exception:
            self.agree(None)
            raise
        agreed = self.agree({"value": value})
        if agreed is None:
            raise Ended(f"rank {self.rank}: the run was ended by rank 0")
        returned: T = agreed["value"]
        return returned

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's `value`, a JSON value, by rank."""
        if self.count == 1:
            return [value]
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [int(size) for size in self.rows(torch.tensor([len(own)]))[:, 0]]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(own)] = own
        texts = zip(self.rows(padded), sizes, strict=True)
        return [json.loads(bytes(row[:size].tolist())) for row, size in texts]

    def rows(self, values: Tensor) -> Tensor:
        """Return every rank's `values [n]`, a tensor on the CPU, by rank: `[count, n]`."""
        if self.count == 1:
            return values[None]
        found = [torch.empty_like(values) for _ in range(self.count)]
        with _together(self):
            dist.all_gather(found, values)
        return torch.stack(found)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks, all of them in one exchange per dtype."""
        if self.count == 1:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            group = [tensor for tensor in tensors if tensor.dtype is dtype]
            flat = torch.cat([tensor.detach().flatten() for tensor in group])
            with _together(self):
                dist.all_reduce(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in group])
            for tensor, part in zip(group, parts, strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Wait until all ranks are here."""
        self.gather(None)

    def random_devices(self) -> list[int] | None:
        """Return the GPUs whose random state this process uses; None: all that it sees.

        Ranks share a machine: one that looks at the others' GPUs takes memory there.
        """
        if self.count == 1:
            return None
        return [torch.cuda.current_device()] if torch.cuda.is_available() else []

    def cuda_rng(self) -> list[Tensor]:
        """Return the random state of the GPUs: of all of them, or of one for all ranks."""
        if self.count == 1:
            return torch.cuda.get_rng_state_all()
        return [torch.cuda.get_rng_state()]  # all ranks are in the same state

    def set_cuda_rng(self, states: list[Tensor]) -> None:
        """Restore what `cuda_rng` returned."""
        if self.count == 1:
            torch.cuda.set_rng_state_all(states)
        else:
            torch.cuda.set_rng_state(states[0])


ALONE = Ranks()


def ranks_here() -> Ranks:
    """Return this process's place: `ALONE`, or what `join` made."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return ALONE


def launched() -> int:
    """Return how many processes were launched together, by their environment; 1 for a lone one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def followed() -> bool:
    """Tell whether the process that launched this one shows what the run says."""
    return STORE in os.environ


def join() -> Ranks:
    """Meet the other processes that were launched with this one (torchrun, accelerate, `launch`).

    Raises:
        UserError: More processes than GPUs.
    """
    if launched() == 1 or dist.is_initialized():
        return ranks_here()
    local = int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    check_devices(int(os.environ.get("LOCAL_WORLD_SIZE", launched())))
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    store = os.environ.get(STORE)
    dist.init_process_group(
        backend,
        init_method=f"file://{store}" if store else "env://",
        rank=int(os.environ["RANK"]),
        world_size=launched(),
    )
    ranks = ranks_here()
    if not ranks.first:  # everything is said once
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
    end_when_orphaned()
    return ranks


def leave() -> None:
    """Part from the other processes, at the end of a run, when all of them have come that far.

    A rank that parts while another still talks to it can abort that one.
    """
    if dist.is_available() and dist.is_initialized():
        ranks_here().wait()
        dist.destroy_process_group()


def end_now() -> NoReturn:
    """End this process with success, without the interpreter's clean-up.

    Threads of gloo may outlive their group, and one that is left then aborts the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def check_devices(processes: int) -> None:
    """Refuse more processes on this machine than it has GPUs, if it has any.

    Raises:
        UserError: Says how many there are.
    """
    if torch.cuda.is_available() and processes > (found := torch.cuda.device_count()):
        raise UserError(
            f"{processes} processes need a GPU each, and there are {found}; "
            "start fewer, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to train on CPUs"
        )


@contextmanager
def said_once(ranks: Ranks) -> Iterator[None]:
    """Let rank 0 alone say what all ranks find wrong.

    The others wait: whatever launched them ends them soon, after rank 0 or the rank that was lost.
    The process that launched the ranks is none of them, and has nothing to wait for.
    """
    try:
        yield
    except (RunLost, UserError) as error:
        if ranks.count > 1 and (isinstance(error, RunLost) or not ranks.first):
            time.sleep(_PATIENCE)
        raise


_PATIENCE = 5.0


@contextmanager
def _together(ranks: Ranks) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # how torch says that a peer is gone
        raise RunLost(
            f"rank {ranks.rank} lost another process of this run; the last checkpoint stays, and "
            f"the same command with --resume goes on ({first_line(error)})"
        ) from error
