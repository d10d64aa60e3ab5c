"""The reader of the predictions of a model, pinned to a version. tables.py has those of a source."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from training.adapters.lake import PREDICTIONS, Lake
from training.contract.base import Days
from training.contract.model_spec import ModelSpec
from training.contract.predictions import SHADOW
from training.domain import predictions as layout
from training.domain.arrow_types import arrow_type, as_exact_pandas
from training.domain.feature_engine import FeatureEngine, LakeRows
from training.domain.frames import (
    DAY,
    FEATURE_TIMESTAMP,
    LOGGED_FEATURES,
    LOGGED_OUTPUTS,
    PREDICTED_AT,
    PREDICTION_ID,
    ROLE,
    VERSION,
)
from training.domain.samples import sample_sql

if TYPE_CHECKING:
    import pandas as pd

#: Columns of `Predictions` → those of the table.
_OURS = {
    PREDICTION_ID: "prediction_id",
    PREDICTED_AT: "predicted_at",
    DAY: "day",
    VERSION: "model_version",
    ROLE: "role",
    FEATURE_TIMESTAMP: "feature_timestamp",
}
#: What a sample of predictions reads.
_SAMPLED = ("event", "features", "outputs", *_OURS.values())

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class Predictions:
    """Frames with event columns and ours (the names above). `version` None: nothing was logged yet.

    Raises InputError when the version does not exist.

    An event column has the type that the spec gives it now, null where the row was logged without it. A row that lacks
    one of the wanted columns although the spec says it is never null was logged under another spec: it is left out.
    """

    lake: Lake
    spec: ModelSpec
    version: int | None

    def answered(
        self,
        days: Days,
        columns: Collection[str],
        model_version: int | None = None,
        features: bool = False,
        outputs: bool = False,
        digest: str | None = None,
    ) -> "pd.DataFrame":
        """The answers to events of `days`, by `model_version` (None: any). What a shadow scored answered nobody.

        `columns` are event columns. With `features`: LOGGED_FEATURES as well, with `outputs`: LOGGED_OUTPUTS. `digest`:
        of the version's artifact. Answers by another artifact of the same number are left out, as there are when the
        registry was restored from an older copy. Answers that were logged without a digest count.
        """
        rows = self._read(_of_days(days, model_version), columns, features, outputs, digest)
        return rows[rows[ROLE] != SHADOW].reset_index(drop=True)

    def sampled(
        self,
        days: Days,
        columns: Collection[str],
        maximum: int,
        seed: int,
        engine: FeatureEngine,
        model_version: int | None = None,
        features: bool = False,
        outputs: bool = False,
        digest: str | None = None,
    ) -> "pd.DataFrame":
        """As `answered`, at most `maximum` of them, ordered by their ids. `engine` draws them.

        Those to the events with the smallest digests are drawn, and of the answers to one event the first ones.
        """
        held = self._held(days)
        if held is None:
            return self.answered(days, columns, model_version, features, outputs, digest)
        names = [name for name in _SAMPLED if features or name != "features"]
        key, where = self._event_id(held.schema), _sql_where(held.schema, model_version, digest)
        sql = sample_sql(PREDICTIONS, names, key, maximum, seed, where, ["predicted_at", "prediction_id"])
        drawn = engine.execute(sql, {}, {PREDICTIONS: held})
        rows = self._frame(drawn, columns, features, outputs)
        return rows.sort_values(PREDICTION_ID, ignore_index=True)

    def first_uses(self, days: Days, engine: FeatureEngine) -> "pd.DataFrame":
        """Each feature timestamp that an answer to an event of `days` used, and the time of the first one."""
        held, names = self._held(days), ["feature_timestamp", "predicted_at"]
        if held is None:
            found = layout.prediction_schema(layout.event_type(self.spec)).empty_table().select(names)
        else:
            where = f"{_sql_where(held.schema, None, None)} AND feature_timestamp IS NOT NULL"
            sql = f"SELECT feature_timestamp, min(predicted_at) AS predicted_at FROM {PREDICTIONS} WHERE {where}"
            found = engine.execute(f"{sql} GROUP BY feature_timestamp", {}, {PREDICTIONS: held})
        frame: pd.DataFrame = as_exact_pandas(found.rename_columns([FEATURE_TIMESTAMP, PREDICTED_AT]))
        return frame

    def _held(self, days: Days) -> LakeRows | pa.Table | None:
        """All rows for events of `days`, for an engine; None without a table."""
        if self.version is None:
            return None
        dataset = self.lake.scan(PREDICTIONS, self.version)
        if layout.is_flat(dataset.schema):
            return self._table(_of_days(days, None), features=True)
        return LakeRows(self.lake.uri(PREDICTIONS), dataset, "day", days.start, days.end)

    def _event_id(self, schema: pa.Schema) -> str:
        """The SQL of the id of a prediction's event."""
        name = self.spec.source.id_column
        is_there = any(field.name == name for field in schema.field("event").type)
        return f'event."{name}"' if is_there else "prediction_id"

    def ids(self, days: Days, model_version: int | None = None, digest: str | None = None) -> pa.Array:
        """The ids of the events of `days` that `model_version` (None: any) has answered, in the spec's type.

        `digest` as in `answered`.
        """
        name, target = self.spec.source.id_column, arrow_type(self.spec.request_columns[self.spec.source.id_column])
        nothing = pa.array([], target)
        if self.version is None:
            return nothing
        wanted = _of_days(days, model_version)
        dataset = self.lake.scan(PREDICTIONS, self.version)
        wanted = _by_artifact(wanted, digest, dataset.schema)
        if layout.is_flat(dataset.schema):
            events = layout.event_columns(self._table(wanted, features=False))
            return _combined(events[name], target) if name in events else nothing
        if name not in {field.name for field in dataset.schema.field("event").type}:
            return nothing
        columns = {"id": ds.field("event", name), "role": ds.field("role")}
        rows = dataset.to_table(columns, filter=wanted)
        return _combined(rows.filter(pc.field("role") != SHADOW)["id"], target)

    def of_id(self, prediction_id: str) -> list[dict[str, Any]]:
        """All columns of the rows with this id: of the answer, and of the shadows beside it."""
        return self._table(ds.field("prediction_id") == prediction_id, features=True).to_pylist()

    def of_replica(self, replica: str, days: Days) -> int:
        """How many predictions for events of `days` this replica has made."""
        if self.version is None:
            return 0
        wanted = _of_days(days, None) & (ds.field("replica") == replica)
        return int(self.lake.scan(PREDICTIONS, self.version).count_rows(filter=wanted))

    def scored_since(
        self, moment: datetime, model_versions: Sequence[int | None], columns: Collection[str]
    ) -> "pd.DataFrame":
        """What `model_versions` have scored since, as answers and as shadows; the first of each event and version."""
        from training.domain.performance import first_made

        wanted = (ds.field("predicted_at") >= moment) & ds.field("model_version").isin(list(model_versions))
        rows = self._read(wanted, columns, features=False, outputs=True)
        return first_made(rows, [self.spec.source.id_column, VERSION])

    def _read(
        self,
        wanted: ds.Expression,
        columns: Collection[str],
        features: bool,
        outputs: bool,
        digest: str | None = None,
    ) -> "pd.DataFrame":
        return self._frame(self._table(wanted, features, digest), columns, features, outputs)

    def _frame(self, table: pa.Table, columns: Collection[str], features: bool, outputs: bool) -> "pd.DataFrame":
        events = layout.event_columns(table)
        found = {name: self._typed(name, events, table.num_rows) for name in columns}
        found |= {name: table[column] for name, column in _OURS.items()}
        if outputs:
            found[LOGGED_OUTPUTS] = table["outputs"]
        if features:
            found[LOGGED_FEATURES] = table["features"]
        rows = pa.table(found)
        whole = rows
        for name in columns:
            if not self.spec.request_columns[name].nullable:
                whole = whole.filter(pc.field(name).is_valid())
        if whole.num_rows < rows.num_rows:
            log.info("%d logged predictions lack a column of today's spec: left out", rows.num_rows - whole.num_rows)
        frame: pd.DataFrame = as_exact_pandas(whole)
        return frame

    def _table(self, wanted: ds.Expression, features: bool, digest: str | None = None) -> pa.Table:
        if self.version is None:
            return layout.prediction_schema(layout.event_type(self.spec)).empty_table()
        dataset = self.lake.scan(PREDICTIONS, self.version)
        names = [name for name in dataset.schema.names if features or name != "features"]
        table = dataset.to_table(names, filter=_by_artifact(wanted, digest, dataset.schema))
        return layout.nested(table) if layout.is_flat(dataset.schema) else table

    def _typed(self, name: str, events: dict[str, pa.ChunkedArray], rows: int) -> pa.ChunkedArray:
        target = arrow_type(self.spec.request_columns[name])
        found = layout.without_loss(events[name], target) if name in events else None
        return pa.chunked_array([pa.nulls(rows, target)]) if found is None else found


