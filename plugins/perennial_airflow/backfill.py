"""A backfill: which deliveries of a source it takes in, and of which days it computes the features."""

import time
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any

from airflow.sdk import Asset, BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException

from perennial_airflow.deliveries import Announced, Delivery, landed_file, landing_folder, scan

#: Feature days that one task computes.
CHUNK_DAYS = 31


class PlanBackfillOperator(BaseOperator):
    """Lists the deliveries in landing that have a day in the range of the run: the inputs of their ingest steps."""

    ui_color = "#e8f4ea"

    def __init__(self, *, source: str, feeds: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.feeds = feeds

    def execute(self, context: Any) -> list[dict[str, str]]:
        first, last = (date.fromisoformat(context["params"][name]) for name in ("first_day", "last_day"))
        folder = landing_folder(self.source)
        found = [d for d in scan(folder, self.feeds, time.time()) if _overlaps(d.partition, first, last)]
        if not found:
            raise AirflowFailException(
                f"No delivery of {first} to {last} in {folder}. Land the files, or choose other days."
            )
        if len(found) > (most := conf.getint("core", "max_map_length")):
            raise AirflowFailException(
                f"{len(found)} deliveries of {first} to {last} in {folder}: one run takes at most {most}. "
                "Choose fewer days, or raise AIRFLOW__CORE__MAX_MAP_LENGTH."
            )
        self.log.info("%d deliveries of %s to %s in %s", len(found), first, last, folder)
        context["ti"].xcom_push("deliveries", [[d.feed, d.partition, d.fingerprint, d.name] for d in found])
        return [
            {"feed": d.feed, "partition": d.partition, "uri": landed_file(self.source, d.feed, d.name)} for d in found
        ]


class RecordBackfillOperator(BaseOperator):
    """Records that the planned deliveries are taken in, so that the landing DAG starts no data runs for them."""

    ui_color = "#e8f4ea"

    def __init__(self, *, landing: Asset, **kwargs: Any) -> None:
        super().__init__(inlets=[landing], **kwargs)
        self.landing = landing

    def execute(self, context: Any) -> None:
        store = context["asset_state_store"][self.landing]
        announced = Announced(store.get(Announced.KEY, {}))
        planned = context["ti"].xcom_pull(task_ids="plan", key="deliveries")
        for delivery in announced.new([Delivery(*each) for each in planned]):
            announced.add(delivery)
        store.set(Announced.KEY, announced.stored())


def chunks(ingested: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The inputs of the features steps: all days that the results of ingest name, `CHUNK_DAYS` at a time, in order.

    Days between two affected ranges are left out. All chunks read the newest versions of the tables.
    """
    results = list(ingested)
    days: set[date] = set()
    for result in results:
        if affected := result["affected"]:
            start, end = (date.fromisoformat(affected[name]) for name in ("start", "end"))
            days.update(start + timedelta(days=at) for at in range((end - start).days))
    versions = _newest(result["table_versions"] for result in results)
    ranges: list[tuple[date, date]] = []
    for day in sorted(days):
        if ranges and day == ranges[-1][1] and (day - ranges[-1][0]).days < CHUNK_DAYS:
            ranges[-1] = ranges[-1][0], day + timedelta(days=1)
        else:
            ranges.append((day, day + timedelta(days=1)))
    return [{"days": {"start": str(start), "end": str(end)}, "table_versions": versions} for start, end in ranges]


def newest_versions(context: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the materialize step of a backfill, but for the source."""
    results = context["ti"].xcom_pull(task_ids=["features"], key="return_value")  # a list, also of one
    return {"table_versions": _newest(result["table_versions"] for result in results)}


def _newest(versions: Iterable[Mapping[str, int]]) -> dict[str, int]:
    newest: dict[str, int] = {}
    for each in versions:
        newest |= {table: max(version, newest.get(table, version)) for table, version in each.items()}
    return newest


def _overlaps(partition: str, first: date, last: date) -> bool:
    """Whether a partition has a day from `first` to `last`. One whose name is not a day or span of days has none."""
    begin, _, end = partition.partition("_")
    try:
        return date.fromisoformat(begin) <= last and date.fromisoformat(end or begin) >= first
    except ValueError:
        return False
