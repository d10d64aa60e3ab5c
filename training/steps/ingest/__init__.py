"""Validate one landed partition, quarantine the rows that break a rule, and write the others to the lake.

Nothing is written before three checks have passed: the file has the columns of the spec, the tables can take the types
of the spec, and the partition meets the rules for partitions (validation.py). The rows are written exactly once
(writing.py): a retry after a kill repeats everything, and a partition is skipped when its rows in the lake come from
the same file and the same rules. It is not skipped when some of its rows were quarantined as duplicates of another
partition, because that partition may have been replaced. The days to recompute depend on the partition's name and on
the lake only, so a skipped partition reports the same days.
"""

import hashlib
import logging
from collections import Counter
from datetime import timedelta
from typing import Literal

from training.adapters.lake import EVENTS, QUARANTINE, Lake
from training.adapters.landing import Landed, read_landed
from training.contract.base import Days
from training.contract.errors import InputError
from training.contract.messages import IngestInputs, IngestResult
from training.contract.source_spec import load_source_spec
from training.domain.conform import conform
from training.domain.partitions import affected_days, newest_before, partition_days, widened
from training.domain.quarantine import known_in, quarantine_rows
from training.forgotten import removals
from training.settings import StateSettings
from training.steps.ingest.validation import Validator
from training.steps.ingest.writing import Partition

log = logging.getLogger("perennial")

Outcome = Literal["appended", "replaced", "unchanged"]


def run(inputs: IngestInputs, settings: StateSettings) -> IngestResult:
    """Ingest one partition.

    Raises InputError when there is no file, DataContractError when the partition is refused, and ConfigError when the
    table cannot take the types of the spec.
    """
    return _Ingest(inputs, settings).run()


class _Ingest:
    def __init__(self, inputs: IngestInputs, settings: StateSettings) -> None:
        self.spec = load_source_spec(inputs.source, settings.feature_repo)
        self.inputs, self.settings, self.maximum_bytes = inputs, settings, settings.landed_maximum_bytes
        if inputs.feed not in self.spec.feeds:
            hint = f"The feeds: {', '.join(self.spec.feeds)}."
            raise InputError(f"The source {inputs.source} has no feed {inputs.feed!r}", hint)
        self.feed = self.spec.feeds[inputs.feed]
        self.days = widened(partition_days(inputs.partition), self.feed.slack_days)
        self.lake = Lake(settings.lake, inputs.source)
        self.partition = Partition(self.lake, inputs.feed, inputs.partition, self.feed)
        self.validator = Validator(inputs, self.feed, self.days, self.lake, settings)

    def run(self) -> IngestResult:
        landed = read_landed(self.inputs.uri, self.maximum_bytes)
        log.info("Read %s: %s bytes, sha256 %s", landed.uri, f"{len(landed.content):,}", landed.sha256)
        fingerprint = self._fingerprint(landed)
        applied = self.partition.fingerprint()
        if applied == fingerprint and not any(known_in(reason) for reason in self.partition.quarantined()):
            return self._unchanged(landed, fingerprint)
        conformed = conform(landed.table(), self.feed)
        table = conformed.landed
        self.validator.refuse_columns(conformed.problems)
        self.partition.check()
        broken, page = self.validator.rows(conformed, fingerprint)
        self.partition.quarantine(quarantine_rows(table, broken, self.inputs.feed, self.inputs.partition))
        self.partition.write(conformed.table, broken, fingerprint)
        reasons = Counter(rule for rules in broken.values() for rule in rules)
        outcome: Outcome = "appended" if applied is None else "replaced"
        return self._result(landed, outcome, table.num_rows - len(broken), len(broken), reasons, page)

    def _fingerprint(self, landed: Landed) -> int:
        """60 bits of a hash of the content and the rules, so that new rules validate the same file again."""
        # Which column is the id is no rule for a row.
        rules = f"{landed.sha256} {self.feed.model_dump_json(exclude={'id_column'})}"
        return int(hashlib.sha256(rules.encode()).hexdigest()[:15], 16)

    def _unchanged(self, landed: Landed, fingerprint: int) -> IngestResult:
        log.info("Skipped %s, which is already in the lake", landed.uri)
        quarantined = self.partition.quarantined()
        spans = self.lake.spans(self.inputs.feed, self.feed.time_column)
        kept = sum(span.rows for span in spans if span.partition == self.inputs.partition)
        reasons = Counter(rule for row in quarantined for rule in row.split("; "))
        return self._result(landed, "unchanged", kept, len(quarantined), reasons, self.validator.page(fingerprint))

    def _result(
        self, landed: Landed, outcome: Outcome, kept: int, quarantined: int, reasons: Counter[str], page: str | None
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
