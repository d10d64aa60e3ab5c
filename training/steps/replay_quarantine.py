"""Validate the quarantined rows of partitions again, and put those that are valid now into the lake. Exactly once.

A partition's rows are put together again: those in the lake, and those in quarantine, some of them corrected. They go
through ingest as one file, which replaces both in its two commits. Before that the file is kept in the work folder,
until all partitions are done and the ledger says so: a process that is killed between the commits has taken rows out of
quarantine that are not in the lake yet, and one that is killed later has named no feature days. The next run finds the
file and finishes. If another delivery of the partition was ingested meanwhile, the file is dropped.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training import atomic, storage
from training.adapters.feed_table import FeedTable
from training.adapters.lake import QUARANTINE, Lake
from training.adapters.landing import open_landed
from training.adapters.ledger import Ledger
from training.adapters.quarantine_table import Quarantine
from training.contract.base import Days
from training.contract.errors import DataContractError, InputError
from training.contract.feeds import PARTITION
from training.contract.messages import IngestInputs, ReplayedPartition, ReplayQuarantineInputs, ReplayQuarantineResult
from training.contract.model_spec import models_of
from training.contract.source_spec import load_source_spec
from training.domain.arrow_types import feed_schema
from training.domain.conform import conform
from training.domain.partitions import ingest_application, replayed_application
from training.domain.quarantine import DELIVERED, QUARANTINE_SCHEMA
from training.domain.restored_rows import composed_schema, restored, value_of
from training.settings import StateSettings
from training.steps.ingest import ingest_again
from training.workspace import CORRECTIONS, REPLAYS, share

log = logging.getLogger("perennial")

#: The kind of the ledger's entries about replays.
REPLAY = "quarantine_replay"
_ROWS, _KEPT = "rows.parquet", "kept.parquet"
_STATE = b"replay"


def run(inputs: ReplayQuarantineInputs, settings: StateSettings) -> ReplayQuarantineResult:
    """Replay the quarantined rows of a feed, of one partition or of all.

    Raises InputError when there is no such feed or nothing to replay, DataContractError when the corrections do not fit
    or ingest refuses the partition. The partitions before it are done then.
    """
    return _Replay(inputs, settings).run()


@dataclass(frozen=True)
class _Composed:
    """What the file of a replay says of itself. `applied`: the fingerprint of the rows that it was made of."""

    applied: int
    delivered: int
    #: Rows that were in quarantine.
    quarantined: int


class _Replay:
    def __init__(self, inputs: ReplayQuarantineInputs, settings: StateSettings) -> None:
        self.inputs, self.settings = inputs, settings
        self.spec = load_source_spec(inputs.source, settings.feature_repo)
        self.feed = self.spec.feed(inputs.feed)
        if inputs.corrections and not inputs.partition:
            raise InputError("Corrections apply to one partition, and none is named", "Name the partition.")
        self.lake = Lake(settings.lake, inputs.source)
        self.quarantine = Quarantine(self.lake)

    def run(self) -> ReplayQuarantineResult:
        partitions = [self.inputs.partition] if self.inputs.partition else self._partitions()
        done, affected = list[ReplayedPartition](), list[Days]()
        for partition in partitions:
            # What a killed run has left comes first. Its rows are in neither place.
            finished = self._finish(partition)
            if finished is None:
                if not self.inputs.partition and not self._quarantined(partition):
                    continue  # An earlier run has left its folder, without a file or with one of another delivery.
                self._compose(partition)
                finished = self._finish(partition)
            entered, days = finished or (0, None)
            stays = self._quarantined(partition)
            reasons = Counter(rule for row in stays for rule in row["reason"].split("; "))
            found = ReplayedPartition(partition=partition, entered=entered, stays=len(stays), reasons=dict(reasons))
            log.info("%s: %d rows entered, %d stay in quarantine: %s", partition, entered, len(stays), dict(reasons))
            done.append(found)
            affected += [days] if days is not None and entered else []
        self._record(done)
        for each in done:
            self._remove(each.partition)
        span = (
            Days(start=min(each.start for each in affected), end=max(each.end for each in affected))
            if affected
            else None
        )
        versions = self.lake.versions(*self.spec.feeds, QUARANTINE)
        return ReplayQuarantineResult(partitions=done, affected=span, table_versions=versions)

    def _partitions(self) -> list[str]:
        """Those with rows in quarantine, and those whose replay was not finished."""
        found = set(storage.folders(storage.join(self.settings.work, self.inputs.source, REPLAYS, self.inputs.feed)))
        found |= {row[PARTITION] for row in self.quarantine.rows(PARTITION, feeds=[self.inputs.feed])}
        return sorted(found)

    def _quarantined(self, partition: str) -> list[dict[str, str]]:
        return list(self.quarantine.rows("reason", "row", feeds=[self.inputs.feed], partition=partition))

    # --- composing ---

    def _compose(self, partition: str) -> None:
        """Keep the partition's rows as a file, and those of its quarantined rows that cannot be judged as another."""
        applied = self.lake.applied(self.inputs.feed, ingest_application(partition))
        quarantined = self._quarantined(partition)
        if applied is None or not quarantined:
            hint = "See `make quarantine` for what is in quarantine. A partition that was refused is delivered again."
            raise InputError(f"No rows of {self.inputs.feed} {partition} are in quarantine", hint)
        corrected = self._corrected(partition, quarantined)
        ids = set(corrected[self.feed.id_column].to_pylist())
        # None of the ids is null.
        uncorrected = [row for row in quarantined if self._id(row) not in ids]
        rows, others = restored(uncorrected, self.feed)
        kept = [{"feed": self.inputs.feed, PARTITION: partition, **uncorrected[at]} for at in others]
        delivered = self.lake.applied(self.inputs.feed, replayed_application(partition))
        state = _Composed(applied, applied if delivered is None else delivered, len(quarantined))
        folder = self._folder(partition)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(kept, QUARANTINE_SCHEMA), folder / _KEPT)
        schema = composed_schema(self.feed).with_metadata({_STATE: json.dumps(asdict(state))})
        with atomic.replacing(folder / _ROWS) as draft, pq.ParquetWriter(draft, schema) as writer:
            for batch in self._accepted(partition):
                writer.write_table(batch.append_column(DELIVERED, pa.nulls(batch.num_rows, pa.string())).cast(schema))
            writer.write_table(pa.concat_tables([rows, corrected]).cast(schema))
        share(self.settings, folder)

    def _accepted(self, partition: str) -> Iterator[pa.Table]:
        """The rows of the partition in the lake."""
        return FeedTable(self.lake, self.inputs.feed).of_partition(partition, feed_schema(self.feed))

    def _corrected(self, partition: str, quarantined: list[dict[str, str]]) -> pa.Table:
        """The corrected rows. Those that an earlier run has put into the lake are left out."""
        schema = composed_schema(self.feed)
        if not self.inputs.corrections:
            return schema.empty_table()
        folder = self._folder(partition)
        folder.mkdir(parents=True, exist_ok=True)
        uri = storage.join(self.settings.landing, self.inputs.source, CORRECTIONS, self.inputs.corrections)
        with open_landed(uri, self.settings.landed_maximum_bytes, folder) as landed:
            conformed = conform(pa.concat_tables(landed.batches()), self.feed)
        problems = [*conformed.problems, *(rule for rules in conformed.unfit.values() for rule in rules)]
        rows = conformed.table
        if not problems:
            rows = self._not_in_lake(rows, partition)
            known = {self._id(row) for row in quarantined}
            unknown = [each for each in rows[self.feed.id_column].to_pylist() if each is None or each not in known]
            problems = [f"{self.feed.id_column} {each} is not in quarantine" for each in unknown]
        if problems:
            listed = "; ".join(problems[:10])
            hint = f"Deliver rows of the {len(quarantined)} quarantined ones alone, with all columns of the feed."
            raise DataContractError(f"{uri} does not correct {partition}: {listed}", hint)
        return rows.append_column(DELIVERED, pa.nulls(rows.num_rows, pa.string())).cast(schema)

    def _not_in_lake(self, rows: pa.Table, partition: str) -> pa.Table:
        """`rows` without those that the partition has already. Raises DataContractError when it has another one."""
        ids, found = rows[self.feed.id_column], dict[Any, Any]()
        for batch in self._accepted(partition):
            near = batch.filter(pc.is_in(batch[self.feed.id_column], ids))
            found |= {row[self.feed.id_column]: row for row in near.to_pylist()}
        wanted = rows.to_pylist()
        for row in wanted:
            if (held := found.get(row[self.feed.id_column], row)) != row:
                what = f"The lake has another row with {self.feed.id_column} {held[self.feed.id_column]}"
                raise DataContractError(what, "To correct rows of the lake, deliver the whole partition again.")
        return rows.filter(pa.array([row[self.feed.id_column] not in found for row in wanted], pa.bool_()))

    def _id(self, row: dict[str, str]) -> Any:
        """The id of a quarantined row; None where it has none that fits."""
        name = self.feed.id_column
        try:
            return value_of(json.loads(row["row"]).get(name), self.feed.columns[name])
        except (ValueError, ArithmeticError):
            return None

    # --- taking in ---

    def _finish(self, partition: str) -> tuple[int, Days | None] | None:
        """Take in the composed file of the partition, if there is one. It stays, and once more changes nothing.

        Returns how many rows have entered, and the feature days that they affect. None without a file, or when another
        delivery came in after it was composed.
        """
        folder, uri = self._folder(partition), self._shared(partition)
        if storage.size(storage.join(uri, _ROWS)) is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        for name in (_ROWS, _KEPT):
            storage.as_local(storage.join(uri, name), folder / name)
        state = _Composed(**json.loads(pq.read_schema(folder / _ROWS).metadata[_STATE]))
        kept = pq.ParquetFile(folder / _KEPT).read()
        if not self._is_mine(partition, state):
            log.warning("%s was delivered again after its replay began: starting over", partition)
            self._remove(partition)
            return None
        inputs = IngestInputs(
            source=self.inputs.source, feed=self.inputs.feed, partition=partition, uri=str(folder / _ROWS)
        )
        result = ingest_again(inputs, self.settings, kept, state.delivered)
        return state.quarantined - len(self._quarantined(partition)), result.affected

    def _is_mine(self, partition: str, state: _Composed) -> bool:
        """Whether the partition still has the rows of which the file was made, or those of the file itself."""
        applied = self.lake.applied(self.inputs.feed, ingest_application(partition))
        delivered = self.lake.applied(self.inputs.feed, replayed_application(partition))
        return applied == state.applied or (delivered == state.delivered and delivered != applied)

    def _folder(self, partition: str) -> Path:
        return self.settings.scratch / self.inputs.source / REPLAYS / self.inputs.feed / partition

    def _shared(self, partition: str) -> str:
        """The URI of `_folder` in the work folder."""
        return storage.join(self.settings.work, self._folder(partition).relative_to(self.settings.scratch).as_posix())

    def _remove(self, partition: str) -> None:
        for place in (self._shared(partition), str(self._folder(partition))):
            storage.remove_folder(place)

    def _record(self, done: list[ReplayedPartition]) -> None:
        """An entry in the ledger of each model that learns from the source."""
        ledger, inputs = Ledger(self.settings.ledger), self.inputs
        body: dict[str, Any] = {"feed": inputs.feed, "corrections": inputs.corrections, "reason": inputs.reason}
        body |= {"requested_by": inputs.requested_by, "run": inputs.run}
        body |= {"partitions": [each.model_dump(mode="json") for each in done]}
        number = self.lake.version(self.inputs.feed)
        for model in models_of(inputs.source, self.settings.models_dir):
            ledger.append(REPLAY, model, body, inputs.run or f"{inputs.feed}-{number}")
