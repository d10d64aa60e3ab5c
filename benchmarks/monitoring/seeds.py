"""All that is measured with one seed."""

import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from benchmarks.monitoring.planted import Planted, planted_on
from benchmarks.monitoring.results import Found, SeedResult, Year
from benchmarks.monitoring.streams import START, Streams
from benchmarks.monitoring.watched_stream import Champion, Watch
from training.contract.base import Days, midnight

#: The training window begins when its features have their whole history.
WARM_UP_DAYS = 35


@dataclass(frozen=True)
class Sizes:
    """What is measured: see the command line."""

    folder: Path
    customers: int
    weeks: int
    every: int
    planted: tuple[Planted, ...]


def judged(sizes: Sizes, seed: int) -> SeedResult:
    """The looks at the unchanged stream of the seed, and at each planted change."""
    began = time.process_time()
    streams = Streams(sizes.folder, seed, sizes.customers)
    spec = streams.spec
    warm_up = START + timedelta(days=WARM_UP_DAYS)
    training = spec.training
    serving_from = warm_up + timedelta(
        days=training.window_days + training.holdout_days + 2 * spec.label_spec.delay_days
    )
    start = planted_on(serving_from, seed)
    end = serving_from + timedelta(weeks=sizes.weeks)
    rows = streams.unchanged((max(start, end) - START).days)
    champion = Champion.trained(rows, streams.names, spec, warm_up)
    assert champion.as_of == serving_from
    before = Watch.of(champion, rows[rows[spec.source.events.time_column] < midnight(start)])
    year = _year(Watch.of(champion, rows), seed, Days(start=serving_from, end=end), sizes) if sizes.weeks else None
    found = [_found(planted, before, streams, start, sizes.every) for planted in sizes.planted]
    return SeedResult(seed, sizes.customers, year, found, time.process_time() - began)


def _year(watch: Watch, seed: int, days: Days, sizes: Sizes) -> Year:
    looks = list(watch.looks(Days(start=days.start + timedelta(days=1), end=days.end + timedelta(days=1)), sizes.every))
    return Year.of(seed, len(days) / 364, looks)


def _found(planted: Planted, before: Watch, streams: Streams, start: date, every: int) -> Found:
    """When the change is seen, and when a training for it is granted."""
    watch = before.going_on(streams.changed([planted.change(start)], planted.watched_days))
    days = Days(start=start + timedelta(days=every), end=start + timedelta(days=planted.watched_days + 1))
    seen, by, columns = None, (), ()
    for look in watch.looks(days, every):
        passed = (look.as_of - start).days
        if look.triggers and seen is None:
            seen, by = passed, look.triggers
            columns = tuple(name for name, column in look.drift.columns.items() if column.drifted)
        if look.granted:
            return Found(planted, streams.seed, seen, by, columns, passed)
    return Found(planted, streams.seed, seen, by, columns, None)
