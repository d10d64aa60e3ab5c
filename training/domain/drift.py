"""Whether the data has drifted from the data that the champion was trained on."""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

from scipy.stats import false_discovery_control

from training.contract.base import Days
from training.contract.feature_definitions import FeatureDefinitions
from training.contract.feature_tables import window_hours
from training.contract.messages import ColumnDrift, Shift
from training.contract.source_spec import SourceSpec
from training.domain.comparison import OUTPUT, Side
from training.domain.new_values import with_new_values

#: The method of a column that is tested and not on Evidently's page.
SHARES = "shares"
#: The share of the features that must drift when no column has a p-value and the spec does not say.
DISTANCE_SHARE = 0.3


class DriftReport(NamedTuple):
    """Evidently's results per column, and the files that were written."""

    columns: dict[str, ColumnDrift]
    html: Path
    json: Path


class DriftTest(Protocol):
    """A member of the registry DRIFT_TESTS."""

    def __call__(self, reference: Side, current: Side, minimum: float) -> dict[str, Shift]:
        """For each column of both sides, what has changed in it, with a p-value.

        A smaller change than `minimum`, of the share of the rows, has the p-value 1. A column that is returned is also
        tested for new values. One that is not is judged by Evidently's distance: it has drifted from its threshold on.
        """
        ...


def tested(
    sides: Iterable[tuple[Side, Side]], test: DriftTest, minimum: float, chance: float, new: float
) -> dict[str, Shift]:
    """What has changed in the columns of pairs of a reference and a current side, of all columns together.

    `chance`: the chance of error of this look (training/domain/looks.py). `new`: values that the reference lacks count
    from this share of the rows on, in the columns for which the test has a p-value (with_new_values).
    """
    shifts: dict[str, Shift] = {}
    for reference, current in sides:
        shifts |= with_new_values(test(reference, current, minimum), reference, current, new)
    return with_false_discovery_control(shifts, chance)


def judged(columns: Mapping[str, ColumnDrift], shifts: Mapping[str, Shift]) -> dict[str, ColumnDrift]:
    """Evidently's results with what was tested. A column that is only tested has the difference as its score."""
    found = dict(columns)
    for name, shift in shifts.items():
        column = columns.get(name)
        if column is None:
            score, threshold, method = abs(shift.current - shift.reference), shift.minimum, SHARES
        else:
            score, threshold, method = column.score, column.threshold, column.method
        found[name] = ColumnDrift(score=score, threshold=threshold, method=method, drifted=shift.drifted, shift=shift)
    return found


def with_false_discovery_control(shifts: Mapping[str, Shift], chance: float) -> dict[str, Shift]:
    """The shifts with p-values that count how many columns were tested, and with the chance of error of this look.

    When nothing has changed, some column drifts with at most this chance; when some have, of those that are called
    drifted so many on average have not. Source: Benjamini & Hochberg, Controlling the False Discovery Rate, Journal of
    the Royal Statistical Society B 57, 1995. It holds for columns that are independent or rise and fall together.
    """
    if not shifts:
        return {}
    adjusted = false_discovery_control([shift.p_value for shift in shifts.values()], method="bh")
    return {
        name: shift.model_copy(update={"adjusted_p_value": float(p_value), "chance": chance})
        for (name, shift), p_value in zip(shifts.items(), adjusted, strict=True)
    }


def current_window(as_of: date, window_days: int) -> Days:
    """The days whose events are compared: the last `window_days` before `as_of`."""
    return Days.ending(as_of, window_days)


def has_drifted(columns: Mapping[str, ColumnDrift], maximum_share: float | None) -> tuple[bool, float]:
    """Whether the model's data drifted, and the share of its columns (without the outputs) that did.

    Without `maximum_share` the data has drifted when any column has: tests with false-discovery control call no column
    drifted by chance, and a fault of one sensor in twenty shows in one or two. Distances without a p-value do, so they
    need the share DISTANCE_SHARE then.

    With a share, that many features, entities and ages must have drifted, or an output. While labels are late, a shift
    of the predictions is the best sign of a shift in performance (docs.evidentlyai.com, "Prediction drift"), and one
    important feature can cause it while the share stays low.
    """
    features = [column.drifted for name, column in columns.items() if not name.startswith(OUTPUT)]
    share = sum(features) / len(features) if features else 0.0
    enough = [column.drifted for name, column in columns.items() if name.startswith(OUTPUT)]
    if maximum_share is None:
        enough += [column.drifted for column in columns.values() if column.shift]
        maximum_share = DISTANCE_SHARE
    return (bool(features) and share >= maximum_share) or any(enough), share


def short_of_history(source: SourceSpec, definitions: FeatureDefinitions, days: Days, first: date) -> list[str]:
    """The features of views whose values on `days` lacked history, as the first event is of the day `first`.

    A mean of 30 days is one of 14 days when events begin 14 days before. It differs from all later ones though nothing
    has changed, so it is not a reference.
    """
    found = []
    for view in definitions.views:
        table = source.features.tables.get(view.name)
        if table is None:
            continue
        delay = source.labels[table.label].delay_days if table.label else 0
        windows = {each.name: -(-window_hours(each.window) // 24) + delay for each in table.features()}
        needed = {column.name: windows.get(column.name, table.days_of_history(delay)) for column in view.columns}
        found += [name for name, history in needed.items() if days.start < first + timedelta(days=history)]
    return found
