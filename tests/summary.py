"""What a run of the tests ends with: what was not run, and why."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

SLOW = "slow"


class Summary:
    """A plugin that groups skipped tests by their reasons, and counts slow ones left out.

    Where several processes share the tests, each of them leaves out the same ones.
    """

    def __init__(self) -> None:
        self._slow = 0

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Count slow tests that are left out."""
        self._slow += sum(item.get_closest_marker(SLOW) is not None for item in items)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Tell the process that shows the summary."""
        told: dict[str, Any] = getattr(session.config, "workeroutput", {})
        told[SLOW] = self._slow

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Hear of it."""
        self._slow = max(self._slow, getattr(node, "workeroutput", {}).get(SLOW, 0))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write it down, in a line for each reason."""
        reasons = Counter(map(reason, terminalreporter.stats.get("skipped", [])))
        lines = [f"{count:5} skipped: {text}" for text, count in reasons.most_common()]
        if self._slow:
            lines.append(f"{self._slow:5} slow ones left out: `make test-all` runs them, too")
        if lines:
            terminalreporter.section("not run")
            for line in lines:
                terminalreporter.write_line(line)


def reason(report: pytest.TestReport) -> str:
    """Return why a test was skipped."""
    where = report.longrepr
    text = where[2] if isinstance(where, tuple) else str(where)
    return text.removeprefix("Skipped: ")
