"""The slices, the calibration and the fairness of a verdict as tables of texts, for its report and for the evidence."""

from collections.abc import Iterator
from typing import NamedTuple

from training.contract.messages import Verdict
from training.contract.messages.judged_groups import CalibrationResult, FairnessResult, SliceResults

_OUTCOMES = {"passed": "passed", "failed": "FAILED", "too_few": "too few", "not_compared": "no champion"}


class Table(NamedTuple):
    title: str
    said: str
    head: list[str]
    rows: list[list[str]]


def group_tables(verdict: Verdict) -> Iterator[Table]:
    """Those that the verdict has."""
    if verdict.slices is not None:
        yield _slices(verdict.slices)
    if verdict.calibration is not None:
        yield _calibration(verdict.calibration)
    if verdict.fairness is not None:
        for column in dict.fromkeys(each.column for each in verdict.fairness.rates):
            yield _rates(verdict.fairness, column)
        if verdict.fairness.gaps:
            yield _gaps(verdict.fairness)


def _slices(found: SliceResults) -> Table:
    said = (
        f"{found.metric} in parts of the holdout. The intervals of the difference, challenger minus champion, hold "
        f"together at {found.confidence:.0%}. A found slice is measured on the half of the entities on which it was "
        "not found."
    )
    said += f" {found.left_out} more slices passed or are too small." if found.left_out else ""
    rows = [
        [
            each.where + (" (found)" if each.found else ""),
            f"{each.rows:,}",
            _number(each.challenger),
            _number(each.champion),
            _interval(each.low, each.high),
            _OUTCOMES[each.outcome] + (f": {each.why}" if each.why else ""),
        ]
        for each in found.slices
    ]
    return Table("Slices", said, ["slice", "rows", "challenger", "champion", "difference", "outcome"], rows)


def _calibration(found: CalibrationResult) -> Table:
    said = (
        f"The expected calibration error of {found.of} is {found.error:.4f}, interval "
        f"{_interval(found.low, found.high)} at {found.confidence:.0%}"
    )
    said += "" if found.by_chance is None else f"; perfectly calibrated, it would be {found.by_chance:.4f} by chance"
    said += "" if found.champion is None else f"; the champion's is {found.champion:.4f}"
    said += "." if found.limit is None else f". The limit is {found.limit:.4f}."
    with_intervals = any(each.inside is not None for each in found.bins)
    head = ["mean prediction", "what came true", "rows", *(["in the interval"] if with_intervals else [])]
    rows = [
        [
            f"{each.predicted:.4f}",
            f"{each.observed:.4f}",
            f"{each.rows:,}",
            *([] if each.inside is None else [f"{each.inside:.1%}"]),
        ]
        for each in found.bins
    ]
    return Table("Calibration", said, head, rows)


def _rates(found: FairnessResult, column: str) -> Table:
    """A row for each measure, a column for each group."""
    rates = {(each.measure, each.group): each for each in found.rates if each.column == column}
    measures, groups = (list(dict.fromkeys(key[place] for key in rates)) for place in (0, 1))
    most = {group: max(rates[measure, group].rows for measure in measures) for group in groups}
    rows = [[measure, *(_number(rates[measure, group].value) for group in groups)] for measure in measures]
    said = "How the model treats these groups of rows. –: the group has too few rows for the measure."
    head = ["measure", *(f"{group} ({most[group]:,} rows)" for group in groups)]
    return Table(f"Fairness: rates by {column}", said, head, rows)


def _gaps(found: FairnessResult) -> Table:
    said = f"The largest differences between two groups. The intervals hold together at {found.confidence:.0%}."
    rows = [
        [
            f"{each.name} by {each.column}",
            f"{each.gap:.4f}",
            _interval(each.low, each.high),
            f"{each.highest} – {each.lowest}",
            _number(each.limit),
            _number(each.champion),
            "–" if each.change is None else _interval(*each.change),
        ]
        for each in found.gaps
    ]
    head = ["gap", "size", "interval", "highest – lowest", "limit", "champion's", "change"]
    return Table("Fairness: gaps", said, head, rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"[{low:+.4f}, {high:+.4f}]"
