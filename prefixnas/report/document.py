"""A run as a document for programs: what `prefixnas show RUN` shows, as numbers."""

from __future__ import annotations

from typing import Any

from prefixnas.report.remarks import remarks
from prefixnas.run.events import Evidence
from prefixnas.run.record import Record, evidence, final_probabilities


def run_document(record: Record) -> dict[str, Any]:
    """Return what is known of a run, finished or not; what is not known is None or empty.

    The columns are those of `result.json`, by their names.
    """
    started = ("space", "strategy", "objective", "seed", "steps", "trained_parameters")
    return {
        "run": record.folder,
        "finished": record.finished,
        **{key: record.start(key) for key in started},
        "seconds": record.seconds(),
        "architecture": None if record.architecture is None else record.architecture.choices,
        "probabilities": final_probabilities(record),
        "p_by_chance": evidence(record),
        "columns": record.columns(),
        "test": record.tested(),
        "differences": [
            {"of": of, "over": over, **less} for (of, over), less in record.differences().items()
        ],
        "gap": record.gap(),
        "warnings": record.warnings(),
        "remarks": remarks(record),
        "doubts": doubts(record),
    }


def doubts(record: Record) -> list[str]:
    """Return why the architecture that was found may be as good as any other, in sentences."""
    return [said for said in {found.doubt(): None for found in record.of(Evidence)} if said]
