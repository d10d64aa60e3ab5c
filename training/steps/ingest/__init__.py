"""Validate one landed partition, quarantine the rows that break a rule, put the rest in the lake.

Nothing is written before the file's columns agree with the spec, the spec with the tables, and the partition with the
rules about it as a whole (`judging`). Then, exactly once (`writing`): a run that was killed anywhere does all of it
again, and a partition whose file and rules are those of its rows in the lake is done. Rows that gave way to another
partition's are judged again even so: that one may have been replaced. The days to compute again depend on the
partition's name and the lake alone, so a run that finds nothing to do reports the same ones.
"""

import hashlib
import logging
from collections import Counter
from datetime import timedelta
from typing import Literal

from training.adapters.lake import EVENTS, LABELS, QUARANTINE, Lake
from training.adapters.landing import Landed, read_landed
from training.contract.base import Days
from training.contract.messages import IngestInputs, IngestResult
from training.contract.model_spec import load_model_spec
from training.domain.conform import conform
from training.domain.partitions import affected_days, newest_before, partition_days, widened
from training.domain.quarantine import known_in, quarantine_rows
from training.settings import StateSettings
from training.steps.ingest.judging import Judge
from training.steps.ingest.writing import Partition

log = logging.getLogger("perennial")

Outcome = Literal["appended", "replaced", "unchanged"]


def run(inputs: IngestInputs, settings: StateSettings) -> IngestResult:
    """Ingest one partition.

    Raises InputError without a file, DataContractError when the partition is refused, ConfigError when the spec no
    longer agrees with the table.
    """
    return _Ingest(inputs, settings).run()


class _Ingest:
    def __init__(self, inputs: IngestInputs, settings: StateSettings) -> None:
        self.spec = load_model_spec(inputs.model, settings.models_dir)
        self.inputs = inputs
        self.feed = self.spec.feeds[inputs.feed]
        self.days = widened(partition_days(inputs.partition), self.feed.slack_days)
        self.lake = Lake(settings.lake, inputs.model)
        self.partition = Partition(self.lake, inputs.feed, inputs.partition, self.feed)
        self.judge = Judge(inputs, self.feed, self.days, self.lake, settings)

    def run(self) -> IngestResult:
        landed = read_landed(self.inputs.uri)
        log.info("Read %s: %s bytes, sha256 %s", landed.uri, f"{len(landed.content):,}", landed.sha256)
        fingerprint = self._fingerprint(landed)
        applied = self.partition.fingerprint()
        if applied == fingerprint and not any(known_in(reason) for reason in self.partition.quarantined()):
            return self._unchanged(landed, fingerprint)
        table = landed.table()
        conformed = conform(table, self.feed)
        self.judge.refuse_columns(conformed.problems)
        self.partition.check()
        broken, page = self.judge.rows(conformed, fingerprint)
        self.partition.quarantine(quarantine_rows(table, broken, self.inputs.feed, self.inputs.partition))
        self.partition.write(conformed.table, broken, fingerprint)
        reasons = Counter(rule for rules in broken.values() for rule in rules)
        outcome: Outcome = "appended" if applied is None else "replaced"
        return self._result(landed, outcome, table.num_rows - len(broken), len(broken), reasons, page)

    def _fingerprint(self, landed: Landed) -> int:
        """Of the content and of the rules it is judged by: under new rules the same file is judged again. 60 bits."""
        rules = f"{landed.sha256} {self.feed.model_dump_json()}"
        return int(hashlib.sha256(rules.encode()).hexdigest()[:15], 16)

    def _unchanged(self, landed: Landed, fingerprint: int) -> IngestResult:
        log.info("%s is in the lake already", landed.uri)
        quarantined = self.partition.quarantined()
        spans = self.lake.spans(self.inputs.feed, self.feed.time_column)
        kept = sum(span.rows for span in spans if span.partition == self.inputs.partition)
        reasons = Counter(rule for row in quarantined for rule in row.split("; "))
        return self._result(landed, "unchanged", kept, len(quarantined), reasons, self.judge.page(fingerprint))

    def _result(
        self, landed: Landed, outcome: Outcome, kept: int, quarantined: int, reasons: Counter[str], page: str | None
    ) -> IngestResult:
        if self.inputs.feed == EVENTS:
            self.partition.warn_of_released()
        return IngestResult(
            outcome=outcome,
            content_sha256=landed.sha256,
            rows_read=kept + quarantined,
            rows_kept=kept,
            rows_quarantined=quarantined,
            quarantine_reasons=dict(reasons),
            affected=self._affected(),
            table_versions=self.lake.versions(EVENTS, LABELS, QUARANTINE),
            data_docs=page,
        )

    def _affected(self) -> Days | None:
        events = self.lake.spans(EVENTS, self.spec.feeds["events"].time_column)
        horizon = max((span.newest.date() + timedelta(days=1) for span in events), default=None)
        since = None
        if self.inputs.feed == "events":
            # A file before this one may have had rows up to the last day: the features made of them must go.
            horizon = max(horizon or self.days.end, self.days.end)
            before = [(s.earliest.date(), s.newest.date()) for s in events if s.partition != self.inputs.partition]
            since = newest_before(before, self.days.start)
        return affected_days(self.days, self.spec.features.history_days, horizon, since)
