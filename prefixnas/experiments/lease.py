"""Leases of GPUs: a trial holds its GPUs, or shares of them, as long as one of its processes lives.

A lease is a lock on a file per share, taken by the trial's launcher and inherited by everything it
starts. The kernel gives it back when the last of them is gone, however they end: no GPU is given
twice, and none stays taken.
"""

from __future__ import annotations

import glob
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from prefixnas.base.errors import UserError
from prefixnas.base.locks import try_lock, wait_for_lock

Gpu = int | str
"""A GPU as CUDA_VISIBLE_DEVICES names it: its number, or the UUID of a GPU or of a part of one."""

VISIBLE = "CUDA_VISIBLE_DEVICES"

COUNT = "PREFIXNAS_GPUS"
"""Stands in for the number of GPUs, so that leases can be tried on a machine without any."""


def default_folder() -> Path:
    """Return where this user's leases lie, on the machine that the trial runs on."""
    return Path(tempfile.gettempdir()) / f"prefixnas-gpus-{os.getuid()}"


def visible() -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use, as CUDA names them."""
    given = os.environ.get(VISIBLE)
    if given is None:
        return tuple(range(count_gpus()))
    names = [name.strip() for name in given.split(",")]
    hidden = next((at for at, name in enumerate(names) if name in ("", "-1")), len(names))
    return tuple(int(name) if name.isdecimal() else name for name in names[:hidden])


def count_gpus() -> int:
    """Count the machine's GPUs, with NVIDIA's own tool; none where there is no such tool."""
    if COUNT in os.environ:
        return int(os.environ[COUNT])
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


@dataclass(frozen=True)
class Demand:
    """What a trial needs.

    Attributes:
        gpus: GPUs per trial; 0: none, and none is visible to it.
        share: Trials that share a GPU.
        indices: GPUs that may be used; none named: all.
    """

    gpus: int = 0
    share: int = 1
    indices: tuple[Gpu, ...] = ()

    def usable(self) -> tuple[Gpu, ...]:
        """Return the GPUs of this machine to choose from.

        Raises:
            UserError: The demand can never be met here.
        """
        if not self.gpus:
            return ()
        count = count_gpus()
        absent = [index for index in self.indices if isinstance(index, int) and index >= count]
        if absent:
            raise UserError(f"gpu_indices: there is no GPU {absent[0]}: this machine has {count}")
        usable = self.indices or tuple(range(count))
        if self.gpus > len(usable):
            raise UserError(
                f"gpus_per_trial: a trial wants {self.gpus} GPUs and {len(usable)} can be had"
            )
        return usable


def demand_of_worker(workers: int, each: int = 1) -> Demand:
    """Return what each of several workers leases; where no GPU is visible, none.

    Workers share GPUs evenly where there are more of them than GPUs.

    Args:
        workers: How many there are.
        each: Processes of a trial, each on a GPU of its own.

    Raises:
        UserError: More processes than GPUs.
    """
    usable = visible()
    if not usable:
        return Demand()
    if each > len(usable):
        raise UserError(
            f"key 'processes': {each} processes need a GPU each, and there are {len(usable)}; "
            f"start fewer, or hide the GPUs ({VISIBLE}=) to train on CPUs"
        )
    return Demand(each, math.ceil(workers * each / len(usable)), usable)


@dataclass
class Lease:
    """GPUs that are held; `release` gives them back early, the end of all processes does anyway.

    Attributes:
        gpus: Their numbers, or UUIDs.
    """

    gpus: tuple[Gpu, ...]
    _locks: ExitStack = field(default_factory=ExitStack, repr=False)

    def environment(self) -> dict[str, str]:
        """Return the variables that show a trial its GPUs and no others."""
        return {VISIBLE: ",".join(map(str, self.gpus))}

    def release(self) -> None:
        """Close the locks here; processes that inherited them keep them."""
        self._locks.close()


def acquire(
    folder: Path,
    demand: Demand,
    *,
    wait: float = 0.5,
    give_up: Callable[[], bool] = lambda: False,
) -> Lease | None:
    """Wait until the demand can be met, then hold it.

    All GPUs of a trial are taken at once, under one lock, so that two trials never hold half of
    what they need each.

    Args:
        folder: Where the locks lie; the same for everybody who uses the machine's GPUs.
        demand: What is needed.
        wait: Seconds between two tries.
        give_up: Asked between tries; None is returned once it says so.

    Raises:
        UserError: It can never be met on this machine.
    """
    usable = demand.usable()
    if not usable:
        return Lease(())
    folder.mkdir(parents=True, exist_ok=True)
    while not give_up():
        lease = _try(folder, demand, usable)
        if lease is not None:
            return lease
        time.sleep(wait)
    return None


def lease_now(demand: Demand) -> Lease | None:
    """Return a lease in the usual folder if it can be had at once.

    Args:
        demand: What is needed; it names the GPUs to choose from.
    """
    folder = default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return _try(folder, demand, demand.indices)


def _try(folder: Path, demand: Demand, usable: Sequence[Gpu]) -> Lease | None:
    with wait_for_lock(folder / "turn.lock"), ExitStack() as locks:
        taken: list[Gpu] = []
        for index in sorted(usable, key=lambda index: _held(folder, index, demand.share)):
            if len(taken) < demand.gpus and _take(locks, folder, index, demand.share):
                taken.append(index)
        if len(taken) == demand.gpus:
            return Lease(tuple(sorted(taken, key=usable.index)), locks.pop_all())
    return None


def _take(locks: ExitStack, folder: Path, index: Gpu, share: int) -> bool:
    """Lock a GPU as a whole, or against whole users and one of its shares."""
    with ExitStack() as own:
        whole = try_lock(folder / f"gpu{index}.lock", shared=share > 1, inherited=True)
        if whole is None:
            return False
        own.enter_context(whole)
        if share > 1 and not (
            _take_size(own, folder, index, share)
            and any(_take_share(own, folder, index, part) for part in range(share))
        ):
            return False
        locks.push(own.pop_all())
    return True


def _take_size(locks: ExitStack, folder: Path, index: Gpu, share: int) -> bool:
    """Lock a GPU against those whose shares of it are of another size: they do not add up."""
    path = folder / f"gpu{index}-shares{share}.lock"
    for other in folder.glob(f"gpu{glob.escape(str(index))}-shares*.lock"):
        if other != path:
            if (lock := try_lock(other)) is None:
                return False
            lock.release()
    if (lock := try_lock(path, shared=True, inherited=True)) is None:
        return False
    locks.enter_context(lock)
    return True


def _take_share(locks: ExitStack, folder: Path, index: Gpu, part: int) -> bool:
    path = folder / f"gpu{index}-share{part}.lock"
    if (lock := try_lock(path, inherited=True)) is None:
        return False
    locks.enter_context(lock)
    return True


def _held(folder: Path, index: Gpu, share: int) -> int:
    """Count a GPU's shares that are taken, so that trials spread over the GPUs."""
    with ExitStack() as own:
        parts = range(share if share > 1 else 0)
        return sum(not _take_share(own, folder, index, part) for part in parts)
