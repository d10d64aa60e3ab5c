"""Guesses which columns of a sample are the event's time, its id and its entities. A person can name each of them."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from training.contract.errors import InputError
from training.onboarding.profile import Profile, only
from training.onboarding.sample import Sample
from training.onboarding.times import as_times, to_times

#: The id that `make land` makes where the sample has none.
MADE_ID = "event_id"
#: What a person writes to get it.
NEW = "new"

_TIME_NAMES = re.compile(r"(event|request|transaction)?_?(time|date|datetime|timestamp|ts|time_?stamp)(_utc)?", re.I)
_ID_NAMES = re.compile(r"(.*_)?(id|uuid|guid|key|number|no|nr|index|unnamed_0|row)", re.I)
_KEY_NAMES = re.compile(
    r"(.*_)?(id|uuid|code|key|number|no|user|customer|client|account|device|station|store|shop)", re.I
)
#: An entity has on average at least so many events, and the sample so many entities.
_EVENTS_PER_ENTITY, _ENTITIES = 5, 5
_MOST_ENTITIES = 2
#: The years of an event's time, which a request can have.
_YEARS = (1970, 2261)


@dataclass(frozen=True)
class Choice:
    """A column, and the figures for which it was chosen, for a comment. `why` is empty when a person named it."""

    column: str
    why: str = ""


def choose_time(sample: Sample, found: dict[str, Profile], wanted: str = "") -> tuple[Choice, Sample]:
    """The column with the time of each row, and the sample with that column as timestamps in UTC.

    `wanted`: the column that a person named. Raises InputError when it holds no times, or when no column does.
    """
    choice = Choice(sample.column(wanted)) if wanted else _guessed_time(sample, found)
    values = sample.table[choice.column]
    times = to_times(values)
    if times is None:
        raise _no_time(sample, choice.column, values)
    if times.null_count:
        what = f"{sample.path}: {choice.column} is missing in {times.null_count:,} of {len(times):,} rows"
        raise InputError(f"{what}, but every row needs a time", "Name another column as TIME, or leave these rows out.")
    years = [each.as_py() for each in pc.min_max(pc.year(times)).values()]
    if years[0] < _YEARS[0] or years[1] > _YEARS[1]:
        what = f"{sample.path}: {choice.column} reaches from the year {years[0]} to {years[1]}"
        raise InputError(what, f"The time of an event lies in the years {_YEARS[0]} to {_YEARS[1]}. Correct the file.")
    at = sample.table.column_names.index(choice.column)
    return choice, replace(sample, table=sample.table.set_column(at, choice.column, times))


def _guessed_time(sample: Sample, found: dict[str, Profile]) -> Choice:
    times = {each.name: as_times(sample.table[each.name]) for each in only(found, ("timestamp", "date"))}
    candidates = [found[name] for name, values in times.items() if values is not None and not values.null_count]
    if not candidates:
        partly = [f"{each.name} ({each.nulls:,} rows without)" for each in only(found, ("timestamp", "date"))]
        nearest = f". Columns with a time in some rows: {', '.join(partly)}. Leave out the other rows" if partly else ""
        raise InputError(
            f"{sample.path} has no column with a time in every row{nearest}",
            "Name one as TIME: timestamps, dates, text in ISO 8601, or whole seconds since 1970. A file with the parts"
            " of a date (year, month, day) needs one column made of them. Models are trained on earlier rows and judged"
            f" on later ones, so data without times cannot be used. Its columns: {', '.join(found)}.",
        )
    if len(candidates) == 1:
        return Choice(candidates[0].name, "the only column with a time in every row")

    def rank(each: Profile) -> Any:
        values = times[each.name]
        assert values is not None
        counts = values.cast(pa.int64())
        ordered = bool(pc.all(pc.greater_equal(counts.slice(1), counts.slice(0, len(counts) - 1))).as_py())
        hinted = bool(_TIME_NAMES.fullmatch(each.name))
        return each.kind == "date", not hinted, not ordered, pc.mean(counts).as_py()

    chosen, *others = sorted(candidates, key=rank)
    return Choice(chosen.name, f"by its name and order; other times are in {_listed(others)}")


def choose_id(sample: Sample, found: dict[str, Profile], time: str, wanted: str = "", joined: bool = False) -> Choice:
    """The column that identifies an event. MADE_ID when the sample has none. `joined`: labels are in another file.

    Raises InputError when `wanted` cannot be an id, or when there is none although labels refer to it.
    """
    if wanted and wanted != NEW:
        return Choice(_usable_id(sample, found[sample.column(wanted)]))
    candidates = [each for each in only(found, ("int", "string")) if each.is_unique and each.name != time]
    named = [each for each in candidates if _ID_NAMES.fullmatch(each.name)]
    rising = [each for each in candidates if each.kind == "string" or _rises_by_one(sample.table[each.name])]
    if wanted != NEW and (best := named or rising):
        return Choice(best[0].name, "every row has a value of its own")
    if joined:
        what = f"No column of {sample.path} has another value in every row, but the labels refer to one"
        raise InputError(what, _REPEATED.format(", ".join(_nearly(found)) or "none"))
    if MADE_ID in {name.lower() for name in found}:
        return Choice(_usable_id(sample, found[sample.column(MADE_ID)]))
    nearly = f"; {', '.join(_nearly(found))}" if _nearly(found) else ""
    return Choice(MADE_ID, f"no column has another value in every row{nearly}")


_REPEATED = "Remove the rows that are repeated, or add a column that numbers the events. Nearest: {}."


def _usable_id(sample: Sample, each: Profile) -> str:
    hint = f"Name another column as ID, or write ID={NEW}: `make land` then makes an id of the time and a number."
    if not each.key_kind:
        raise InputError(f"{sample.path}: {each.name} is {each.file_type}, but an id is an integer or text", hint)
    if each.nulls:
        raise InputError(f"{sample.path}: {each.name} is missing in {each.nulls:,} rows, but identifies them", hint)
    if not each.is_unique:
        counts = pc.value_counts(sample.table[each.name])
        most = max(counts.to_pylist(), key=lambda item: item["counts"])
        what = f"{sample.path}: {each.name} has {each.rows - each.distinct:,} repeated values"
        raise InputError(f"{what}, most often {most['values']!r} ({most['counts']:,} rows)", hint)
    return each.name


def _nearly(found: dict[str, Profile]) -> list[str]:
    """Columns with the name of an id that some rows share."""
    return [
        f"{each.name} ({each.rows - each.distinct:,} repeated or missing values)"
        for each in only(found, ("int", "string"))
        if _ID_NAMES.fullmatch(each.name) and not each.is_unique and each.distinct > 0.5 * each.rows
    ]


def _rises_by_one(values: pa.ChunkedArray) -> bool:
    low, high = (each.as_py() for each in pc.min_max(values).values())
    return bool(high - low + 1 == len(values))


def choose_entities(
    sample: Sample, found: dict[str, Profile], taken: Collection[str], wanted: Sequence[str] | None
) -> list[Choice]:
    """The columns of events whose values have a history: a customer, a station.

    `taken`: the time, the id and the labels. `wanted`: what a person named; empty for none, None for a guess. Raises
    InputError when one of them cannot be an entity.
    """
    if wanted is not None:
        return [Choice(_usable_entity(sample, found[sample.column(name)], taken)) for name in wanted]
    candidates = list(_entity_like(found, taken))
    candidates.sort(key=lambda each: (not _KEY_NAMES.fullmatch(each.name), -each.distinct))
    return [
        Choice(each.name, f"{each.distinct:,} values with {each.known / each.distinct:,.0f} events on average")
        for each in candidates[:_MOST_ENTITIES]
    ]


def _entity_like(found: dict[str, Profile], taken: Collection[str]) -> Iterator[Profile]:
    for each in found.values():
        if each.name in taken or each.distinct < _ENTITIES or each.nulls > each.rows / 2:
            continue
        repeats = each.known / each.distinct >= _EVENTS_PER_ENTITY
        is_key = each.kind == "string" or (each.key_kind == "int" and _KEY_NAMES.fullmatch(each.name))
        if repeats and is_key:
            yield each


def _usable_entity(sample: Sample, each: Profile, taken: Collection[str]) -> str:
    hint = "Name other columns as ENTITY, separated by commas, or write ENTITY=none."
    if each.name in taken:
        raise InputError(f"{each.name} is the time, the id or a label, so it has no history as an entity", hint)
    if not each.key_kind:
        what = f"{sample.path}: {each.name} is {each.file_type}, but an entity is an integer or text"
        raise InputError(what, hint)
    return each.name


def _no_time(sample: Sample, name: str, values: pa.ChunkedArray) -> InputError:
    known = values.drop_null()
    example = f", such as {str(known[0].as_py())!r}" if len(known) else ""
    how = "format='%d/%m/%Y'" if pt.is_string(values.type) else "unit='s'"
    fix = f"Convert it, for example with pandas: frame['x'] = pandas.to_datetime(frame['x'], {how})."
    return InputError(f"{sample.path}: {name} is {values.type}{example}, not a time or text in ISO 8601", fix)


def _listed(columns: Sequence[Profile]) -> str:
    return ", ".join(each.name for each in columns)
