"""Validate one landed partition, quarantine the rows that break a rule, put the rest in the lake.

Exactly once: the quarantine is committed first, the rows last, each replacing what the partition held before. The
rows' commit carries a fingerprint of the file and of the rules, so a partition is done when its fingerprint is there,
and a run that was killed anywhere before does all of it again. Rows that gave way to another partition's are judged
again even so: that one may have been replaced. The days to compute again depend on the partition's name and the lake
alone, so a run that finds nothing to do reports the same ones.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from training import storage
from training.adapters.lake import EVENTS, LABELS, QUARANTINE, Lake, Span
from training.adapters.landing import Landed, read_landed
from training.contract.base import Days
from training.contract.errors import DataContractError
from training.contract.messages import IngestInputs, IngestResult
from training.contract.model_spec import FeedSpec, ModelSpec, load_model_spec
from training.domain.conform import as_pandas, conform, feed_schema
from training.domain.partitions import affected_days, daily_rows, day_counts, newest_before, partition_days, widened
from training.domain.quarantine import known_in, known_rule, quarantine_rows, released
from training.settings import Settings
from training.workspace import share

log = logging.getLogger("perennial")

#: Position of a row in the file → the rules that it breaks.
Broken = dict[int, list[str]]


def run(inputs: IngestInputs, settings: Settings) -> IngestResult:
    """Ingest one partition. Raises InputError without a file, DataContractError when the partition is refused."""
    return _Ingest(inputs, settings).run()


class _Ingest:
    def __init__(self, inputs: IngestInputs, settings: Settings) -> None:
        self.spec: ModelSpec = load_model_spec(inputs.model, settings.models_dir)
        self.feed: FeedSpec = self.spec.feeds[inputs.feed]
        self.inputs = inputs
        self.days = widened(partition_days(inputs.partition), self.feed.slack_days)
        self.lake = Lake(settings.lake, inputs.model)
        self.settings = settings
        self.docs = settings.scratch / inputs.model / "data_docs"

    def run(self) -> IngestResult:
        landed = read_landed(self.inputs.uri)
        log.info("Read %s: %s bytes, sha256 %s", landed.uri, f"{len(landed.content):,}", landed.sha256)
        fingerprint = self._fingerprint(landed)
        applied = self.lake.applied(self.inputs.feed, self._application)
        if applied == fingerprint and not any(known_in(reason) for reason in self._quarantined()):
            return self._unchanged(landed, fingerprint)
        table = landed.table()
        conformed = conform(table, self.feed)
        broken, page = self._examine(conformed, fingerprint)
        self._quarantine(quarantine_rows(table, broken, self.inputs.feed, self.inputs.partition))
        self._write(conformed, broken, fingerprint)
        reasons = Counter(rule for rules in broken.values() for rule in rules)
        outcome = "appended" if applied is None else "replaced"
        return self._result(landed, outcome, table.num_rows - len(broken), len(broken), reasons, page)

    @property
    def _application(self) -> str:
        """The name under which the rows' commits carry the partition's fingerprint."""
        return f"ingest/{self.inputs.partition}"

    def _fingerprint(self, landed: Landed) -> int:
        """Of the content and of the rules it is judged by: under new rules the same file is judged again. 60 bits."""
        rules = f"{landed.sha256} {self.feed.model_dump_json()}"
        return int(hashlib.sha256(rules.encode()).hexdigest()[:15], 16)

    # --- judging ---

    def _examine(self, table: pa.Table, fingerprint: int) -> tuple[Broken, str]:
        """The rows that break a rule, and the page about them. Raises DataContractError when the whole is refused."""
        # Great Expectations takes seconds to import: only when there is something to validate.
        from training.adapters.expectations import examine

        name = f"{self.inputs.feed} {self.inputs.partition}"
        days = self._day_counts(table)
        findings = examine(as_pandas(table), days, self.feed, self.days, name, self._site(fingerprint))
        page = self._share(findings.page)
        log.info("Data Docs: %s", page)
        if findings.table:
            raise self._refused(findings.table, page)
        broken: Broken = {}
        rules: dict[str, Iterable[int]] = {**findings.rows, **self._known_elsewhere(table)}
        for rule, rows in rules.items():
            for row in rows:
                broken.setdefault(int(row), []).append(rule)
        self._refuse_too_many(broken, table.num_rows, page)
        return dict(sorted(broken.items())), page

    def _site(self, fingerprint: int) -> Path:
        return self.docs / f"{self.inputs.feed}-{self.inputs.partition}-{fingerprint:015x}"

    def _share(self, page: Path) -> str:
        """The URI of a rendered page. In an object store the site has its fonts and pictures with it, not by a link."""
        uri = share(self.settings, page.parent)
        if storage.is_remote(uri):
            storage.upload(page.parent / "static", storage.join(uri, "static"))
        return storage.join(uri, page.name)

    def _day_counts(self, table: pa.Table) -> Any:
        """One row per promised day: rows in the file, the bounds that the days before set, and the first day's gap."""
        times = table[self.feed.time_column] if self.feed.time_column in table.column_names else None
        history = daily_rows((span.partition, span.rows) for span in self._others())
        return day_counts(times, partition_days(self.inputs.partition), history, self.feed.row_count, self._gap())

    def _gap(self) -> int | None:
        """Days from the newest day of the feed's other partitions to the first that this one promises.

        None while there are no others. Judged against data, never the clock: a replay is judged as the original was.
        """
        newest = max((span.newest.date() for span in self._others()), default=None)
        return None if newest is None else (partition_days(self.inputs.partition).start - newest).days

    def _others(self) -> list[Span]:
        spans = self.lake.spans(self.inputs.feed, self.feed.time_column)
        return [span for span in spans if span.partition != self.inputs.partition]

    def _known_elsewhere(self, table: pa.Table) -> dict[str, list[int]]:
        """Events whose unique value the lake has from another partition: rule → positions.

        Labels may come again: a later report corrects an earlier one, and those who read them take the newest.
        """
        rules: dict[str, list[int]] = {}
        if self.inputs.feed != EVENTS or self.lake.version(EVENTS) is None:
            return rules
        for name in self._unique_columns():
            low, high = pc.min_max(table[name]).values()
            if not low.is_valid:
                continue
            elsewhere = pc.field("partition") != self.inputs.partition
            near = elsewhere & (pc.field(name) >= low) & (pc.field(name) <= high)
            known = self.lake.scan(self.inputs.feed).to_table(columns=[name, "partition"], filter=near)
            known = known.filter(pc.is_in(known[name], table[name]))
            where = dict(zip(known[name].to_pylist(), known["partition"].to_pylist(), strict=True))
            for row in pc.indices_nonzero(pc.is_in(table[name], known[name])).to_pylist():
                rules.setdefault(known_rule(name, where[table[name][row].as_py()]), []).append(row)
        return rules

    def _unique_columns(self) -> list[str]:
        return [name for name, column in self.feed.columns.items() if column.unique]

    def _refuse_too_many(self, broken: Broken, rows: int, page: str) -> None:
        if len(broken) <= self.feed.maximum_quarantined * rows:
            return
        reasons = Counter(rule for rules in broken.values() for rule in rules).most_common()
        share = f"{len(broken):,} of {rows:,} rows ({len(broken) / rows:.1%}) break a rule"
        limit = f"more than {self.feed.maximum_quarantined:.1%}"
        raise self._refused([f"{share}, {limit}: " + "; ".join(f"{rule}: {n:,}" for rule, n in reasons)], page)

    def _refused(self, problems: list[str], page: str) -> DataContractError:
        shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        hint = f"Nothing of it is in the lake. {self._remedy()} Data Docs: {page}"
        return DataContractError(f"{self.inputs.uri} breaks the {self.inputs.feed} rules: {shown}", hint)

    def _remedy(self) -> str:
        if (self._gap() or 0) <= self.feed.maximum_gap_days:
            return "Deliver a mended file under the same name."
        wrong = "If its days are wrong (a producer's clock?), remove it and deliver it under the right ones"
        return f"{wrong}; else deliver the days before it first or raise feeds.{self.inputs.feed}.maximum_gap_days."

    # --- writing ---

    def _quarantine(self, bad: pa.Table) -> None:
        if not bad.num_rows and not self._quarantined():
            return
        where = f"feed = '{self.inputs.feed}' AND partition = '{self.inputs.partition}'"
        version = self.lake.replace(QUARANTINE, bad, where, ["feed", "partition"])
        log.info("Quarantined %s rows in %s version %s", bad.num_rows, self.lake.uri(QUARANTINE), version)

    def _write(self, table: pa.Table, broken: Broken, fingerprint: int) -> None:
        feed, partition = self.inputs.feed, self.inputs.partition
        keep = pa.array([row not in broken for row in range(table.num_rows)], pa.bool_())
        good = table.filter(keep).cast(feed_schema(self.feed))
        good = good.append_column("partition", pa.repeat(pa.scalar(partition), good.num_rows))
        where, done = f"partition = '{partition}'", {self._application: fingerprint}
        version = self.lake.replace(feed, good, where, ["partition"], done)
        log.info("Wrote %s rows to %s version %s", good.num_rows, self.lake.uri(feed), version)

    def _quarantined(self) -> list[str]:
        """The reasons of this partition's rows in quarantine."""
        if self.lake.version(QUARANTINE) is None:
            return []
        here = (pc.field("feed") == self.inputs.feed) & (pc.field("partition") == self.inputs.partition)
        reasons: list[str] = self.lake.scan(QUARANTINE).to_table(columns=["reason"], filter=here)["reason"].to_pylist()
        return reasons

    def _warn_of_released(self) -> None:
        """Other partitions' rows gave way to this one's; say so when it no longer holds what they gave way to."""
        partition = self.inputs.partition
        if self.inputs.feed != EVENTS or self.lake.version(QUARANTINE) is None:
            return
        gave_way = pc.match_substring(pc.field("reason"), known_rule("", partition))
        there = (pc.field("feed") == EVENTS) & (pc.field("partition") != partition) & gave_way
        quarantined = self.lake.scan(QUARANTINE).to_table(["partition", "reason", "row"], filter=there).to_pylist()
        if not quarantined:
            return
        here = pc.field("partition") == partition
        held = self.lake.scan(EVENTS).to_table(self._unique_columns(), filter=here).to_pydict()
        free = released(quarantined, partition, {name: set(values) for name, values in held.items()})
        if free:
            log.warning(
                "%d quarantined rows of %s gave way to rows that %s no longer holds. Deliver these partitions again "
                "(the same files will do) or clear their ingest tasks: the rows are judged again then.",
                free.total(),
                ", ".join(sorted(free)),
                partition,
            )

    # --- reporting ---

    def _unchanged(self, landed: Landed, fingerprint: int) -> IngestResult:
        log.info("%s is in the lake already", landed.uri)
        quarantined = self._quarantined()
        spans = self.lake.spans(self.inputs.feed, self.feed.time_column)
        kept = sum(span.rows for span in spans if span.partition == self.inputs.partition)
        reasons = Counter(rule for row in quarantined for rule in row.split("; "))
        site = self._site(fingerprint).relative_to(self.settings.scratch).as_posix()
        page = storage.join(self.settings.work, site, "index.html")
        found = page if storage.read(page) is not None else None
        return self._result(landed, "unchanged", kept, len(quarantined), reasons, found)

    def _result(
        self, landed: Landed, outcome: Any, kept: int, quarantined: int, reasons: Counter[str], page: str | None
    ) -> IngestResult:
        self._warn_of_released()
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
            before = [(s.earliest.date(), s.newest.date()) for s in events if s.partition != self.inputs.partition]
            since = newest_before(before, self.days.start)
        return affected_days(self.days, self.spec.features.history_days, horizon, since)
