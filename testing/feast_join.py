"""The point-in-time join by Feast itself: what tests and a benchmark compare `Features.historical` with."""

import tempfile

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq

import training.adapters.features.store as stores
from training.adapters.features.chosen import chosen_features
from training.adapters.features.definitions import load_definitions
from training.adapters.lake import Lake
from training.contract.base import TableVersions
from training.contract.model_spec import ModelSpec
from training.settings import Settings


def join_with_feast(settings: Settings, spec: ModelSpec, rows: pd.DataFrame, versions: TableVersions) -> pd.DataFrame:
    """The columns that `Features.historical` adds to `rows` (events), made by Feast's `get_historical_features`.

    Feast's DuckDB offline store cannot read a Delta table at a version. So it reads Parquet copies of the days that
    the events can need.
    """
    from feast.data_format import ParquetFormat

    definitions = load_definitions(settings.feature_repo, spec.source)
    chosen = chosen_features(definitions, spec, settings.feature_repo)
    time_column, lake = spec.source.events.time_column, Lake(settings.lake, spec.source.name)
    # Feast knows microseconds only, and returns rows in no order.
    times = pd.DatetimeIndex(rows[time_column]).tz_convert("UTC").as_unit("us")
    entities = rows[sorted({*spec.source.entities.values(), *definitions.request_columns})].reset_index(drop=True)
    entities = entities.assign(**{time_column: times, "event_timestamp": times, "_row": np.arange(len(rows))})
    with tempfile.TemporaryDirectory(prefix="perennial-features-") as folder:
        for view in definitions.views:
            first, last = times.min().date(), times.max().date()
            needed = (ds.field("day") >= first - view.ttl) & (ds.field("day") <= last)
            path = f"{folder}/{view.name}.parquet"
            pq.write_table(lake.scan(view.name, versions[view.name]).to_table(filter=needed), path)
            view.batch_source.file_options.uri, view.batch_source.file_options.file_format = path, ParquetFormat()
        with stores.private_store(settings, [*definitions.objects, chosen.service], online=False) as store:
            service = store.get_feature_service(chosen.service.name)
            joined = store.get_historical_features(entities, service).to_df().sort_values("_row")
    return joined[chosen.names].fillna(0).astype(np.float32).set_index(rows.index)
