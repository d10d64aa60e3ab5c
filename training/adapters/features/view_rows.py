"""The rows of a feature table, as the view of the same name defines them."""

from datetime import date
from typing import Any

import pyarrow.dataset as ds

from training.adapters.lake import Lake
from training.contract.base import TableVersions
from training.contract.errors import InputError


def pinned_version(versions: TableVersions, table: str) -> int:
    """The version of `table` to read. Raises InputError when there is none."""
    if table not in versions:
        raise InputError(f"table_versions names no version of {table!r}", hint="Run the features step first.")
    return versions[table]


def newest_day(rows: ds.Dataset) -> date | None:
    """The last day with rows of a feature table; None without rows. Only files of that day are looked at."""
    days = {ds.get_partition_keys(each.partition_expression).get("day") for each in rows.get_fragments()}
    return next((day for day in sorted(days, reverse=True) if rows.count_rows(filter=ds.field("day") == day)), None)


def scan_view(lake: Lake, view: Any, version: int) -> ds.FileSystemDataset:
    """The feature table of `view` (feast.FeatureView) at `version`. Raises InputError when it lacks features."""
    rows = lake.scan(view.name, version)
    if missing := [feature.name for feature in view.features if feature.name not in rows.schema.names]:
        problem = f"Version {version} of {view.name!r} in {lake.uri(view.name)} has no {missing}"
        raise InputError(
            problem, hint="An older definition made this version. Run the features step and name a newer version."
        )
    return rows
