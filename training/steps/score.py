"""Score the events of partitions in batch, and write each prediction once.

A run without a partition looks at the partitions that are new or were delivered again since they were scored. It
scores their events that have no answer yet: neither of the service nor of an earlier run, whichever version gave it. A
run that names a partition scores the events that the champion has not answered. So a version answers an event once, an
event is scored again only when a person asks for it, and monitoring, which looks at one version, counts every event
once.

The predictions of a partition are committed `scoring.batch_rows` at a time. A process that starts over, after a kill or
beside another one, leaves out the events whose predictions are in the table (training/adapters/prediction_table.py).
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from training import storage
from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.logged_predictions import Predictions
from training.adapters.prediction_table import (
    PartitionPredictions,
    TableConverted,
    partition_content,
    scored_content,
)
from training.adapters.registry import Registry
from training.adapters.tables import Events, FeatureDays, feeds_read
from training.contract.artifact import ONNX_FILE
from training.contract.base import Days
from training.contract.errors import DataContractError, InputError
from training.contract.messages import ScoreInputs, ScoreResult, Snapshot
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.scoring_spec import NEW_DATA, ScoringSpec
from training.domain.batch_predictions import batch_replica
from training.domain.feature_engine import AskedEvents, LakeRows, RemoteEngine
from training.settings import StateSettings
from training.snapshots import snapshot_of_run
from training.workspace import served_artifact

if TYPE_CHECKING:
    from training.adapters.onnx_model import OnnxModel
    from training.event_scoring import ScoredRows

log = logging.getLogger("perennial")


def run(inputs: ScoreInputs, settings: StateSettings) -> ScoreResult:
    """Append the predictions of the champion of the run's snapshot to the table `predictions`.

    Without events or a champion there is nothing to score, and the outcome says so. Nothing is written when a day of
    the events has no feature rows.
    Raises InputError for a partition without events, DataContractError when feature rows are missing or the feature
    code is not that of the champion, TransientError when MLflow does not answer or another process scores the same
    partition.
    """
    spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    snapshot = snapshot_of_run(inputs.run, spec, settings)
    lake = Lake(settings.lake, spec.source.name, spec.name)
    if snapshot.as_of is None or EVENTS not in snapshot.table_versions:
        log.info("No events in %s: nothing to score", lake.uri(EVENTS))
        return ScoreResult(outcome="no data", snapshot=snapshot)
    if snapshot.champion_version is None:
        log.info("%s has no champion yet: nothing to score", spec.name)
        return ScoreResult(outcome="no champion", snapshot=snapshot)
    todo = _ToDo(inputs, spec, snapshot, lake)
    partitions = todo.partitions()
    if not partitions:
        log.info("No partition of %s is new or was delivered again", lake.uri(EVENTS))
        return ScoreResult(outcome="nothing new", snapshot=snapshot)
    counts = _Counts()
    if unscored := [each for each in partitions if not each.scored]:
        scorer = _Scorer(inputs, spec, snapshot, lake, settings)
        scorer.check_features(todo.events, unscored, todo.since)
        for partition in unscored:
            scorer.score(partition, todo.events, todo.since, counts)
    window = Days(start=min(each.days.start for each in partitions), end=max(each.days.end for each in partitions))
    rows = counts.rows
    if inputs.run:  # An earlier try may have written some of them.
        logged = Predictions(lake, spec, lake.version(PREDICTIONS))
        rows = logged.of_replica(batch_replica(inputs.run), window)
    return ScoreResult(
        outcome="scored",
        partitions=[each.name for each in partitions],
        window=window,
        rows=rows,
        answered_before=counts.answered_before,
        not_finite=counts.not_finite,
        incomplete=counts.incomplete,
        snapshot=snapshot,
    )


@dataclass(frozen=True)
class _Partition:
    name: str
    #: Of its events.
    days: Days
    #: What its rows are (`partition_content`).
    content: int
    #: Whether it was scored since the snapshot was taken, by an earlier try of the run.
    scored: bool = False


@dataclass(frozen=True)
class _ToDo:
    inputs: ScoreInputs
    spec: ModelSpec
    snapshot: Snapshot
    lake: Lake

    @cached_property
    def events(self) -> Events:
        """At the newest version of which all features are computed: the data run of a later one may be under way."""
        lake, versions = self.lake, self.snapshot.table_versions
        read = [
            feeds_read(lake, table, [EVENTS], versions[table])
            for table in self.spec.source.entities
            if table in versions
        ]
        known = [each[EVENTS] for each in read if EVENTS in each]
        return Events(lake, self.spec.source, min([versions[EVENTS], *known]))

    @property
    def since(self) -> date | None:
        """Older events are left out. None: no event is."""
        if self.inputs.partition is not None:
            return None
        assert self.snapshot.as_of is not None
        return self.snapshot.as_of - timedelta(days=_scoring(self.spec).maximum_age_days)

    def partitions(self) -> list[_Partition]:
        """What to score, and what an earlier try of this run has scored; the oldest first."""
        days = dict[str, Days]()
        for span in self.lake.spans(EVENTS, self.spec.source.events.time_column, self.events.version):
            first, end = span.earliest.date(), span.newest.date() + timedelta(days=1)
            known = days.get(span.partition, Days(start=first, end=end))
            days[span.partition] = Days(start=min(known.start, first), end=max(known.end, end))
        if (named := self.inputs.partition) is not None:
            if named not in days:
                hint = (
                    f"It has {', '.join(sorted(days)[-5:])}, among others. Ingest the partition and its features first."
                )
                raise InputError(f"{self.lake.uri(EVENTS)} has no events of a partition {named!r}", hint)
            return [_Partition(named, days[named], self._content(named))]
        since = self.since
        assert since is not None
        young = sorted((each for each in days.items() if each[1].end > since), key=lambda each: each[1].start)
        return [found for name, of in young if (found := self._new(name, of)) is not None]

    def _new(self, name: str, days: Days) -> _Partition | None:
        """None for a partition that was scored before the snapshot was taken."""
        content, before = self._content(name), self.snapshot.table_versions.get(PREDICTIONS)
        if scored_content(self.lake, name) != content:
            return _Partition(name, days, content)
        if before is not None and scored_content(self.lake, name, before) == content:
            return None
        return _Partition(name, days, content, scored=True)

    def _content(self, name: str) -> int:
        return partition_content(self.lake, name, self.events.version)


def _scoring(spec: ModelSpec) -> ScoringSpec:
    """Without the section, a person may still run the step by hand."""
    return spec.scoring or ScoringSpec(when=NEW_DATA)


@dataclass
class _Counts:
    rows: int = 0
    answered_before: int = 0
    not_finite: int = 0
    incomplete: int = 0

    def counted(self, made: "ScoredRows") -> Iterator[pa.RecordBatch]:
        """The rows of `made`, which are counted as they are taken."""
        self.incomplete += made.incomplete
        self.not_finite += made.not_finite
        for batch in made.rows:
            self.rows += batch.num_rows
            yield batch


class _Scorer:
    """One version of the model."""

    def __init__(
        self, inputs: ScoreInputs, spec: ModelSpec, snapshot: Snapshot, lake: Lake, settings: StateSettings
    ) -> None:
        from training.adapters.features import BatchFeatures
        from training.event_scoring import EventScorer

        assert snapshot.champion_version is not None
        self._spec, self._lake, self._versions = spec, lake, snapshot.table_versions
        self._version = snapshot.champion_version
        self._model, self._artifact = _loaded(spec, self._version, settings)
        metadata = self._model.metadata
        self._batch_rows = _scoring(spec).batch_rows
        #: Version and digest. (None, None): an event that any version has answered is left out.
        self._answered_by = (None, None) if inputs.partition is None else (self._version, metadata.digest)
        self._features = BatchFeatures(settings, spec, metadata, snapshot.table_versions)
        self._scorer = EventScorer(spec, self._version, metadata, self._features.joined, batch_replica(inputs.run))

    def check_features(self, events: Events, partitions: list[_Partition], since: date | None) -> None:
        """Raises DataContractError when a day of the events has no rows in a feature table: all would get defaults."""
        days = {day for each in partitions for day in events.days_of_partition(each.name, since)}
        for table in self._features.tables & set(self._spec.source.entities):
            if missing := FeatureDays(self._lake, table, self._versions.get(table)).lacking(days, events):
                problem = (
                    f"{self._lake.uri(table)} has no rows for {len(missing)} of the days to score, {missing[0]} first"
                )
                raise DataContractError(problem, hint="Run the features step for these days.")

    def score(self, partition: _Partition, events: Events, since: date | None, counts: _Counts) -> None:
        while True:
            try:
                of = self._score(partition, events, since)
                break
            except TableConverted as error:
                log.info("%s Scoring %s again", error.message, partition.name)
        log.info("Scored %s: %s", partition.name, of)
        if of.not_finite:
            log.warning("%d events have features or scores that are not finite: no predictions", of.not_finite)
        if of.incomplete:
            log.warning("%d events lack a column of today's spec: no predictions", of.incomplete)
        for name, number in vars(of).items():
            setattr(counts, name, getattr(counts, name) + number)

    def _score(self, partition: _Partition, events: Events, since: date | None) -> _Counts:
        counts = _Counts()
        writer = PartitionPredictions(self._lake, partition.name, self._scorer.schema)
        answered = Predictions(self._lake, self._spec, writer.version).ids(partition.days, *self._answered_by)
        engine = self._features.engine
        parts: Iterator[Iterable[pa.RecordBatch]]
        if isinstance(engine, RemoteEngine):
            rows = events.relation(partition.days, partition.name, since)
            parts = _grouped(self._scored_by(engine, rows, partition.days, answered, counts), self._batch_rows)
        else:
            tables = events.of_partition(partition.name, since, self._batch_rows)
            parts = (self._scored_here(table, answered, counts) for table in tables)
        for part, last in _with_last(parts):
            writer.commit(part, self._version, partition.content if last else None)
        return counts

    def _scored_here(self, events: pa.Table, answered: pa.Array, counts: _Counts) -> Iterator[pa.RecordBatch]:
        """The predictions for `events` that are not `answered`."""
        events = events.select(self._scorer.columns)
        if len(answered):
            known = pc.is_in(events[self._spec.source.id_column], answered)
            counts.answered_before += pc.sum(known).as_py() or 0
            events = events.filter(pc.invert(known))
        whole = self._scorer.whole(events)
        if whole is not None:
            counts.incomplete += len(events) - pc.sum(whole).as_py()
            events = events.filter(whole)
        if len(events):
            made = self._scorer.scored(self._model, events, self._features.found(events), datetime.now(UTC))
            yield from counts.counted(made)

    def _scored_by(
        self, engine: RemoteEngine, rows: LakeRows, days: Days, answered: pa.Array, counts: _Counts
    ) -> Iterator[pa.RecordBatch]:
        """The predictions for the events in `rows`, of `days`, that are not `answered`, made where `engine` runs."""
        from training.event_scoring import ScoringWork, read_message

        source = self._spec.source
        asked = AskedEvents(rows, self._scorer.columns, source.events.time_column, source.id_column, answered)
        views = self._features.looked_up(days.start, days.end - timedelta(days=1))
        work = ScoringWork(self._scorer, datetime.now(UTC))
        # The workers compare its digest with that of the verified metadata.
        content = storage.read(storage.join(self._artifact, ONNX_FILE)) or b""
        for message in engine.map_joined(asked, views, work, {ONNX_FILE: content}):
            yield from counts.counted(read_message(message))
        seen = counts.rows + counts.incomplete + counts.not_finite
        counts.answered_before = rows.dataset().count_rows() - seen


def _loaded(spec: ModelSpec, version: int, settings: StateSettings) -> tuple["OnnxModel", str]:
    """The artifact, verified as the service verifies it, and where it lies."""
    from training.adapters.onnx_model import OnnxModel

    folder = served_artifact(settings, Registry(settings.tracking_uri).get(spec.name, version))
    model = OnnxModel.load(folder, maximum_mib=settings.artifact_maximum_mib)
    model.metadata.check_kind(spec.task.kind)
    model.check_golden()
    return model, str(folder)


def _grouped(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[list[pa.RecordBatch]]:
    """`batches` in groups of about `rows` rows."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) >= rows:
            yield held
            held = []
    if held:
        yield held


def _with_last(parts: Iterator[Iterable[pa.RecordBatch]]) -> Iterator[tuple[Iterable[pa.RecordBatch], bool]]:
    """Each of `parts`, and whether it is the last. An empty one, once, where there are none."""
    before = next(parts, ())
    for part in parts:
        yield before, False
        before = part
    yield before, True
