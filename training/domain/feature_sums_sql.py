"""Sums over windows of days or hours as SQL, for engines that run elsewhere: the rows of feature_grid.py.

An event changes the sums of its entity at a few steps: at the first row for which it counts, it is added to those of
all windows, and at the row after the last one of a window, it is subtracted from that one. The running sums of the
changes are the sums over windows, and hold until the next change. So an event costs a row for each window, however long
the windows are. Copies of its numbers, one for each row that it counts for, would cost a row for each step.

All relations are divided by entity. To Spark the first of them says so in a hint, which is a comment to DuckDB: then
nothing is sent between machines again after the events.
"""

from typing import Final

from training.domain.feature_grid import CORRECTED, ENTITY, MOMENT, REPORTED, Grid, PartSums
from training.domain.sql_names import quoted

#: Microseconds. Steps are counted from the year 1 on, so that a division rounds them down.
_HOUR: Final = 3_600_000_000
_YEAR_1: Final = 62_135_596_800_000_000


def sums_relations(grid: Grid, parts: str, is_labelled: bool) -> list[str]:
    """The relations of a WITH, the last of which is `grid`, with the columns of `feature_grid.window_sums`.

    `parts`: the SELECT of its argument `events`. They take the parameters $start and $end.
    """
    return [f"parts AS ({parts})", *_SumsSql(grid, is_labelled).relations()]


class _SumsSql:
    def __init__(self, grid: Grid, is_labelled: bool) -> None:
        self._grid, self._labelled = grid, is_labelled
        self._windows = sorted({window for each in grid.sums for window in each.windows})
        self._start, self._end = (self._step(f"CAST({name} AS TIMESTAMP)") for name in ("$start", "$end"))
        #: The last step for which an event gives its entity a row: so many after it.
        self._kept = grid.delay + grid.longest + 1

    def relations(self) -> list[str]:
        return [self._stepped(), self._buckets(), self._moved(), self._changes(), self._running(), self._rows()]

    def _step(self, time: str) -> str:
        return f"((epoch_us({time}) + {_YEAR_1}) // {self._grid.step_hours * _HOUR})"

    def _stepped(self) -> str:
        """The steps of each event: of itself, of the report of its label and of the next one."""
        columns = [ENTITY, f"{self._step(MOMENT)} AS step"]
        columns += [f"{self._step(name)} AS {name}" for name in self._reports]
        columns += [quoted(each.name) for each in self._grid.sums]
        select = f"SELECT /* REPARTITION({ENTITY}) */ {', '.join(columns)} FROM parts"
        return f"stepped AS (SELECT * FROM ({select}) WHERE step >= {self._start} - {self._kept})"

    @property
    def _reports(self) -> list[str]:
        return [REPORTED, CORRECTED] if self._labelled else []

    def _buckets(self) -> str:
        """The sums over the events that count for the same rows: when their first row is, and the first without them
        for each window. Null: they never count."""
        keys = [ENTITY, "step", *self._reports]
        sums = []
        for each in self._grid.sums:
            name = quoted(each.name)
            sums.append(f"count(*) FILTER (WHERE {name}) AS {name}" if each.is_count else f"sum({name}) AS {name}")
            sums += [] if each.is_count else [f"count({name}) AS {_counted(each)}"]
        begin = f"step + {self._grid.delay + 1}"
        ends = {window: f"{begin} + {window}" for window in self._windows}
        if self._labelled:
            begin = f"CASE WHEN {REPORTED} IS NOT NULL THEN greatest({begin}, {REPORTED} + 1) END"
            ends = {
                window: f"CASE WHEN {REPORTED} IS NOT NULL THEN greatest(least({end}, {CORRECTED} + 1), {begin}) END"
                for window, end in ends.items()
            }
        spans = [f"{begin} AS begins", *(f"{end} AS ends_{window}" for window, end in ends.items())]
        grouped = f"SELECT {', '.join([*keys, *sums])} FROM stepped GROUP BY {', '.join(keys)}"
        return f"buckets AS (SELECT *, {', '.join(spans)} FROM ({grouped}))"

    def _moved(self) -> str:
        """Each bucket with the steps of its changes. Those before $start are made at $start, where they still count."""
        steps = ["step + 1", "begins", *(f"ends_{window}" for window in self._windows)]
        cases = " ".join(f"WHEN {number} THEN {step}" for number, step in enumerate(steps))
        numbers = f"(SELECT range AS change FROM range({0 if self._labelled else 1}, {len(steps)}))"
        moved = f"SELECT *, CASE change {cases} END AS changed FROM buckets, {numbers}"
        where = f"changed < {self._end} AND (changed > {self._start} OR change <= 1)"
        return f"moved AS (SELECT *, greatest(changed, {self._start}) AS moment FROM ({moved}) WHERE {where})"

    def _changes(self) -> str:
        """What changes at a step, and the newest event that has a part in it."""
        columns = [ENTITY, "moment", "max(step) AS newest"]
        for each in self._grid.sums:
            for window in each.windows:
                columns.append(f"{self._changed(quoted(each.name), window)} AS {_over(each, window)}")
                if not each.is_count:
                    columns.append(f"{self._changed(_counted(each), window)} AS {_counted(each, window)}")
        return f"changes AS (SELECT {', '.join(columns)} FROM moved GROUP BY {ENTITY}, moment)"

    def _changed(self, part: str, window: int) -> str:
        added = f"change = 1 AND ends_{window} > {self._start}"
        return f"sum(CASE WHEN {added} THEN {part} WHEN change = {self._windows.index(window) + 2} THEN -{part} END)"

    def _running(self) -> str:
        """The sums from each change on, until the next one or the last row that the newest event gives."""
        order = f"PARTITION BY {ENTITY} ORDER BY moment"
        columns = [ENTITY, "moment", f"lead(moment, 1, {self._end}) OVER ({order}) AS changes_at"]
        columns += [f"max(newest) OVER steps + {self._kept + 1} AS gone"]
        for each in self._grid.sums:
            for window in each.windows:
                name = _over(each, window)
                value = f"sum({name}) OVER steps"
                if each.is_count:
                    value = f"coalesce({value}, 0)"
                else:
                    value = f"CASE WHEN sum({_counted(each, window)}) OVER steps > 0 THEN {value} END"
                columns.append(f"{value} AS {name}")
        steps = f"{order} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
        return f"running AS (SELECT {', '.join(columns)} FROM changes WINDOW steps AS ({steps}))"

    def _rows(self) -> str:
        if self._grid.step_hours == 24:
            time = "CAST('0001-01-01' AS DATE) + CAST(step AS INTEGER)"
        else:
            time = "CAST('0001-01-01' AS TIMESTAMP) + INTERVAL 1 HOUR * CAST(step AS INTEGER)"
        sums = [_over(each, window) for each in self._grid.sums for window in each.windows]
        each_step = "SELECT *, unnest(range(moment, least(changes_at, gone))) AS step FROM running"
        return f"grid AS (SELECT {', '.join([ENTITY, f'{time} AS {MOMENT}', *sums])} FROM ({each_step}))"


def _over(each: PartSums, window: int) -> str:
    return quoted(f"{each.name}_{window}")


def _counted(each: PartSums, window: int | None = None) -> str:
    """How many of the values are not null."""
    return quoted(f"valid_{each.name}" + ("" if window is None else f"_{window}"))
