"""Validate a landed partition: refuse it, or find the rows that break a rule."""

import logging
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from training import storage
from training.adapters.lake import EVENTS, Lake, Span
from training.contract.base import Days
from training.contract.errors import DataContractError
from training.contract.messages import IngestInputs
from training.contract.model_spec import FeedSpec
from training.domain.arrow_types import as_validation_frame
from training.domain.conform import Conformed, positions
from training.domain.partitions import daily_rows, day_counts, partition_days
from training.domain.quarantine import known_rule, plain
from training.settings import StateSettings
from training.workspace import share

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("perennial")

#: Position of a row in the file → the rules that it breaks.
Broken = dict[int, list[str]]

_CORRECTED = "Deliver a corrected file with the same name."


class Validator:
    """Validates one partition of a feed against the spec and the lake. Writes only its page.

    `days`: the days in which the rows' times must be.
    """

    def __init__(self, inputs: IngestInputs, feed: FeedSpec, days: Days, lake: Lake, settings: StateSettings) -> None:
        self._inputs, self._feed, self._days, self._lake, self._settings = inputs, feed, days, lake, settings
        self._docs = settings.scratch / inputs.source / "data_docs"

    def refuse_columns(self, problems: list[str]) -> None:
        """Raises DataContractError when there are `problems` with the file's columns."""
        if problems:
            raise self._refused(problems, f"{_CORRECTED} Or change the spec if the file is right.")

    def rows(self, conformed: Conformed, fingerprint: int) -> tuple[Broken, str]:
        """The rows that break a rule, and the URI of their page. Raises DataContractError for a refused partition."""
        # Great Expectations takes seconds to import, so import it only when there is something to validate.
        from training.adapters.expectations import examine

        name = f"{self._inputs.feed} {self._inputs.partition}"
        days, rows = self._day_counts(conformed.table), as_validation_frame(conformed.table)
        findings = examine(rows, days, self._feed, self._days, name, self._site(fingerprint))
        page = self._share(findings.page)
        log.info("Page: %s", page)
        if findings.days:
            unfit = [rule for reasons in conformed.unfit.values() for rule in _counted(reasons, conformed.landed)]
            raise self._refused([*findings.days, *unfit], f"{self._remedy(days)} Page: {page}")
        broken = _by_row(findings.rows, conformed.unfit, self._known_elsewhere(conformed.table))
        self._refuse_too_many(broken, conformed.landed, page)
        return broken, page

    def page(self, fingerprint: int) -> str | None:
        """The URI of the page from an earlier run with this fingerprint, if it still exists."""
        site = self._site(fingerprint).relative_to(self._settings.scratch).as_posix()
        page = storage.join(self._settings.work, site, "index.html")
        return page if storage.read(page) is not None else None

    def _site(self, fingerprint: int) -> Path:
        return self._docs / f"{self._inputs.feed}-{self._inputs.partition}-{fingerprint:015x}"

    def _share(self, page: Path) -> str:
        """The URI of a page."""
        return storage.join(share(self._settings, page.parent), page.name)

    def _day_counts(self, table: pa.Table) -> "pd.DataFrame":
        """One row per day in the partition's name: see `day_counts`.

        The gap is measured from other partitions, not from the clock, so that a replay has the same result.
        """
        others = self._others()
        history = daily_rows((span.partition, span.rows) for span in others)
        newest: date | None = max((span.newest.date() for span in others), default=None)
        promised = partition_days(self._inputs.partition)
        return day_counts(table[self._feed.time_column], promised, history, self._feed.row_count, newest)

    def _others(self) -> list[Span]:
        spans = self._lake.spans(self._inputs.feed, self._feed.time_column)
        return [span for span in spans if span.partition != self._inputs.partition]

    def _known_elsewhere(self, table: pa.Table) -> dict[str, list[int]]:
        """Rule → positions of events whose unique value the lake has from another partition.

        Labels may be repeated, because a later report corrects an earlier one and readers take the newest.
        """
        rules: dict[str, list[int]] = {}
        if self._inputs.feed != EVENTS or self._lake.version(EVENTS) is None:
            return rules
        stored = self._lake.scan(EVENTS)
        unique = [name for name, column in self._feed.columns.items() if column.unique and name in stored.schema.names]
        for name in unique:
            low, high = pc.min_max(table[name]).values()
            if not low.is_valid:
                continue
            elsewhere = pc.field("partition") != self._inputs.partition
            near = elsewhere & (pc.field(name) >= low) & (pc.field(name) <= high)
            known = stored.to_table(columns=[name, "partition"], filter=near)
            values = known[name].cast(table.schema.field(name).type)
            found = pc.is_in(values, table[name])
            values, partitions = values.filter(found), known["partition"].filter(found)
            where = dict(zip(values.to_pylist(), partitions.to_pylist(), strict=True))
            for row in positions(pc.is_in(table[name], values)):
                rules.setdefault(known_rule(name, where[table[name][row].as_py()]), []).append(row)
        return rules

    def _refuse_too_many(self, broken: Broken, landed: pa.Table, page: str) -> None:
        rows = landed.num_rows
        if len(broken) <= self._feed.maximum_quarantined * rows:
            return
        by_rule: dict[str, list[int]] = {}
        for row, rules in broken.items():
            for rule in rules:
                by_rule.setdefault(rule, []).append(row)
        by_rule = dict(sorted(by_rule.items(), key=lambda item: -len(item[1])))
        share = f"{len(broken):,} of {rows:,} rows ({len(broken) / rows:.1%}) break a rule"
        limit = f"more than {self._feed.maximum_quarantined:.1%}"
        problem = f"{share}, {limit}: " + "; ".join(_counted(by_rule, landed))
        raise self._refused([problem], f"{_CORRECTED} Page: {page}")

    def _refused(self, problems: list[str], hint: str) -> DataContractError:
        listed = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        sentence = f"{self._inputs.uri} breaks the {self._inputs.feed} rules: {listed}"
        return DataContractError(sentence, f"Nothing of it was written to the lake. {hint}")

    def _remedy(self, days: "pd.DataFrame") -> str:
        if not (days["gap"] > self._feed.maximum_gap_days).any():
            return _CORRECTED
        wrong = "If its days are wrong, for example from a wrong clock, remove it and deliver it with the right days."
        return f"{wrong} Else deliver the days before it, or raise feeds.{self._inputs.feed}.maximum_gap_days."


def _counted(reasons: Mapping[str, list[int]], landed: pa.Table) -> list[str]:
    """Each rule with the number of its rows, and the first of them with its value as delivered."""
    found = []
    for rule, rows in reasons.items():
        column = rule.split(" ")[0].rstrip(":")
        value = f"{plain(landed[column][rows[0]])!r:.60}" if column in landed.column_names else "no value"
        found.append(f"{rule}: {len(rows):,}, first in row {rows[0]} ({value})")
    return found


def _by_row(
    validated: Mapping[str, Iterable[int]], unfit: dict[str, dict[str, list[int]]], known: dict[str, list[int]]
) -> Broken:
    """Row → rules, from rules → rows. A value that did not fit its type is null now, but does not count as missing."""
    from training.adapters.expectations import missing_rule

    rules: dict[str, Iterable[int]] = {**validated, **known}
    for column, reasons in unfit.items():
        not_missing = {row for rows in reasons.values() for row in rows}
        missing = missing_rule(column)
        rules[missing] = [row for row in rules.get(missing, []) if int(row) not in not_missing]
        rules |= reasons
    broken: Broken = {}
    for rule, rows in rules.items():
        for row in rows:
            broken.setdefault(int(row), []).append(rule)
    return dict(sorted(broken.items()))
