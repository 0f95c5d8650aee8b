"""A cell of a comparison, as a process: `python -m prefixnas.commands.cell MEASURED ARGUMENT...`.

It is `prefixnas search ARGUMENT...`, and writes its peak memory to the file MEASURED. It ends with
the process that started it, so no run is left behind that a resumed comparison would write to, too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import guarded
from prefixnas.base.files import write_text
from prefixnas.base.processes import end_with_parent, peak_memory
from prefixnas.commands.search import search_command


def main(argv: Sequence[str]) -> int:
    """Run a cell."""
    code = guarded(lambda arguments: search_command(arguments, "prefixnas search"), argv[1:])
    if code == 0:
        write_text(Path(argv[0]), json.dumps(peak_memory()) + "\n")
    return code


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(sys.argv[1:]))
