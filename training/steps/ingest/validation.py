"""Validate a landed partition: refuse it, or find the rows that break a rule. It is read in batches.

The rules for rows are checked here, or where an engine runs that can do it. Everything about all rows together, such as
uniqueness, is found here.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training import storage
from training.adapters.feed_table import FeedTable
from training.adapters.lake import EVENTS, Lake
from training.adapters.landing import Landed, Share
from training.adapters.unique_values import UniqueValues
from training.contract.base import Days
from training.contract.errors import DataContractError, TransientError
from training.contract.feeds import PARTITION
from training.contract.messages import IngestInputs
from training.contract.model_spec import FeedSpec
from training.delta_reader import Span
from training.domain.arrow_types import as_validation_frame
from training.domain.conform import Conformed, conform
from training.domain.feature_engine import TaskEngine
from training.domain.partitions import daily_rows, day_counts, partition_days, rows_per_day
from training.domain.quarantine import known_rule, plain
from training.engine import engine_of
from training.row_validation import Findings, RowRules, Unread, ValidationWork, judged, read_message
from training.settings import StateSettings
from training.steps.ingest.broken_rows import BrokenRows
from training.workspace import share

if TYPE_CHECKING:
    import pandas as pd

    from training.adapters.expectations import Examination

log = logging.getLogger("perennial")

_CORRECTED = "Deliver a corrected file with the same name."
#: Values that occur twice, of which the page shows some.
_EXAMPLES = 20
#: The order of a row's reasons: the rules of Great Expectations, what is known elsewhere, what does not fit its type.
_KNOWN, _UNFIT = 1_000_000, 2_000_000


class Batch(NamedTuple):
    """Some rows of a partition. The first of them has the number `first` in the file."""

    first: int
    conformed: Conformed

    @property
    def end(self) -> int:
        return self.first + self.conformed.landed.num_rows


class Validator:
    """Validates one partition of a feed against the spec and the lake. Writes its page, and files to `scratch`.

    `days`: the days in which the rows' times must be.
    """

    def __init__(
        self, inputs: IngestInputs, feed: FeedSpec, days: Days, lake: Lake, settings: StateSettings, scratch: Path
    ) -> None:
        self._inputs, self._feed, self._lake, self._settings = inputs, feed, lake, settings
        self._rules = RowRules(feed, days)
        self._docs = settings.scratch / inputs.source / "data_docs"
        self._scratch = scratch
        self._unique = [name for name, column in feed.columns.items() if column.unique]

    def batches(self, landed: Landed, feed: FeedSpec | None = None) -> Iterator[Batch]:
        """The rows of the file in the types of the spec, or of `feed`, which has some of its columns."""
        first = 0
        for table in landed.batches():
            yield Batch(first, conform(table, feed or self._feed))
            first += table.num_rows

    def refuse_columns(self, landed: Landed) -> None:
        """Raises DataContractError when there is a problem with the file's columns."""
        if conform(landed.schema().empty_table(), self._feed).problems:
            # The first rows have values for the message.
            problems = next(self.batches(landed)).conformed.problems
            raise self._refused(problems, f"{_CORRECTED} Or change the spec if the file is right.")

    def rows(self, landed: Landed, fingerprint: int) -> tuple[BrokenRows, int, str]:
        """The rows that break a rule, the number of all rows, and the URI of their page.

        Raises DataContractError for a refused partition.
        """
        # Great Expectations takes seconds to import, so import it only when there is something to validate.
        from training.adapters.expectations import Examination

        examination = Examination(self._feed, f"{self._inputs.feed} {self._inputs.partition}")
        values, broken = UniqueValues(self._scratch, self._unique, landed.rows()), BrokenRows(self._scratch)
        per_day: Counter[date] = Counter()
        rows, batches, engine = 0, 0, self._engine
        shares = landed.shares() if engine else []
        for batch in self.batches(landed, self._columns_of_all_rows() if shares else None):
            rows = batch.end
            per_day += rows_per_day(batch.conformed.table[self._feed.time_column])
            values.add(batch.first, batch.conformed.table.select(self._unique))
            if not shares:
                batches += self._add([self._rules.judge(batch.first, batch.conformed)], examination, broken)
        if engine and shares:
            batches = self._add(self._judged_by(engine, landed, shares, rows), examination, broken)
        for column in self._unique:
            # A value that is unique in the only batch is unique.
            if batches > 1 or column in examination.repeats:
                self._judge_unique(column, landed, values, examination, broken)
            self._judge_known(column, values, broken)
        days = self._day_counts(per_day)
        wrong = examination.days(days)
        page = self._share(examination.write(self._site(fingerprint)))
        log.info("Page: %s", page)
        if wrong:
            unfit = [rule for rule in broken.rules if broken.order(rule) >= _UNFIT]
            said = [*self._other_days(per_day), *self._counted(broken, unfit, landed)]
            raise self._refused([*wrong, *said], f"{self._remedy(days)} Page: {page}")
        self._refuse_too_many(broken, rows, landed, page)
        return broken, rows, page

    def page(self, fingerprint: int) -> str | None:
        """The URI of the page from an earlier run with this fingerprint, if it still exists."""
        site = self._site(fingerprint).relative_to(self._settings.scratch).as_posix()
        page = storage.join(self._settings.work, site, "index.html")
        return page if storage.read(page) is not None else None

    @cached_property
    def _engine(self) -> TaskEngine | None:
        """What judges the rows; None: this process does it."""
        # DuckDB runs no tasks, and its import takes 30 MB.
        if self._settings.engine == "duckdb":
            return None
        engine = engine_of(self._settings)
        return engine if isinstance(engine, TaskEngine) else None

    def _columns_of_all_rows(self) -> FeedSpec:
        """The feed with the columns that this process looks at when an engine judges the rows."""
        needed = {self._feed.time_column, *self._unique}
        columns = {name: column for name, column in self._feed.columns.items() if name in needed}
        return self._feed.model_copy(update={"columns": columns})

    def _judged_by(self, engine: TaskEngine, landed: Landed, shares: list[Share], rows: int) -> Iterator[Findings]:
        """The findings in all `rows` rows, in order. This process judges the shares that the engine cannot read."""
        work = ValidationWork(self._rules, shares, landed.schema(), self._settings.landed_maximum_bytes)
        next_row, unread = 0, 0
        for message in engine.run_tasks(len(shares), work):
            said = read_message(message)
            if isinstance(said, Unread):
                unread += 1
                if unread == 1:
                    log.warning("The engine's workers cannot read the file, so this process does: %s", said.why)
                share = shares[said.share]
                found = judged(self._rules, landed.batches(share), share.first)
            else:
                found = iter([said])
            for each in found:
                if each.first != next_row:
                    raise TransientError(f"Row {next_row:,} of {landed.uri} was not checked: row {each.first:,} was")
                next_row += each.examined.rows
                yield each
        if next_row != rows:
            raise TransientError(f"Only {next_row:,} of {rows:,} rows of {landed.uri} were checked", "Retry.")
        log.info("%s checked %d of %d parts of the rows", self._settings.engine, len(shares) - unread, len(shares))

    def _add(self, findings: Iterable[Findings], examination: "Examination", broken: BrokenRows) -> int:
        """Add `findings`, which are in order, to the others. Returns in how many batches they were found."""
        batches = 0
        for found in findings:
            batches += 1
            examination.add(found.examined)
            for number, rule, rows in found.unfit:
                broken.add(rule, found.first + rows, _UNFIT + number)
            for rule, positions in found.examined.positions.items():
                broken.add(rule, found.first + np.sort(positions), examination.rules.index(rule))
        return batches

    def _judge_unique(
        self, column: str, landed: Landed, values: UniqueValues, examination: "Examination", broken: BrokenRows
    ) -> None:
        """Of rows with one value the first stays, when the others are copies of it."""
        from training.adapters.expectations import unique_rule

        rule, repeated = unique_rule(column), BrokenRows(self._scratch / f"repeated-{column}")
        for rows in values.repeated(column):
            repeated.add(rule, rows, 0)
        repeated.sort()
        count = repeated.counts().get(rule, 0)
        if not count:
            return
        examination.repeated(column, count, self._some(landed, repeated, column))
        copies = BrokenRows(self._scratch / f"copies-of-{column}")
        for rows in values.first_copies(column, self._rows_of(landed, repeated)):
            copies.add(rule, rows, 0)
        copies.sort()
        for rows in repeated.windows(without=copies):
            broken.add(rule, rows, examination.rules.index(rule))

    def _rows_of(self, landed: Landed, wanted: BrokenRows) -> Iterator[tuple[pa.Array, pa.Table]]:
        """The numbers of the `wanted` rows, and the rows in the types of the spec, batch by batch."""
        for batch in self.batches(landed):
            if rows := list(wanted.within(batch.first, batch.end)):
                numbers = pa.array(rows, pa.int64())
                yield numbers, batch.conformed.table.take(pc.subtract(numbers, batch.first))

    def _some(self, landed: Landed, wanted: BrokenRows, column: str) -> list[Any]:
        """The first values of `column` in the `wanted` rows."""
        found: list[Any] = []
        for _, rows in self._rows_of(landed, wanted):
            found += as_validation_frame(rows.select([column]))[column].tolist()[: _EXAMPLES - len(found)]
            if len(found) == _EXAMPLES:
                break
        return found

    def _judge_known(self, column: str, values: UniqueValues, broken: BrokenRows) -> None:
        """Find events whose unique value the lake has from another partition.

        Labels may be repeated, because a later report corrects an earlier one and readers take the newest.
        """
        if self._inputs.feed != EVENTS or column not in values.bounds:
            return
        stored = FeedTable(self._lake, EVENTS).elsewhere(self._inputs.partition, column, *values.bounds[column])
        order = _KNOWN + self._unique.index(column)
        for found in values.known(column, stored):
            for partition in found[PARTITION].unique().to_pylist():
                rows = found.filter(pc.field(PARTITION) == partition)["row"].to_numpy()
                broken.add(known_rule(column, partition), rows, order)
        broken.sort()

    def _site(self, fingerprint: int) -> Path:
        return self._docs / f"{self._inputs.feed}-{self._inputs.partition}-{fingerprint:015x}"

    def _share(self, page: Path) -> str:
        """The URI of a page."""
        return storage.join(share(self._settings, page.parent), page.name)

    def _day_counts(self, per_day: Mapping[date, int]) -> "pd.DataFrame":
        """One row per day in the partition's name: see `day_counts`.

        The gap is measured from other partitions, not from the clock, so that a replay has the same result.
        """
        others = self._others()
        history = daily_rows((span.partition, span.rows) for span in others)
        newest: date | None = max((span.newest.date() for span in others), default=None)
        promised = partition_days(self._inputs.partition)
        return day_counts(per_day, promised, history, self._feed.row_count, newest)

    def _other_days(self, per_day: Mapping[date, int]) -> list[str]:
        """A sentence about the rows that are not of the days in the partition's name; none without such rows."""
        promised = partition_days(self._inputs.partition)
        others = {day: rows for day, rows in per_day.items() if not promised.start <= day < promised.end}
        if not others:
            return []
        of = str(min(others)) if len(others) == 1 else f"{min(others)} … {max(others)}"
        return [f"{sum(others.values()):,} rows are of other days, {of}"]

    def _others(self) -> list[Span]:
        spans = self._lake.spans(self._inputs.feed, self._feed.time_column)
        return [span for span in spans if span.partition != self._inputs.partition]

    def _refuse_too_many(self, broken: BrokenRows, rows: int, landed: Landed, page: str) -> None:
        count = broken.rows()
        if count <= self._feed.maximum_quarantined * rows:
            return
        counts = broken.counts()
        share = f"{count:,} of {rows:,} rows ({count / rows:.1%}) break a rule"
        limit = f"more than {self._feed.maximum_quarantined:.1%}"
        said = self._counted(broken, sorted(counts, key=lambda rule: -counts[rule]), landed)
        raise self._refused([f"{share}, {limit}: " + "; ".join(said)], f"{_CORRECTED} Page: {page}")

    def _counted(self, broken: BrokenRows, rules: list[str], landed: Landed) -> list[str]:
        """Each rule with the number of its rows, and the first of them with its value as delivered."""
        counts, values = broken.counts(), dict.fromkeys(rules, "no value")
        for batch in self.batches(landed) if rules else ():
            rows = batch.conformed.landed
            for rule in rules:
                column, first = rule.split(" ")[0].rstrip(":"), broken.first(rule)
                if batch.first <= first < batch.end and column in rows.column_names:
                    values[rule] = f"{plain(rows[column][first - batch.first])!r:.60}"
        return [f"{rule}: {counts[rule]:,}, first in row {broken.first(rule)} ({values[rule]})" for rule in rules]

    def _refused(self, problems: list[str], hint: str) -> DataContractError:
        listed = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        sentence = f"{self._inputs.uri} breaks the {self._inputs.feed} rules: {listed}"
        return DataContractError(sentence, f"Nothing of it was written to the lake. {hint}")

    def _remedy(self, days: "pd.DataFrame") -> str:
        if not (days["gap"] > self._feed.maximum_gap_days).any():
            return _CORRECTED
        wrong = "If its days are wrong, for example from a wrong clock, remove it and deliver it with the right days."
        return f"{wrong} Else deliver the days before it, or raise feeds.{self._inputs.feed}.maximum_gap_days."
