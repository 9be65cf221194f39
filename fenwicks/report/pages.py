"""The page of one run, and that of several."""

from __future__ import annotations

from collections.abc import Sequence

from fenwicks.report import comparison, single
from fenwicks.report.elements import document
from fenwicks.report.runs import Run


def page(runs: Sequence[Run]) -> str:
    """The HTML of a page: of the run, or of the comparison where there are several."""
    if len(runs) == 1:
        return document(single.title(runs[0]), single.body(runs[0]))
    return document(comparison.title(runs), comparison.body(runs))
