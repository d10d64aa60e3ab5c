"""What drift and performance would have found on a day of the past."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from training.adapters.lake import Lake
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import Registry
from training.contract.base import Days
from training.contract.messages import ColumnDrift, DriftResult, PerformanceResult
from training.domain.comparison import Rows, named_outputs
from training.domain.drift import current_window, has_drifted, judged
from training.domain.encoding import encoded
from training.domain.frames import LOGGED_FEATURES, LOGGED_OUTPUTS, PREDICTED_AT, PREDICTION_ID
from training.domain.performance import matured_window
from training.domain.samples import sampled
from training.steps.backtest.own_state import Place
from training.steps.backtest.past_events import PastEvents
from training.steps.backtest.past_trainings import Training, model_of
from training.steps.drift import compare_rows, draw_page
from training.steps.performance import measured
from training.steps.performance.answers import Answers

#: The place of a row among all rows of its days.
ROW = "_row"


def drift(place: Place, day: date, champion: Training, since: date) -> DriftResult:
    """What the step drift finds as of `day` when the challenger of `champion` serves `since` then. There is a page only
    where the test is that of the page."""
    past, model = PastEvents(place), model_of(place, champion)
    spec, settings = past.spec, place.settings
    window = current_window(day, spec.monitoring.window_days)
    rows = past.rows(window)
    if len(rows) < spec.monitoring.minimum_rows:
        return DriftResult(outcome="no data")
    maximum, seed = spec.monitoring.maximum_rows, spec.training.seed
    made = sampled(rows, spec.source.id_column, maximum, seed)
    registered = Registry(settings.tracking_uri).get(spec.name, champion.version)
    logged = _logged_outputs(past, model, since, window)
    found = compare_rows(made, logged, registered, model, window, place.versions, spec, settings)
    drawn: dict[str, ColumnDrift] = {}
    if not found.shifts:
        with TemporaryDirectory() as folder:
            drawn = draw_page(found, Path(folder), {}, spec).columns
    columns = judged({name: each for name, each in drawn.items() if name not in found.short}, found.shifts)
    drifted, share = has_drifted(columns, spec.monitoring.maximum_drifted_share)
    return DriftResult(outcome="measured", window=window, drifted=drifted, drifted_share=share, columns=columns)


def performance(place: Place, day: date, champion: Training, since: date) -> PerformanceResult:
    """What the step performance finds as of `day` when the challenger of `champion` serves `since` then."""
    past, model = PastEvents(place), model_of(place, champion)
    spec, settings = past.spec, place.settings
    registered = Registry(settings.tracking_uri).get(spec.name, champion.version)
    lake = Lake(settings.lake, spec.source.name, spec.name)
    answers = PastAnswers(registered, model.metadata, lake, place.versions, day, spec, past, model, since)
    window = matured_window(day, spec.monitoring.window_days, spec.label_spec.delay_days)
    return measured(answers, window, settings).model_copy(update={"window": window})


@dataclass(frozen=True)
class PastAnswers(Answers):
    """The answers of a champion that serves `since` then: what `model` scores the events after it."""

    past: PastEvents
    model: OnnxModel
    since: date

    def logged(self, window: Days, features: bool = False) -> pd.DataFrame:
        start, end = max(window.start, self.since), min(window.end, self.as_of)
        if end <= start:
            return self._logged(self.past.rows(window).iloc[:0], np.empty(0, np.float32), features)
        days = Days(start=start, end=end)
        return self._logged(self.past.rows(days), self.past.scores(self.model, days), features)

    def _logged(self, rows: pd.DataFrame, scores: np.ndarray, features: bool) -> pd.DataFrame:
        """As the service logs them."""
        columns, names = self.metadata.columns, self.metadata.outputs
        outputs = self.served.logged(scores) if len(rows) else []
        found = rows[self.past.keys].assign(
            **{
                PREDICTION_ID: rows[self.spec.source.id_column].astype(str),
                PREDICTED_AT: rows[self.spec.source.events.time_column],
                LOGGED_OUTPUTS: pd.Series([list(zip(names, row, strict=True)) for row in outputs], rows.index, object),
            }
        )
        if not features:
            return found
        matrix = encoded({column.name: rows[column.name].to_numpy() for column in columns}, columns)
        values = matrix.astype(object)
        values[np.isnan(matrix)] = None
        made = [list(zip(self.metadata.feature_names, row, strict=True)) for row in values.tolist()]
        return found.assign(**{LOGGED_FEATURES: pd.Series(made, rows.index, object)})


def _logged_outputs(past: PastEvents, model: OnnxModel, since: date, window: Days) -> Rows | None:
    """What the model answered to events of `window` since then; None when these are too few."""
    spec = past.spec
    if since >= window.end:
        return None
    days = Days(start=max(since, window.start), end=window.end)
    rows, scores = past.rows(days), past.scores(model, days)
    if len(rows) < spec.monitoring.minimum_rows:
        return None
    numbered = rows.reset_index(names=ROW)
    chosen = sampled(numbered, spec.source.id_column, spec.monitoring.maximum_rows, spec.training.seed)
    outputs = model.task.outputs(scores[chosen[ROW].to_numpy()])
    return Rows(named_outputs(model.task.monitored(model.task.scores(outputs))), chosen[spec.drift_keys])
