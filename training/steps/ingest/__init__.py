"""Validate one landed partition, quarantine the rows that break a rule, and write the others to the lake.

The file is read in batches, several times, so that memory does not grow with it (ADR 42).
Nothing is written before three checks have passed: the file has the columns of the spec, the tables can take the types
of the spec, and the partition meets the rules for partitions (validation.py). The rows are written exactly once
(writing.py): a retry after a kill repeats everything, and a partition is skipped when its rows in the lake come from
the same file and the same rules. It is not skipped when some of its rows were quarantined as duplicates of another
partition, because that partition may have been replaced. The days to recompute depend on the partition's name and on
the lake only, so a skipped partition reports the same days.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from training.adapters.lake import EVENTS, QUARANTINE, Lake
from training.adapters.landing import Landed, open_landed
from training.contract.base import Days
from training.contract.messages import IngestInputs, IngestResult
from training.contract.source_spec import load_source_spec
from training.domain.identity import partition_number
from training.domain.partitions import affected_days, newest_before, partition_days, widened
from training.domain.quarantine import QUARANTINE_SCHEMA, known_in, quarantine_rows
from training.forgotten import removals
from training.settings import StateSettings
from training.steps.ingest.broken_rows import BrokenRows
from training.steps.ingest.validation import Batch, Validator
from training.steps.ingest.writing import Partition
from training.workspace import UNDER_WAY

log = logging.getLogger("perennial")

Outcome = Literal["appended", "replaced", "unchanged"]


def run(inputs: IngestInputs, settings: StateSettings) -> IngestResult:
    """Ingest one partition.

    Raises InputError when there is no file, DataContractError when the partition is refused, and ConfigError when the
    table cannot take the types of the spec.
    """
    folder = settings.scratch / inputs.source / UNDER_WAY
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        return _Ingest(inputs, settings, Path(scratch)).run()


def ingest_again(inputs: IngestInputs, settings: StateSettings, kept: pa.Table, delivered: int) -> IngestResult:
    """Ingest a partition from a file that a replay of its quarantined rows has composed.

    `kept`: rows of QUARANTINE_SCHEMA that stay in quarantine whatever the rules say. `delivered`: the fingerprint of
    the delivery that the rows come from; the same delivery again changes nothing then. Raises as `run` does.
    """
    folder = settings.scratch / inputs.source / UNDER_WAY
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        return _Ingest(inputs, settings, Path(scratch), kept, delivered).run()


class _Ingest:
    def __init__(
        self,
        inputs: IngestInputs,
        settings: StateSettings,
        scratch: Path,
        kept: pa.Table | None = None,
        delivered: int | None = None,
    ) -> None:
        self.spec = load_source_spec(inputs.source, settings.feature_repo)
        self.kept = QUARANTINE_SCHEMA.empty_table() if kept is None else kept
        self.delivered = delivered
        self.inputs, self.settings, self.scratch = inputs, settings, scratch
        self.maximum_bytes = settings.landed_maximum_bytes
        self.feed = self.spec.feed(inputs.feed)
        self.days = widened(partition_days(inputs.partition), self.feed.slack_days)
        self.lake = Lake(settings.lake, inputs.source)
        self.partition = Partition(self.lake, inputs.feed, inputs.partition, self.feed)
        self.validator = Validator(inputs, self.feed, self.days, self.lake, settings, scratch)

    def run(self) -> IngestResult:
        with open_landed(self.inputs.uri, self.maximum_bytes, self.scratch) as landed:
            return self._take_in(landed)

    def _take_in(self, landed: Landed) -> IngestResult:
        log.info("Read %s: %s bytes, sha256 %s", landed.uri, f"{landed.size:,}", landed.sha256)
        fingerprint = partition_number(landed.sha256, self.feed)
        applied = self.partition.fingerprint()
        if applied == fingerprint and not any(known_in(reason) for reason in self.partition.quarantined()):
            return self._unchanged(landed, fingerprint)
        if applied is not None and self.delivered is None and self.partition.delivered() == fingerprint:
            log.info("Its quarantined rows were replayed since then: to validate them again, replay them again")
            return self._unchanged(landed, applied)
        self.validator.refuse_columns(landed)
        self.partition.check()
        broken, rows, page = self.validator.rows(landed, fingerprint)
        found = broken.rows()
        bad = found + self.kept.num_rows
        self.partition.quarantine(chain(self._bad(landed, broken) if found else (), [self.kept]), bad, fingerprint)
        self.partition.write(self._good(landed, broken), fingerprint, self.delivered)
        outcome: Outcome = "appended" if applied is None else "replaced"
        reasons = Counter(rule for reason in self.kept["reason"].to_pylist() for rule in reason.split("; "))
        return self._result(landed, outcome, rows - found, bad, reasons + Counter(broken.counts()), page)

    def _bad(self, landed: Landed, broken: BrokenRows) -> Iterator[pa.Table]:
        for batch in self.validator.batches(landed):
            found = {row - batch.first: rules for row, rules in broken.within(batch.first, batch.end).items()}
            yield quarantine_rows(batch.conformed.landed, found, self.inputs.feed, self.inputs.partition)

    def _good(self, landed: Landed, broken: BrokenRows) -> Iterator[pa.Table]:
        for batch in self.validator.batches(landed):
            yield _without(batch, broken)

    def _unchanged(self, landed: Landed, fingerprint: int) -> IngestResult:
        log.info("Skipped %s, which is already in the lake", landed.uri)
        quarantined = self.partition.quarantined()
        spans = self.lake.spans(self.inputs.feed, self.feed.time_column)
        kept = sum(span.rows for span in spans if span.partition == self.inputs.partition)
        reasons: Counter[str] = Counter()
        for reason, rows in quarantined.items():
            reasons.update(dict.fromkeys(reason.split("; "), rows))
        page = self.validator.page(fingerprint)
        return self._result(landed, "unchanged", kept, quarantined.total(), reasons, page)

    def _result(
        self,
        landed: Landed,
        outcome: Outcome,
        kept: int,
        quarantined: int,
        reasons: Mapping[str, int],
        page: str | None,
    ) -> IngestResult:
        if self.inputs.feed == EVENTS:
            self.partition.warn_of_released()
        source, where = self.inputs.source, self.settings.lake
        forgotten = [] if outcome == "unchanged" else removals(where, source, self.inputs.feed, self.inputs.partition)
        if forgotten:
            log.warning(
                "%s of %s lost rows of a person on request (%s), and this delivery may have brought them back: run "
                "`make forget` again",
                *(self.inputs.partition, self.inputs.feed, ", ".join(forgotten)),
            )
        return IngestResult(
            outcome=outcome,
            forgotten=forgotten,
            content_sha256=landed.sha256,
            rows_read=kept + quarantined,
            rows_kept=kept,
            rows_quarantined=quarantined,
            quarantine_reasons=dict(reasons),
            affected=self._affected(),
            table_versions=self.lake.versions(*self.spec.feeds, QUARANTINE),
            data_docs=page,
        )

    def _affected(self) -> Days | None:
        events = self.lake.spans(EVENTS, self.spec.events.time_column)
        horizon = max((span.newest.date() + timedelta(days=1) for span in events), default=None)
        since = None
        if self.inputs.feed == "events":
            # An earlier file of this partition may have had rows up to its last day. Their features must be replaced.
            horizon = max(horizon or self.days.end, self.days.end)
            before = [(s.earliest.date(), s.newest.date()) for s in events if s.partition != self.inputs.partition]
            since = newest_before(before, self.days.start)
        return affected_days(self.days, self.spec.history_days, horizon, since, bool(self.spec.hourly_tables))


def _without(batch: Batch, broken: BrokenRows) -> pa.Table:
    """The rows of `batch` that are not `broken`."""
    found = broken.within(batch.first, batch.end)
    if not found:
        return batch.conformed.table
    keep = np.ones(batch.end - batch.first, bool)
    keep[np.array(list(found)) - batch.first] = False
    return batch.conformed.table.filter(pa.array(keep))
