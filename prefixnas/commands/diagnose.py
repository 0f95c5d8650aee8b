"""`prefixnas diagnose`: check the paper's analysis on a differentiable run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefixnas.base.console import Parser, positive
from prefixnas.base.errors import UserError
from prefixnas.commands.output import Output, add_output

if TYPE_CHECKING:
    from prefixnas.run.record import Record

CLOSE = 1e-3
"""Rounding alone (another number of threads) keeps two searches this close."""

HELP = "check the paper's analysis on a run"


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("run", type=Path, help="a finished run with alphas")
    parser.add_argument(
        "--replay", type=positive, metavar="N", help="search again, with a probe every N steps"
    )
    parser.add_argument(
        "--batches", type=positive, default=4, metavar="N", help="batches of a probe (default: 4)"
    )
    parser.add_argument("--plugin", nargs="*", default=[], help="plugins that a replay may import")
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)
    output = Output.of(args)
    if args.batches < 2:
        raise UserError("--batches: must be at least 2, for an interval")

    from prefixnas.base.files import make_folder, write_text
    from prefixnas.base.locks import alone
    from prefixnas.base.plugins import trust
    from prefixnas.report.diagnosis import diagnose
    from prefixnas.report.diagnosis_view import figure, text
    from prefixnas.report.plots.style import save_figure
    from prefixnas.run.record import read_search

    record = read_search(args.run)
    with alone(args.run, "diagnoses"):
        if args.replay is not None:
            trust(args.plugin)
            record = _replayed(record, args.replay, args.batches, output)
        diagnosis = diagnose(record)
        path = args.run / "diagnosis.json"
        write_text(path, json.dumps(diagnosis.to_json(), indent=2) + "\n")
        make_folder(args.run / "plots")
        if (drawn := figure(diagnosis)) is not None:
            save_figure(drawn, args.run / "plots" / "diagnosis.png")
    output.result(diagnosis.to_json(), text(diagnosis), f"written: {path}", wrap=False)
    return 0


def _replayed(record: Record, every: int, batches: int, output: Output) -> Record:
    """Return the record with the probes of a second search, which lies in `replay/` of the run."""
    from prefixnas.launch.replay import difference, search_again
    from prefixnas.report.progress import open_progress
    from prefixnas.run import events

    with open_progress(quiet=output.quiet, verbose=output.verbose) as progress:
        again = search_again(record, every, batches, progress.on_event)
    if (apart := difference(record, again)) > CLOSE:
        output.warn(
            f"probabilities of the second search are up to {apart:.2g} away from the "
            "run's (another version, device or number of threads); what was probed is its own"
        )
    probed = [*again.of(events.Probe), *again.of(events.Gap)]
    kept = [e for e in record.events if not isinstance(e, events.Probe | events.Gap)]
    return dataclasses.replace(record, events=[*kept, *probed])
