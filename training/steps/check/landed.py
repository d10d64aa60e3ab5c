"""Check the feature SQL for leakage on the data that has landed: real values reach cases that generated values miss."""

from collections.abc import Collection
from datetime import date, timedelta
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from training.adapters.feature_query import FeatureQueries
from training.adapters.lake import EVENTS, Lake
from training.adapters.tables import Events, covered, reports_relation
from training.contract.base import Days, midnight
from training.contract.errors import ConfigError, DataContractError
from training.contract.source_spec import SourceSpec
from training.settings import StateSettings
from training.steps.check.leakage import Found, Leakage

#: So many events are read. Of more, every n-th.
MAXIMUM_EVENTS = 200_000
#: Of an hourly table: the hour of the day that is computed alone.
HOUR = 17


class Landed(NamedTuple):
    """Rows of all feeds from before and after the start of `day`."""

    feeds: dict[str, pa.Table]
    day: date


def find_landed_leakage(
    spec: SourceSpec, tables: Collection[str], queries: FeatureQueries, settings: StateSettings
) -> dict[str, Found]:
    """Those of `tables` whose rows depend on what was not known then, on the newest day that has history and labels.

    Empty when too little has landed. Raises TransientError when the lake cannot be read.
    """
    landed = landed_feeds(spec, settings) if tables else None
    if landed is None:
        return {}
    found = {}
    for table in tables:
        hourly = table in spec.hourly_tables
        time = midnight(landed.day) + timedelta(hours=HOUR if hourly else 0)
        days = Days(start=landed.day - timedelta(days=1), end=landed.day + timedelta(days=1))
        try:
            together = queries.run(table, days, landed.feeds)
            if leak := Leakage(spec, table, queries, landed.feeds).find(together, [time]):
                found[table] = f"{leak[0]} (in the landed data)", leak[1]
        except (ConfigError, DataContractError):
            # Rows that break a rule are for the features step, which reads all events and not a sample of them.
            continue
    return found


def landed_feeds(spec: SourceSpec, settings: StateSettings) -> Landed | None:
    """A sample of the newest landed rows. Its day leaves time after it for the labels that were not yet reported.

    None when fewer than two days have landed.
    """
    lake = Lake(settings.lake, spec.name)
    versions = lake.versions(*spec.feeds)
    days = covered(lake, spec, EVENTS, versions[EVENTS]) if EVENTS in versions else None
    if days is None or days.end - days.start < timedelta(days=2):
        return None
    delay = max(label.delay_days for label in spec.labels.values())
    day = max(days.start + timedelta(days=1), days.end - timedelta(days=delay + 2))
    # A day more than the features step reads, to find a history that is too short.
    since = day - timedelta(days=spec.history_days + 1)
    events = Events(lake, spec, versions[EVENTS]).thinned(Days(start=since, end=days.end), MAXIMUM_EVENTS)
    feeds = {EVENTS: events}
    for feed in spec.label_feeds:
        reports = reports_relation(lake, spec, feed, versions.get(feed), events, since, days.end).make()
        feeds[feed] = reports.filter(pc.is_in(reports[spec.id_column], value_set=events[spec.id_column]))
    return Landed(feeds, day)