def _sql_where(schema: pa.Schema, model_version: int | None, digest: str | None) -> str:
    """The answers by `model_version` (None: any), and by the artifact with `digest` (None: any) or one that is not
    known."""
    found = [f"role IS DISTINCT FROM '{SHADOW}'"]
    found += [] if model_version is None else [f"model_version = {model_version}"]
    if digest is not None and "model_digest" in schema.names:
        found.append(f"(model_digest IS NULL OR model_digest = '{digest}')")
    return " AND ".join(found)


def _of_days(days: Days, model_version: int | None) -> ds.Expression:
    """The predictions for events of `days`, by `model_version` (None: any)."""
    wanted = (ds.field("day") >= days.start) & (ds.field("day") < days.end)
    return wanted if model_version is None else wanted & (ds.field("model_version") == model_version)


def _by_artifact(wanted: ds.Expression, digest: str | None, schema: pa.Schema) -> ds.Expression:
    """Those of the `wanted` rows that the artifact with `digest` (None: any) made, or that do not say which one did."""
    if digest is None or "model_digest" not in schema.names:
        return wanted
    return wanted & (ds.field("model_digest").is_null() | (ds.field("model_digest") == digest))


def _combined(values: pa.ChunkedArray, target: pa.DataType) -> pa.Array:
    """`values` as one array of `target`; those that `target` cannot hold without loss are none of its values."""
    found = layout.without_loss(values, target)
    return pa.array([], target) if found is None else found.combine_chunks()
