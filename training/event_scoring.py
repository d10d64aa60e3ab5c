"""Scores events whose feature rows were looked up: in the step's process, or where an engine has joined them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from training.adapters.features import JoinedFeatures
from training.adapters.onnx_model import OnnxModel, OnnxScorer, digest
from training.contract.artifact import ONNX_FILE, ArtifactMetadata
from training.contract.errors import DataContractError
from training.contract.model_spec import ModelSpec
from training.domain.batch_predictions import BatchPredictions
from training.domain.predictions import event_type, prediction_schema
from training.domain.task_kind import served_task

#: What a message of `ScoringWork` says beside its rows.
_LEFT_OUT = ("incomplete", "not_finite")


@dataclass
class ScoredRows:
    """Rows of `EventScorer.schema`, and how many events got none."""

    rows: Iterator[pa.RecordBatch]
    #: They lack a column of the spec that is never null.
    incomplete: int
    #: Their features or scores are not finite.
    not_finite: int


@dataclass(frozen=True)
class EventScorer:
    """Makes the predictions of one version of a model. It can be pickled."""

    spec: ModelSpec
    version: int
    metadata: ArtifactMetadata
    features: JoinedFeatures
    replica: str

    @property
    def columns(self) -> list[str]:
        """The columns of an event that it takes."""
        return list(self.spec.request_columns)

    @property
    def schema(self) -> pa.Schema:
        return prediction_schema(event_type(self.spec))

    def whole(self, events: pa.Table) -> pa.Array | None:
        """Which of `events` have what the spec says is never null; None: all."""
        required = [name for name, column in self.spec.request_columns.items() if not column.nullable]
        lacking = [name for name in required if events[name].null_count]
        if not lacking:
            return None
        return pa.array(np.logical_and.reduce([events[name].is_valid().to_numpy() for name in lacking]))

    def scored(self, model: OnnxModel, events: pa.Table, found: Sequence[pa.Table], at: datetime) -> ScoredRows:
        """The predictions for `events`, which are `whole`, of their looked up rows, made at the time `at`."""
        if not len(events):
            return ScoredRows(iter(()), 0, 0)
        values, stamps = self.features.of(events, found)
        scores = model.score_finite(values)
        finite = np.isfinite(scores) if scores.ndim == 1 else np.isfinite(scores).all(axis=1)
        if not finite.all():
            mask = pa.array(finite)
            events, values, stamps, scores = events.filter(mask), values[finite], stamps.filter(mask), scores[finite]
        rows = self._predictions.rows(events, values, stamps, scores, at)
        return ScoredRows(rows, 0, int((~finite).sum()))

    @cached_property
    def _predictions(self) -> BatchPredictions:
        task = served_task(self.metadata.task)
        return BatchPredictions(self.spec, self.version, self.metadata, task, self.replica)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_predictions"}


@dataclass(frozen=True)
class ScoringWork:
    """The `Work` (training/domain/feature_engine.py) of scoring. Its one file is ONNX_FILE."""

    scorer: EventScorer
    at: datetime

    def __call__(self, events: pa.Table, found: Sequence[pa.Table], files: Mapping[str, Path]) -> Iterator[bytes]:
        model = _model(str(files[ONNX_FILE]), self.scorer.metadata.model_dump_json())
        whole, count = self.scorer.whole(events), len(events)
        if whole is not None:
            events, found = events.filter(whole), [rows.filter(whole) for rows in found]
        made = self.scorer.scored(model, events, found, self.at)
        said = {"incomplete": count - len(events), "not_finite": made.not_finite}
        schema = self.scorer.schema.with_metadata({name: str(number) for name, number in said.items()})
        sink = pa.BufferOutputStream()
        # Each row repeats the names of all features.
        with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
            for batch in made.rows:
                stream.write_batch(batch)
        yield sink.getvalue().to_pybytes()


def read_message(message: bytes) -> ScoredRows:
    """What `ScoringWork` has put into a message."""
    reader = pa.ipc.open_stream(message)
    counts = [int((reader.schema.metadata or {})[name.encode()]) for name in _LEFT_OUT]
    return ScoredRows(iter(reader), *counts)


@lru_cache(maxsize=2)
def _model(path: str, metadata: str) -> OnnxModel:
    """The model, once in each process. Its golden rows are scored first, as wherever it is loaded."""
    described, content = ArtifactMetadata.model_validate_json(metadata), Path(path).read_bytes()
    if (found := digest(content)) != described.digest:
        hint = "Run the step again: it sends the file anew."
        raise DataContractError(f"{path} has the digest {found}, not {described.digest}", hint)
    model = OnnxModel(described, OnnxScorer(content))
    model.check_golden()
    return model
