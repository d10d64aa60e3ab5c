"""The rows of the table `predictions` for events that are scored in batch. They are made column by column."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.contract.artifact import ArtifactMetadata
from training.contract.model_spec import ModelSpec
from training.contract.predictions import BATCH
from training.domain.predictions import FEATURES, OUTPUTS, event_type, prediction_schema
from training.domain.task_kind import ServedTask

#: Rows that are made at once: the columns of so many rows fit into the processor's cache.
_ROWS = 20_000


def prediction_ids(model: str, version: int, ids: pa.Array) -> pa.Array:
    """`<model>:<version>:<id of the event>`: a version that scores an event again gives the same id."""
    return pc.binary_join_element_wise(f"{model}:{version}", ids.cast(pa.string()), ":")


def batch_replica(run: str) -> str:
    """What the column `replica` holds for predictions of the orchestrator's `run`; empty for a step run by hand."""
    return f"{BATCH}:{run}" if run else BATCH


class BatchPredictions:
    """Rows as the service logs them, for predictions of one version in one run.

    `latency_seconds` is null, because no caller waited.
    """

    def __init__(
        self, spec: ModelSpec, version: int, metadata: ArtifactMetadata, task: ServedTask, replica: str
    ) -> None:
        self._spec, self._version, self._task, self._replica = spec, version, task, replica
        self._digest = metadata.digest
        self._event = event_type(spec)
        self.schema = prediction_schema(self._event)
        self._features, self._outputs = _Maps(metadata.feature_names, FEATURES), _Maps(metadata.outputs, OUTPUTS)
        self._decisions = pa.array(task.decisions, pa.string())

    def rows(
        self, events: pa.Table, values: np.ndarray, stamps: pa.Array, scores: np.ndarray, at: datetime
    ) -> Iterator[pa.RecordBatch]:
        """The rows of `events` [n], which have the spec's columns.

        `values` [n, d] is the matrix that the model got, `stamps` [n] the times of the oldest feature rows (null: a
        default was used), `scores` [n] or [n, k] are finite, and `at` is the time of the predictions (UTC).
        """
        for start in range(0, len(events), _ROWS):
            part = slice(start, start + _ROWS)
            yield self._batch(events.slice(start, _ROWS), values[part], stamps[part], scores[part], at)

    def _batch(
        self, events: pa.Table, values: np.ndarray, stamps: pa.Array, scores: np.ndarray, at: datetime
    ) -> pa.RecordBatch:
        rows = len(events)
        event = [events[field.name].combine_chunks() for field in self._event]
        ids, times = (events[name].combine_chunks() for name in (self._spec.source.id_column, self._time_column))
        constants = {
            "predicted_at": at,
            "model_version": self._version,
            "model_digest": self._digest,
            "role": "champion",
            "replica": self._replica,
            "latency_seconds": None,
        }
        columns = {
            **{
                name: pa.repeat(pa.scalar(value, self.schema.field(name).type), rows)
                for name, value in constants.items()
            },
            "prediction_id": prediction_ids(self._spec.name, self._version, ids),
            "day": times.cast(pa.date32(), safe=False),
            "decision": self._decided(scores),
            "features_defaulted": stamps.is_null(),
            "feature_timestamp": stamps,
            "outputs": self._outputs.of(self._task.outputs(scores)),
            "event": pa.StructArray.from_arrays(event, fields=list(self._event)),
            "features": self._features.of(values),
        }
        return pa.record_batch([columns[name] for name in self.schema.names], schema=self.schema)

    @property
    def _time_column(self) -> str:
        return self._spec.source.events.time_column

    def _decided(self, scores: np.ndarray) -> pa.Array:
        """The name of each row's decision; empty where the task makes none."""
        places = self._task.decide(scores)
        if places is None:
            return pa.repeat(pa.scalar(""), len(scores))
        return self._decisions.take(pa.array(places))


class _Maps:
    """Maps with the same keys in every row, of the Arrow type `kind`."""

    def __init__(self, names: Sequence[str], kind: pa.MapType) -> None:
        self._width, self._kind = len(names), kind
        self._keys = pa.array(names, pa.string()).take(pa.array(np.tile(np.arange(len(names)), _ROWS), pa.int64()))

    def of(self, values: np.ndarray) -> pa.Array:
        """One map for each row of `values` [n, names]. NaN becomes null, as in the service's log."""
        offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * self._width)
        items = pa.array(np.ravel(values), self._kind.item_type, from_pandas=True)
        return pa.MapArray.from_arrays(offsets, self._keys[: values.size], items).cast(self._kind)
