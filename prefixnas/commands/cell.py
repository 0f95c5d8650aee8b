"""A cell of a comparison, as a process: `python -m prefixnas.commands.cell`.

It ends with the process that started it, whatever ended that one: nobody writes to its standard
input, which closes then. So no run is left behind that a resumed comparison would write to, too.

    python -m prefixnas.commands.cell search MEASURED ARGUMENT...  # `prefixnas search ARGUMENT...`
    python -m prefixnas.commands.cell check CONFIG...  # build what these runs need, run nothing
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import guarded
from prefixnas.base.errors import UserError


def main(argv: Sequence[str]) -> int:
    """Run a cell, or check several."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if argv[0] == "check":
        return guarded(_check, argv[1:])
    from prefixnas.__main__ import main as prefixnas
    from prefixnas.base.files import write_text

    code = prefixnas(["search", *argv[2:]])
    if code == 0:
        write_text(Path(argv[1]), json.dumps(measured()) + "\n")
    return code


def measured() -> dict[str, float | None]:
    """Return the peak memory of this process and of its accelerator, in bytes."""
    import resource

    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    used = torch.cuda.is_available()
    return {
        "peak_memory": peak,
        "peak_device_memory": torch.cuda.max_memory_allocated() if used else None,
    }


def _end_with_parent() -> None:
    os.read(0, 1)  # unbuffered: a thread in the buffer would stop the interpreter from ending
    os._exit(1)


def _check(paths: Sequence[str]) -> int:
    from prefixnas.base import options as config
    from prefixnas.launch.plan import find_options, plan_run

    objective = None
    for path in paths:
        layers = [(path, config.read_config(Path(path)))]
        options, _ = find_options(layers)
        plan = plan_run(options, config.resolve(options, layers))
        objective = objective or plan.objective.build(plan.budget.total, plan.run.seed)
        try:
            plan.fit(objective)
        except UserError as error:
            raise UserError(f"space {plan.run.space!r}: {error}") from error
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
