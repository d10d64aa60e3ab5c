"""The features of a model version for many events at once, point-in-time from the feature tables.

The values are those that the service gives the version: the definitions of its artifact say which columns of which
tables are read, and the same functions make the matrix. Only the lookup differs: the service asks the online store for
the newest rows, this module joins the rows that were the newest at each event's time.
"""

import logging
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.dataset as ds

from training.adapters.features.definitions_file import request_code
from training.adapters.features.feature_plan import FeaturePlan
from training.adapters.features.features import Features
from training.adapters.features.golden import check_golden_features
from training.adapters.features.history import newest_rows
from training.adapters.features.joined_features import STAMP, JoinedFeatures, event_times
from training.adapters.lake import Lake
from training.contract.artifact import ArtifactMetadata
from training.contract.base import TableVersions, midnight
from training.contract.feature_definitions import ViewDefinition
from training.contract.model_spec import ModelSpec
from training.domain.arrow_types import as_exact_pandas
from training.domain.feature_engine import LakeRows, TimedRows
from training.engine import engine_of
from training.settings import StateSettings

log = logging.getLogger("perennial")


class BatchFeatures:
    """The features of the version whose artifact has `metadata`, read from `versions` of the feature tables.

    Raises DataContractError, as the service does, when the feature code here is not that of the version.
    """

    def __init__(
        self, settings: StateSettings, spec: ModelSpec, metadata: ArtifactMetadata, versions: TableVersions
    ) -> None:
        definitions = metadata.features or Features(settings, spec).definitions
        code = request_code(settings.feature_repo, spec.source)
        plan = FeaturePlan(definitions, code.functions, spec, metadata.feature_names)
        check_golden_features(plan, metadata.golden, spec)
        self._time_column = spec.source.events.time_column
        self.engine = engine_of(settings)
        self._lake = lake = Lake(settings.lake, spec.source.name, spec.name)
        self._tables: dict[str, ds.FileSystemDataset] = {
            view.name: lake.scan(view.name, versions[view.name])
            for view in plan.definitions.views
            if view.name in versions
        }
        #: The feature tables that the version's features come from.
        self.tables = {view.name for view in plan.definitions.views}
        #: What makes the matrix of the looked up rows.
        self.joined = JoinedFeatures(
            plan, self._time_column, {view.name: self._held(view) for view in plan.definitions.views}
        )

    def found(self, events: pa.Table) -> list[pa.Table]:
        """The feature rows of `events` [n], n > 0, for each of `joined.views`."""
        frame = as_exact_pandas(events)
        times = event_times(frame, self._time_column)
        views = self.looked_up(times.min().date(), times.max().date())
        return [newest_rows(self.engine, frame, times, rows) for rows in views]

    def looked_up(self, first: date, last: date) -> list[TimedRows]:
        """The feature rows that may hold for events from the day `first` to `last`, for each of `joined.views`."""
        return [self._rows(view, first, last) for view in self.joined.views]

    def _rows(self, view: ViewDefinition, first: date, last: date) -> TimedRows:
        ttl = timedelta(seconds=view.ttl_seconds)
        table, days = self._tables[view.name], ((midnight(first) - ttl).date(), last + timedelta(days=1))
        within = LakeRows(self._lake.uri(view.name), table, "day", *days)
        return TimedRows(within, {view.entity: view.entity}, STAMP, self.joined.columns(view), ttl=ttl)

    def _held(self, view: ViewDefinition) -> list[str]:
        """The columns of `view` that its table has."""
        table, names = self._tables.get(view.name), [column.name for column in view.columns]
        held = [] if table is None else [name for name in names if name in table.schema.names]
        if lacking := sorted(set(names) - set(held)):
            log.warning("The table %s has no %s: they get their defaults", view.name, ", ".join(lacking))
        return held
