"""The champion's answers to the events of a window, as evaluation counts them."""

import logging
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.logged_predictions import Predictions
from training.adapters.tables import Events, Labels
from training.contract.artifact import ArtifactMetadata
from training.contract.base import Days, TableVersions, midnight
from training.contract.model_spec import ModelSpec
from training.domain.evaluation_set import EvaluationSet, clusterings
from training.domain.frames import LABEL, LOGGED_FEATURES, LOGGED_OUTPUTS, PREDICTION_ID, logged_outputs
from training.domain.performance import first_made
from training.domain.task_kind import served_task, task_of

if TYPE_CHECKING:
    import pandas as pd

    from training.adapters.registry import ModelVersion
    from training.domain.resampling import Clusters
    from training.domain.task_kind import Scored, ServedTask, TaskKind

#: Estimates and diagnoses of a sample of more rows would be as good.
MAXIMUM_ROWS = 50_000

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class Answers:
    """What the lake, at its table `versions`, and the knowledge horizon `as_of` have of the answers of a champion."""

    champion: "ModelVersion"
    metadata: ArtifactMetadata
    lake: Lake
    versions: TableVersions
    as_of: date
    spec: ModelSpec

    @property
    def task(self) -> "TaskKind":
        return task_of(self.spec)

    @property
    def served(self) -> "ServedTask":
        return served_task(self.metadata.task)

    def logged(self, window: Days, features: bool = False) -> "pd.DataFrame":
        """All answers to events of `window`, with their outputs and, if asked for, their features."""
        predictions = Predictions(self.lake, self.spec, self.versions[PREDICTIONS])
        return predictions.answered(
            window,
            _columns(self.spec),
            self.champion.version,
            features=features,
            outputs=True,
            digest=self.champion.digest,
        )

    def counted(self, predictions: "pd.DataFrame", window: Days, labelled: bool = True) -> "pd.DataFrame":
        """The first prediction for each event that evaluation counts; with `labelled` those with a label as known at
        the horizon, and this label.

        Events of the days that the version was trained on are left out: it can only have scored them in batch.
        """
        import pandas as pd

        from training.domain.labels import known_before
        from training.domain.labels import labelled as with_labels

        spec, metadata = self.spec, self.metadata
        identity = spec.source.id_column
        later = predictions[spec.source.events.time_column] >= midnight(metadata.train_days.end)
        if learned := int((~later).sum()):
            log.warning("%d predictions are for events of the days that the version was trained on: left out", learned)
            predictions = predictions[later]
        rows, ids, events = first_made(predictions, [identity]), predictions[identity], None
        if spec.evaluation.exclude_known_entities:
            events = self._earlier(window)
            ids = pd.concat([ids, events[identity]])
        if not labelled and events is None:
            return rows
        labels = Labels(self.lake, spec, self.versions[spec.label_spec.feed]).known_at(self.as_of, ids)
        if labelled:
            rows = with_labels(rows, labels, spec, midnight(self.as_of))
        if events is not None:
            # As in the dataset step, only positives among `events` make their entity known.
            rows = rows[~known_before(rows, labels, events, spec)]
        return rows

    def _earlier(self, window: Days) -> "pd.DataFrame":
        """The events whose positive labels make their entities known in `window`: from as long before as in the
        holdout. Longer, and the two could not be compared."""
        spec, metadata = self.spec, self.metadata
        since = window.start - (metadata.holdout_days.start - (metadata.known_since or metadata.train_days.start))
        events = Events(self.lake, spec.source, self.versions[EVENTS])
        return events.within(Days(start=since, end=window.end), _columns(spec))

    def sampled(self, rows: "pd.DataFrame") -> "pd.DataFrame":
        """At most MAXIMUM_ROWS of them; the same ones in whatever order they were read."""
        rows = rows.sort_values(PREDICTION_ID, ignore_index=True)
        if len(rows) <= MAXIMUM_ROWS:
            return rows
        return rows.sample(MAXIMUM_ROWS, random_state=self.spec.training.seed).sort_index()

    def truth(self, rows: "pd.DataFrame") -> EvaluationSet:
        """What came true of labelled `rows`."""
        labels, entity = self.task.truth(rows[LABEL].to_numpy()), self.spec.evaluation.entity
        times = rows[self.spec.source.events.time_column]
        return EvaluationSet.of(labels, None if entity is None else rows[entity], times.dt.floor("D"), times)

    def scores(self, rows: "pd.DataFrame") -> np.ndarray:
        """The scores of `rows`, whose outputs are finite."""
        return self.served.scores(logged_outputs(rows[LOGGED_OUTPUTS], self.metadata.outputs))

    def scored(self, rows: "pd.DataFrame") -> "Scored":
        return self.task.scored(self.truth(rows), self.scores(rows), self.served)

    def features(self, rows: "pd.DataFrame") -> np.ndarray:
        """The matrix that the model got, float32 [n, d]; NaN where a feature was not logged."""
        names = self.metadata.feature_names
        found = np.full((len(rows), len(names)), np.nan, dtype=np.float32)
        for place, logged in enumerate(rows[LOGGED_FEATURES]):
            values = dict(logged) if logged is not None else {}
            found[place] = [np.nan if (value := values.get(name)) is None else value for name in names]
        return found

    def clusterings(self, rows: "pd.DataFrame") -> "list[Clusters]":
        """What a bootstrap draws of `rows`."""
        times = rows[self.spec.source.events.time_column]
        return clusterings([rows[name] for name in self.spec.entity_columns], times.dt.floor("D"), times)


def _columns(spec: ModelSpec) -> list[str]:
    """The id, the time and the entities of events."""
    return list(dict.fromkeys([spec.source.id_column, spec.source.events.time_column, *spec.entity_columns]))
